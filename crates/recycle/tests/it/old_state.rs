//! Saved states as an earlier version wrote them.

use model::tensor_file::{Stored, TensorFile, write_stored};

/// `state` with parts by other names, `(today, then)`. All of them are in it.
pub fn written_then(state: &[u8], names: &[(&str, &str)]) -> Vec<u8> {
    let file = TensorFile::parse(state).unwrap();
    for (today, _) in names {
        assert!(file.shape(today).is_some(), "{today}");
    }
    let then = |name: &str| {
        let renamed = names.iter().find(|(today, _)| *today == name);
        renamed.map_or_else(|| name.to_owned(), |(_, then)| (*then).to_owned())
    };
    let parts: Vec<(String, &[usize], &[u8])> = file
        .names()
        .map(|name| {
            let shape = file.shape(name).unwrap();
            (then(name), shape, file.read_bytes(name, shape).unwrap())
        })
        .collect();
    let stored: Vec<_> = parts
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), *shape, Stored::U8(bytes)))
        .collect();
    write_stored(&stored, file.metadata()).unwrap()
}
