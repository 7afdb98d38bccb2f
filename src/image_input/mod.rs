//! Encoded image bytes in, normalised pixels out: the only place that touches encoded images.
//! Knows formats, orientation, limits and resampling; knows no model beyond its preprocessing numbers.

use crate::backbone::Preprocess;
use crate::tensor::Tensor;
use thiserror::Error;

/// What is refused before any decoding work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Largest encoded size in bytes.
    pub max_bytes: usize,
    /// Largest width × height.
    pub max_pixels: u64,
    /// Largest memory that a decoder may take, in bytes.
    pub max_decode_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 20,
            max_pixels: 50_000_000,
            max_decode_bytes: 512 << 20,
        }
    }
}

/// Why an image was refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ImageError {
    #[error("the file is empty")]
    Empty,
}

impl ImageError {
    /// Stable machine-readable name of the reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "image_empty",
        }
    }
}

/// Decodes, orients and preprocesses an encoded image to `[3, H, W]`.
///
/// # Errors
/// [`ImageError`] says what is wrong with the file.
pub fn load_pixels(
    bytes: &[u8],
    limits: &ImageLimits,
    preprocess: &Preprocess,
) -> Result<Tensor, ImageError> {
    let _ = (limits, preprocess);
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    todo!("decode")
}
