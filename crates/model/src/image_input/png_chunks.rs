//! Chunks of a PNG file that say nothing about its pixels.

use std::borrow::Cow;

const SIGNATURE_BYTES: usize = 8;
/// Length and kind before the data of a chunk, and the checksum after it.
const FRAME_BYTES: usize = 12;

/// `bytes` without the chunks whose content is compressed and of no use here: colour profiles and texts. A decoder unpacks them before
/// the picture, and a few kilobytes may become gigabytes.
pub(super) fn without_packed_texts(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    let mut start = 0;
    let mut position = SIGNATURE_BYTES;
    while let Some((kind, length)) = chunk(bytes, position) {
        let end = position.saturating_add(length);
        if matches!(kind, b"iCCP" | b"iTXt" | b"zTXt") {
            kept.extend_from_slice(&bytes[start..position]);
            start = end.min(bytes.len());
        }
        position = end;
    }
    if start == 0 {
        return bytes.into();
    }
    kept.extend_from_slice(&bytes[start..]);
    kept.into()
}

/// Kind and whole length of the chunk at `position`.
fn chunk(bytes: &[u8], position: usize) -> Option<(&[u8; 4], usize)> {
    let head = bytes.get(position..)?;
    let length = u32::from_be_bytes(*head.first_chunk()?) as usize;
    let kind = head.get(4..)?.first_chunk()?;
    Some((kind, length.saturating_add(FRAME_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk_of(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], kind, data, b"CRC!"].concat()
    }

    #[test]
    fn profiles_and_packed_texts_go_and_all_else_stays() {
        let kinds: [&[u8; 4]; 6] = [b"IHDR", b"iCCP", b"eXIf", b"zTXt", b"IDAT", b"iTXt"];
        let file = |kinds: &[&[u8; 4]]| {
            let chunks = kinds.iter().flat_map(|kind| chunk_of(kind, *kind));
            b"\x89PNG\r\n\x1a\n".iter().copied().chain(chunks).collect()
        };
        let all: Vec<u8> = file(&kinds);
        let kept: Vec<u8> = file(&[b"IHDR", b"eXIf", b"IDAT"]);
        assert_eq!(without_packed_texts(&all), kept);
        assert!(matches!(without_packed_texts(&kept), Cow::Borrowed(_)));
    }

    #[test]
    fn a_file_cut_anywhere_is_never_read_beyond_its_end() {
        let kinds: [&[u8; 4]; 3] = [b"IHDR", b"iCCP", b"IDAT"];
        let chunks = kinds.iter().flat_map(|kind| chunk_of(kind, b"data"));
        let file: Vec<u8> = b"\x89PNG\r\n\x1a\n".iter().copied().chain(chunks).collect();
        for length in 0..file.len() {
            let kept = without_packed_texts(&file[..length]);
            assert!(kept.len() <= length);
        }
        let mut endless = file.clone();
        endless[8 + 16..8 + 20].fill(0xff);
        assert_eq!(without_packed_texts(&endless)[..], file[..8 + 16]);
    }
}
