//! Encoded image bytes in, normalised pixels out: the only place that touches encoded images.
//! Knows formats, orientation, limits and resampling; knows no model beyond its preprocessing numbers.

mod colour;
mod decode;
mod error;
mod format;
mod header;
mod limits;
mod memory;
mod png;
mod png_chunks;
mod preprocess;
mod resize;
mod signature;
mod thumbnail;

use crate::backbone::Preprocess;
use crate::tensor::Tensor;
pub use decode::decode;
pub use error::ImageError;
pub use format::{ImageFormat, identify};
pub use image::RgbImage;
pub use limits::ImageLimits;
pub use memory::{MemoryPart, MemoryShare, PICTURES, needed_bytes};
pub use png::encode_png;
pub use signature::Signature;
pub use thumbnail::{Thumbnail, thumbnail};

/// Version of the code that makes pixels from pictures: rises where the same picture gives others. Features that are kept know it.
pub const PIXELS_VERSION: u32 = 1;

/// A picture in the size that a backbone sees, before normalising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// `[3, height, width]`
    pub planes: Vec<u8>,
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
    let needed = needed_bytes(bytes, limits, Some(preprocess))?;
    let _part = PICTURES.take(needed);
    preprocess::apply(decode::decode_in_share(bytes, limits)?, preprocess)
}

/// Decodes, orients, resizes and crops an encoded image: normalised with [`Preprocess::normalised_levels`] it is what
/// [`load_pixels`] gives, bit for bit.
///
/// # Errors
/// [`ImageError`] says what is wrong with the file.
pub fn load_levels(
    bytes: &[u8],
    limits: &ImageLimits,
    preprocess: &Preprocess,
) -> Result<Levels, ImageError> {
    let needed = needed_bytes(bytes, limits, Some(preprocess))?;
    let _part = PICTURES.take(needed);
    preprocess::levels(decode::decode_in_share(bytes, limits)?, preprocess)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::embedded;

    #[test]
    fn levels_normalised_later_equal_the_pixels_that_serving_computes() {
        let preprocess = embedded().unwrap().preprocess;
        let picture = include_bytes!("../../../../assets/examples/mammal/dog.jpg");
        let limits = ImageLimits::default();
        let levels = load_levels(picture, &limits, &preprocess).unwrap();
        let table = preprocess.normalised_levels();
        let plane = levels.height * levels.width;
        let normalised = levels.planes.iter().enumerate();
        let normalised = normalised.map(|(i, &level)| table[i / plane][usize::from(level)]);
        let pixels = load_pixels(picture, &limits, &preprocess).unwrap();
        assert_eq!(pixels.shape(), [3, levels.height, levels.width]);
        assert!(normalised.eq(pixels.data().iter().copied()));
    }

    #[test]
    fn a_written_png_reads_back_equal() {
        let levels = Levels {
            height: 2,
            width: 3,
            planes: (0..18).map(|i| i * 14).collect(),
        };
        let png = encode_png(&levels).unwrap();
        let image = decode(&png, &ImageLimits::default()).unwrap();
        assert_eq!((image.width(), image.height()), (3, 2));
        let planes: Vec<u8> = (0..3)
            .flat_map(|channel| image.as_raw().iter().skip(channel).step_by(3).copied())
            .collect();
        assert_eq!(planes, levels.planes);
    }
}
