//! The formats that are read; tells them by content, never by file name, and names what an unreadable file looks like.

use super::ImageError;

/// A format that is read. The facts about it are in [`Self::facts`], its decoding in `header` and `decode`, and nowhere else: the
/// pages take theirs from here too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, lossy or lossless.
    WebP,
    /// GIF; the first picture.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF; the first page.
    Tiff,
}

/// What is known of a format.
struct Facts {
    name: &'static str,
    media_type: &'static str,
    /// In lower case, without the dot; the usual one first.
    extensions: &'static [&'static str],
    /// What a file begins with, one of these.
    magic: &'static [&'static [u8]],
    decoder: image::ImageFormat,
}

impl ImageFormat {
    /// Every format that is read.
    pub const ALL: [Self; 6] = [
        Self::Jpeg,
        Self::Png,
        Self::WebP,
        Self::Gif,
        Self::Bmp,
        Self::Tiff,
    ];

    const fn facts(self) -> &'static Facts {
        match self {
            Self::Jpeg => &Facts {
                name: "JPEG",
                media_type: "image/jpeg",
                extensions: &["jpg", "jpeg"],
                magic: &[b"\xff\xd8\xff"],
                decoder: image::ImageFormat::Jpeg,
            },
            Self::Png => &Facts {
                name: "PNG",
                media_type: "image/png",
                extensions: &["png"],
                magic: &[b"\x89PNG\r\n\x1a\n"],
                decoder: image::ImageFormat::Png,
            },
            // A RIFF container, whose kind follows its length: `identify` looks there too.
            Self::WebP => &Facts {
                name: "WebP",
                media_type: "image/webp",
                extensions: &["webp"],
                magic: &[b"RIFF"],
                decoder: image::ImageFormat::WebP,
            },
            Self::Gif => &Facts {
                name: "GIF",
                media_type: "image/gif",
                extensions: &["gif"],
                magic: &[b"GIF87a", b"GIF89a"],
                decoder: image::ImageFormat::Gif,
            },
            Self::Bmp => &Facts {
                name: "BMP",
                media_type: "image/bmp",
                extensions: &["bmp"],
                magic: &[b"BM"],
                decoder: image::ImageFormat::Bmp,
            },
            Self::Tiff => &Facts {
                name: "TIFF",
                media_type: "image/tiff",
                extensions: &["tiff", "tif"],
                magic: &[b"II\x2a\x00", b"MM\x00\x2a"],
                decoder: image::ImageFormat::Tiff,
            },
        }
    }

    /// As people write it.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// As in `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        self.facts().media_type
    }

    /// In lower case, without the dot; the usual one first.
    pub const fn extensions(self) -> &'static [&'static str] {
        self.facts().extensions
    }

    pub(super) const fn decoder(self) -> image::ImageFormat {
        self.facts().decoder
    }
}

const ADVICE: &str = "send a JPEG, PNG, WebP, GIF, BMP or TIFF file";
const EXPORT_AS_JPEG: &str = "export the picture as JPEG first";
const DRAW_TO_PNG: &str = "export the drawing as PNG first";

/// Start of a foreign file, what it is and what to do with it.
const FOREIGN: [(&[u8], &str, &str); 15] = [
    (
        b"%PDF",
        "a PDF document",
        "export the page as PNG or JPEG first",
    ),
    (
        b"%!PS",
        "a PostScript document",
        "export the page as PNG or JPEG first",
    ),
    (b"\xff\x0a", "a JPEG XL picture", EXPORT_AS_JPEG),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture", EXPORT_AS_JPEG),
    (
        b"\x00\x00\x00\x0cjP  ",
        "a JPEG 2000 picture",
        EXPORT_AS_JPEG,
    ),
    (b"8BPS", "a Photoshop document", EXPORT_AS_JPEG),
    (
        b"II\x2b\x00",
        "a BigTIFF picture",
        "save it as an ordinary TIFF or a PNG",
    ),
    (
        b"MM\x00\x2b",
        "a BigTIFF picture",
        "save it as an ordinary TIFF or a PNG",
    ),
    (b"\x00\x00\x01\x00", "a Windows icon", DRAW_TO_PNG),
    (b"v/1\x01", "an OpenEXR picture", EXPORT_AS_JPEG),
    (
        b"PK\x03\x04",
        "a ZIP archive or an office document",
        "unpack the pictures first",
    ),
    (b"\x1f\x8b", "a gzip archive", "unpack the pictures first"),
    (b"Rar!", "a RAR archive", "unpack the pictures first"),
    (b"\x7fELF", "a program", ADVICE),
    (b"MZ", "a program", ADVICE),
];

/// The format that the content shows.
///
/// # Errors
/// [`ImageError`] that says what it is instead.
pub fn identify(bytes: &[u8]) -> Result<ImageFormat, ImageError> {
    for format in ImageFormat::ALL {
        for &magic in format.facts().magic {
            // A file cut inside its magic number; one or two bytes are too few to tell.
            if bytes.len() > 2 && bytes.len() < magic.len() && magic.starts_with(bytes) {
                return Err(ImageError::Truncated {
                    format: format.name(),
                });
            }
            if bytes.starts_with(magic) {
                return match format {
                    ImageFormat::WebP => kind_of_riff(bytes).map(|()| format),
                    ImageFormat::Jpeg
                    | ImageFormat::Png
                    | ImageFormat::Gif
                    | ImageFormat::Bmp
                    | ImageFormat::Tiff => Ok(format),
                };
            }
        }
    }
    Err(foreign(bytes))
}

/// Whether a RIFF container holds a picture.
fn kind_of_riff(bytes: &[u8]) -> Result<(), ImageError> {
    match bytes.get(8..12) {
        Some(b"WEBP") => Ok(()),
        Some(_) => Err(unsupported("a sound or video file", ADVICE)),
        None => Err(ImageError::Truncated {
            format: ImageFormat::WebP.name(),
        }),
    }
}

fn unsupported(looks_like: &'static str, advice: &'static str) -> ImageError {
    ImageError::UnsupportedFormat { looks_like, advice }
}

fn foreign(bytes: &[u8]) -> ImageError {
    for (start, looks_like, advice) in FOREIGN {
        if bytes.starts_with(start) {
            return unsupported(looks_like, advice);
        }
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return media_container(&bytes[8..bytes.len().min(64)]);
    }
    text(bytes)
}

/// Files of the ISO base media family, told apart by their brands, four letters each, the first being the main one.
fn media_container(brands: &[u8]) -> ImageError {
    let brands = brands.as_chunks().0;
    let has_avif = brands.iter().any(|brand| brand == b"avif");
    match brands.first().unwrap_or(b"    ") {
        b"avif" | b"avis" => unsupported("an AVIF picture", EXPORT_AS_JPEG),
        b"mif1" | b"msf1" if has_avif => unsupported("an AVIF picture", EXPORT_AS_JPEG),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
            unsupported(
                "a HEIC picture (the format of iPhone cameras)",
                "export it as JPEG first, or set the camera to \"Most Compatible\"",
            )
        }
        b"crx " => unsupported("a camera raw picture", EXPORT_AS_JPEG),
        _ => unsupported("a video", "save a single frame as PNG or JPEG"),
    }
}

fn text(bytes: &[u8]) -> ImageError {
    let head = &bytes[..bytes.len().min(1024)];
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let head = head.trim_ascii_start().to_ascii_lowercase();
    let contains = |word: &[u8]| head.windows(word.len()).any(|window| window == word);
    if head.starts_with(b"<") && contains(b"<svg") && !contains(b"<html") {
        return unsupported("an SVG drawing", DRAW_TO_PNG);
    }
    if head.starts_with(b"<")
        && [&b"<!doctype html"[..], b"<html", b"<head", b"<body"]
            .iter()
            .any(|word| contains(word))
    {
        return unsupported(
            "HTML, a web page",
            "save the picture itself, not the page that shows it",
        );
    }
    if head.starts_with(b"<?xml") {
        return unsupported("XML", ADVICE);
    }
    if head.iter().all(|&byte| byte == 0) {
        return unsupported("a file of zeros", "copy or download it again");
    }
    // The cut at the end of `head` may go through a character.
    let is_utf8 =
        std::str::from_utf8(&head).map_or_else(|error| error.error_len().is_none(), |_| true);
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 14..=31 | 0x7f);
    if is_utf8 && !head.iter().any(is_control) {
        return unsupported("plain text", ADVICE);
    }
    unsupported("an unknown kind of file", ADVICE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_advice_names_every_format() {
        for format in ImageFormat::ALL {
            assert!(ADVICE.contains(format.name()), "{format:?}");
        }
    }

    #[test]
    fn no_two_formats_share_a_name_a_media_type_an_extension_or_a_start() {
        let mut seen = BTreeSet::new();
        for format in ImageFormat::ALL {
            let facts = format.facts();
            let texts = [facts.name, facts.media_type];
            let texts = texts.iter().chain(facts.extensions);
            let starts = facts.magic.iter().copied();
            for start in texts.map(|text| text.as_bytes()).chain(starts) {
                assert!(seen.insert(start), "{start:?} of {format:?} appears twice");
            }
        }
    }
}
