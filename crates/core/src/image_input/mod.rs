//! Encoded image bytes in, normalised pixels out: the only place that touches encoded images.
//! Knows formats, orientation, limits and resampling; knows no model beyond its preprocessing numbers.

mod colour;
mod decode;
mod error;
mod format;
mod header;
mod limits;
mod preprocess;
mod resize;

use crate::backbone::Preprocess;
use crate::tensor::Tensor;
pub use decode::decode;
pub use error::ImageError;
pub use image::RgbImage;
pub use limits::ImageLimits;

/// Decodes, orients and preprocesses an encoded image to `[3, H, W]`.
///
/// # Errors
/// [`ImageError`] says what is wrong with the file.
pub fn load_pixels(
    bytes: &[u8],
    limits: &ImageLimits,
    preprocess: &Preprocess,
) -> Result<Tensor, ImageError> {
    preprocess::apply(decode(bytes, limits)?, preprocess)
}
