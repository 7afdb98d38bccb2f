//! Why an image was refused, in words for the person who sent it and as a stable code for programs.

use thiserror::Error;

/// Why an image was refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum ImageError {
    #[error("the file is empty; export or upload the picture again")]
    Empty,
    #[error(
        "the file has {found_bytes} bytes, more than the {limit_bytes} allowed; save it smaller or with stronger compression"
    )]
    TooLarge {
        found_bytes: usize,
        limit_bytes: usize,
    },
    #[error("this is not a picture that can be read: it looks like {looks_like}; {advice}")]
    UnsupportedFormat {
        looks_like: &'static str,
        advice: &'static str,
    },
    #[error(
        "this kind of {format} cannot be read ({detail}); save the picture as an 8-bit PNG or a JPEG"
    )]
    UnsupportedVariant {
        format: &'static str,
        detail: String,
    },
    #[error(
        "the picture is {width} × {height} pixels, so there is nothing to see; export it again"
    )]
    NoPixels { width: u32, height: u32 },
    #[error(
        "the picture is {width} × {height} pixels, more than the {limit} pixels allowed; scale it down"
    )]
    TooManyPixels { width: u32, height: u32, limit: u64 },
    #[error(
        "the picture is {width} × {height} pixels, and no side may have more than {limit}; scale it down or crop it"
    )]
    SideTooLong { width: u32, height: u32, limit: u32 },
    #[error(
        "decoding needs about {needed_bytes} bytes of memory, more than the {limit_bytes} allowed; scale the picture down or save it as an 8-bit PNG"
    )]
    TooMuchMemory { needed_bytes: u64, limit_bytes: u64 },
    #[error(
        "the picture is {width} × {height} pixels, too long and thin to scale its short side; crop it closer to a square"
    )]
    TooElongated { width: u32, height: u32 },
    #[error(
        "the {format} file ends before the picture is complete; copy, download or export it again"
    )]
    Truncated { format: &'static str },
    #[error("the {format} file is damaged ({detail}); export the picture again")]
    Damaged {
        format: &'static str,
        detail: String,
    },
    #[error(
        "the {format} decoder failed on this file; open the picture in an image editor and save it as a PNG"
    )]
    DecoderFailed { format: &'static str },
    #[error("the picture could not be resized ({detail}); save it at another size")]
    ResizeFailed { detail: String },
}

impl ImageError {
    /// Stable machine-readable name of the reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "image_empty",
            Self::TooLarge { .. } => "image_too_large",
            Self::UnsupportedFormat { .. } => "image_unsupported_format",
            Self::UnsupportedVariant { .. } => "image_unsupported_variant",
            Self::NoPixels { .. } => "image_no_pixels",
            Self::TooManyPixels { .. } => "image_too_many_pixels",
            Self::SideTooLong { .. } => "image_side_too_long",
            Self::TooMuchMemory { .. } => "image_too_much_memory",
            Self::TooElongated { .. } => "image_too_elongated",
            Self::Truncated { .. } => "image_truncated",
            Self::Damaged { .. } => "image_damaged",
            Self::DecoderFailed { .. } => "image_decoder_failed",
            Self::ResizeFailed { .. } => "image_resize_failed",
        }
    }
}
