//! Lists the files that the page is made of, so that the binary carries them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Source folder and the path under which its files are served.
const EMBEDDED_FOLDERS: [(&str, &str); 2] = [("static", ""), ("assets/examples", "examples/")];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut files = Vec::new();
    for (folder, served_as) in EMBEDDED_FOLDERS {
        println!("cargo::rerun-if-changed={folder}");
        collect(&root.join(folder), served_as, &mut files)?;
    }
    files.sort();

    let mut table = String::from("&[\n");
    for (served_as, source) in files {
        writeln!(table, "    ({served_as:?}, include_bytes!({source:?})),")
            .map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    let output = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(output.join("embedded_files.rs"), table)
}

fn collect(folder: &Path, served_as: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if path.is_dir() {
            collect(&path, &format!("{served_as}{name}/"), files)?;
        } else if !name.starts_with('.') {
            files.push((format!("{served_as}{name}"), path));
        }
    }
    Ok(())
}
