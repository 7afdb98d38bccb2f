//! What a header promises, read without decoding: the size in pixels, the decoder's memory, and whether the file is whole.
//! Looks at a few bytes only, because the decoders allocate before all of their checks.

use super::{ImageError, ImageFormat};

/// Size of the picture and memory that its decoder takes beside the decoded samples (for TIFF that follows from the samples).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub width: u32,
    pub height: u32,
    pub working_bytes: u64,
}

/// Reads the header.
///
/// # Errors
/// [`ImageError::Truncated`] and [`ImageError::Damaged`].
pub(super) fn read(format: ImageFormat, bytes: &[u8]) -> Result<Header, ImageError> {
    let header = match format {
        ImageFormat::Jpeg => return jpeg(bytes),
        ImageFormat::WebP => return webp(bytes),
        ImageFormat::Png => sides(big_endian_u32(bytes, 16), big_endian_u32(bytes, 20)),
        ImageFormat::Gif => sides(
            little_endian_u16(bytes, 6).map(u32::from),
            little_endian_u16(bytes, 8).map(u32::from),
        )
        // A frame that does not fill the screen is decoded aside and copied.
        .map(|header| Header {
            working_bytes: 4 * header.pixels(),
            ..header
        }),
        ImageFormat::Bmp => bmp(bytes),
        ImageFormat::Tiff => tiff(bytes),
    };
    header.ok_or(ImageError::Truncated {
        format: format.name(),
    })
}

impl Header {
    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Most bytes that a decoder gives for a pixel of the picture in `bytes`.
pub(super) fn sample_bytes_of_pixel(format: ImageFormat, bytes: &[u8]) -> u64 {
    match format {
        ImageFormat::Jpeg => 3,
        ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Bmp => 4,
        ImageFormat::Png => {
            let depth_bytes = if bytes.get(24) == Some(&16) { 2 } else { 1 };
            // Transparency may be told by a chunk as well as by the colour type: grey has up to two channels, others four.
            let channels = match bytes.get(25) {
                Some(0 | 4) => 2,
                _ => 4,
            };
            depth_bytes * channels
        }
        ImageFormat::Tiff => tiff_sample_bytes(bytes),
    }
}

fn sides(width: Option<u32>, height: Option<u32>) -> Option<Header> {
    Some(Header {
        width: width?,
        height: height?,
        working_bytes: 0,
    })
}

fn bmp(bytes: &[u8]) -> Option<Header> {
    // The oldest header has 16-bit sides; later a negative height means rows from top to bottom.
    if little_endian_u32(bytes, 14)? == 12 {
        return sides(
            little_endian_u16(bytes, 18).map(u32::from),
            little_endian_u16(bytes, 20).map(u32::from),
        );
    }
    let side = |offset| little_endian_u32(bytes, offset).map(|side| (side as i32).unsigned_abs());
    sides(side(18), side(22))
}

/// Width and height among the entries of the first directory.
fn tiff(bytes: &[u8]) -> Option<Header> {
    let side = |tag| Tiff(bytes).number(tag);
    sides(side(256), side(257))
}

/// From bits of a sample and samples of a pixel; where they cannot be told, four samples of 64 bits.
fn tiff_sample_bytes(bytes: &[u8]) -> u64 {
    let samples = Tiff(bytes).number(277).unwrap_or(4).clamp(3, 16);
    let bits = Tiff(bytes).number(258).unwrap_or(64);
    // Bits of several samples stand elsewhere in the file: this is where, not how many.
    let sample_bytes = match bits {
        0..=8 => 1,
        9..=16 => 2,
        _ => Tiff(bytes)
            .short(bits as usize)
            .map_or(8, |bits| bits.div_ceil(8)),
    };
    u64::from(samples) * u64::from(sample_bytes.clamp(1, 8))
}

/// A TIFF file.
struct Tiff<'b>(&'b [u8]);

impl Tiff<'_> {
    fn is_little_endian(&self) -> bool {
        self.0.starts_with(b"II")
    }

    fn short(&self, offset: usize) -> Option<u16> {
        match self.is_little_endian() {
            true => little_endian_u16(self.0, offset),
            false => big_endian_u16(self.0, offset),
        }
    }

    fn long(&self, offset: usize) -> Option<u32> {
        match self.is_little_endian() {
            true => little_endian_u32(self.0, offset),
            false => big_endian_u32(self.0, offset),
        }
    }

    /// What the entry `tag` of the first directory holds: its value, or where its values stand.
    fn number(&self, tag: u16) -> Option<u32> {
        const SHORT: u16 = 3;
        let directory = self.long(4)? as usize;
        let entries = 0..usize::from(self.short(directory)?);
        for entry in entries.map(|index| directory + 2 + 12 * index) {
            if self.short(entry)? == tag {
                let is_inline_short = self.short(entry + 2)? == SHORT && self.long(entry + 4)? <= 2;
                return match is_inline_short {
                    true => self.short(entry + 8).map(u32::from),
                    false => self.long(entry + 8),
                };
            }
        }
        None
    }
}

/// Walks the segments up to the end-of-image marker: the decoder fills what a cut file lacks with grey and says nothing.
fn jpeg(bytes: &[u8]) -> Result<Header, ImageError> {
    const FORMAT: &str = ImageFormat::Jpeg.name();
    let truncated = ImageError::Truncated { format: FORMAT };
    let damaged = |detail: &str| ImageError::Damaged {
        format: FORMAT,
        detail: detail.into(),
    };
    let mut header = None;
    let mut position = 2;
    loop {
        // Entropy-coded data lies between segments: there 0xFF is followed by 0 or a restart marker.
        position += bytes[position..]
            .iter()
            .position(|&byte| byte == 0xff)
            .ok_or(truncated.clone())?;
        position += bytes[position..]
            .iter()
            .position(|&byte| byte != 0xff)
            .ok_or(truncated.clone())?;
        let marker = bytes[position];
        position += 1;
        match marker {
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            0xd9 => return header.ok_or_else(|| damaged("no picture before its end")),
            _ => {}
        }
        let length = big_endian_u16(bytes, position).ok_or(truncated.clone())?;
        if length < 2 {
            return Err(damaged("a segment has no length"));
        }
        let segment = bytes
            .get(position..position + usize::from(length))
            .ok_or(truncated.clone())?;
        let is_frame = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
        if is_frame && header.is_none() {
            header =
                Some(jpeg_frame(marker, segment).ok_or_else(|| damaged("short frame header"))?);
        }
        position += segment.len();
    }
}

fn jpeg_frame(marker: u8, segment: &[u8]) -> Option<Header> {
    let height = big_endian_u16(segment, 3)?;
    let width = big_endian_u16(segment, 5)?;
    let components = u64::from(*segment.get(7)?);
    let progressive = marker & 0b11 == 0b10;
    // A progressive picture keeps all coefficients, 2 bytes each, in blocks of up to 32 × 32.
    let padded = |side: u16| u64::from(side).next_multiple_of(32);
    let coefficients = if progressive { 2 * components } else { 0 };
    Some(Header {
        width: width.into(),
        height: height.into(),
        working_bytes: padded(width) * padded(height) * coefficients,
    })
}

/// The size in the container's header and the sizes of the bitstreams in it: the largest counts, since a decoder trusts
/// the bitstream before it compares the two.
fn webp(bytes: &[u8]) -> Result<Header, ImageError> {
    const FORMAT: &str = ImageFormat::WebP.name();
    let truncated = ImageError::Truncated { format: FORMAT };
    let riff_length = little_endian_u32(bytes, 4).ok_or(truncated.clone())?;
    let end = riff_length as usize + 8;
    if bytes.len() < end {
        return Err(truncated);
    }
    let (mut width, mut height) = (None, None);
    let mut position = 12;
    while position + 8 <= end {
        let kind = &bytes[position..position + 4];
        let length = little_endian_u32(bytes, position + 4).ok_or(truncated.clone())? as usize;
        let body = position + 8;
        if matches!(kind, b"VP8X" | b"VP8 " | b"VP8L") {
            let (chunk_width, chunk_height) =
                webp_chunk_sides(kind, bytes, body).ok_or(truncated.clone())?;
            width = width.max(Some(chunk_width));
            height = height.max(Some(chunk_height));
        }
        // A frame of an animation holds its own chunks after 16 bytes.
        position = match kind {
            b"ANMF" => body + 16,
            _ => body + length.next_multiple_of(2),
        };
    }
    let header = sides(width, height).ok_or(ImageError::Damaged {
        format: FORMAT,
        detail: "no picture in it".into(),
    })?;
    // At most a canvas and a frame with alpha, or the planes of a lossy picture.
    Ok(Header {
        working_bytes: 8 * header.pixels(),
        ..header
    })
}

fn webp_chunk_sides(kind: &[u8], bytes: &[u8], body: usize) -> Option<(u32, u32)> {
    let side = |packed: u32| packed & 0x3fff;
    match kind {
        b"VP8X" => little_endian_u24(bytes, body + 4)
            .zip(little_endian_u24(bytes, body + 7))
            .map(|(width, height)| (width + 1, height + 1)),
        b"VP8L" => little_endian_u32(bytes, body + 1)
            .map(|packed| (side(packed) + 1, side(packed >> 14) + 1)),
        _ => little_endian_u32(bytes, body + 6).map(|packed| (side(packed), side(packed >> 16))),
    }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn big_endian_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    at(bytes, offset).map(u16::from_be_bytes)
}

fn big_endian_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    at(bytes, offset).map(u32::from_be_bytes)
}

fn little_endian_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    at(bytes, offset).map(u16::from_le_bytes)
}

fn little_endian_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    at(bytes, offset).map(u32::from_le_bytes)
}

fn little_endian_u24(bytes: &[u8], offset: usize) -> Option<u32> {
    at::<3>(bytes, offset).map(|b| u32::from_le_bytes([b[0], b[1], b[2], 0]))
}
