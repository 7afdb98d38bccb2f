//! Small versions of pictures, for people to look at.

use super::decode::decode_in_share;
use super::resize::resize;
use super::{ImageError, ImageFormat, ImageLimits, PICTURES, format, needed_bytes};
use crate::backbone::Resample;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Longest side of a thumbnail in pixels: a tile of a page on a screen with two pixels to the point.
const SIDE: u32 = 256;
/// Of 100.
const QUALITY: u8 = 80;

/// A picture that can be read, with a small version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Of the picture.
    pub format: ImageFormat,
    /// Of the upright picture, in pixels.
    pub width: u32,
    /// Of the upright picture, in pixels.
    pub height: u32,
    /// A JPEG file, upright and without metadata, at most 256 pixels a side.
    pub jpeg: Vec<u8>,
}

/// Decodes a picture and makes its thumbnail. Every picture that has one can be read by [`load_pixels`](super::load_pixels), but for long
/// and thin ones.
///
/// # Errors
/// [`ImageError`] says what is wrong with the file.
pub fn thumbnail(bytes: &[u8], limits: &ImageLimits) -> Result<Thumbnail, ImageError> {
    // A kernel that shrinks to so small a size is far smaller than the picture.
    let needed = needed_bytes(bytes, limits, None)?;
    let _part = PICTURES.take(needed);
    let picture = decode_in_share(bytes, limits)?;
    let format = format::identify(bytes)?;
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    let shrunk = |side: u32| {
        let side = u64::from(side) * u64::from(SIDE) / u64::from(longest.max(1));
        u32::try_from(side).unwrap_or(SIDE).max(1)
    };
    let small = match longest > SIDE {
        true => resize(picture, shrunk(width), shrunk(height), Resample::Box)?,
        false => picture,
    };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .write_image(
            &small,
            small.width(),
            small.height(),
            ExtendedColorType::Rgb8,
        )
        .map_err(|error| ImageError::ResizeFailed {
            detail: error.to_string(),
        })?;
    Ok(Thumbnail {
        format,
        width,
        height,
        jpeg,
    })
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    #[test]
    fn a_thumbnail_is_a_small_jpeg_of_the_same_shape() {
        let picture = include_bytes!("../../../../assets/examples/mammal/dog.jpg");
        let limits = ImageLimits::default();
        let made = thumbnail(picture, &limits).unwrap();
        let whole = decode(picture, &limits).unwrap();
        assert_eq!((made.width, made.height), whole.dimensions());
        assert_eq!(made.format, ImageFormat::Jpeg);
        let small = decode(&made.jpeg, &limits).unwrap();
        assert_eq!(small.width().max(small.height()), SIDE);
        let shape = |(width, height): (u32, u32)| f64::from(width) / f64::from(height);
        let difference = shape(small.dimensions()) - shape(whole.dimensions());
        assert!(difference.abs() < 0.01, "{difference}");
        assert!(made.jpeg.len() < 30_000, "{}", made.jpeg.len());
    }

    #[test]
    fn small_pictures_keep_their_size_and_thin_ones_keep_a_pixel() {
        for ((width, height), expected) in [((3, 2), (3, 2)), ((4000, 1), (256, 1))] {
            let mut png = std::io::Cursor::new(Vec::new());
            let picture = image::RgbImage::new(width, height);
            picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let limits = ImageLimits::default();
            let made = thumbnail(png.get_ref(), &limits).unwrap();
            assert_eq!((made.width, made.height), (width, height));
            let small = decode(&made.jpeg, &limits).unwrap();
            assert_eq!(small.dimensions(), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_has_no_thumbnail() {
        let error = thumbnail(b"no picture at all", &ImageLimits::default()).unwrap_err();
        assert_eq!(error.code(), "image_unsupported_format");
    }
}
