//! Resampling of 8-bit RGB as Pillow does it.

use super::{ImageError, RgbImage};
use crate::backbone::Resample;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

/// `image` at `width` × `height`. Kernels widen when scaling down (antialiasing).
///
/// # Errors
/// Where the resampler refuses the image.
pub(super) fn resize(
    image: RgbImage,
    width: u32,
    height: u32,
    resample: Resample,
) -> Result<RgbImage, ImageError> {
    let filter = match resample {
        Resample::Nearest => return Ok(nearest(&image, width, height)),
        Resample::Box => FilterType::Box,
        Resample::Bilinear => FilterType::Bilinear,
        Resample::Hamming => FilterType::Hamming,
        Resample::Bicubic => FilterType::CatmullRom,
        Resample::Lanczos => FilterType::Lanczos3,
    };
    let (between_width, between_height) = match columns_come_first(&image, width, height) {
        true => (image.width(), height),
        false => (width, image.height()),
    };
    convolve(image, between_width, between_height, filter)
        .and_then(|between| convolve(between, width, height, filter))
        .map_err(|detail| ImageError::ResizeFailed { detail })
}

/// Levels are rounded and clipped between the two passes, so their order shows. Pillow scales within rows first, except,
/// since version 13, where the height loses more than twice what the width loses.
fn columns_come_first(image: &RgbImage, width: u32, height: u32) -> bool {
    let lost_height = i64::from(image.height()) - i64::from(height);
    let lost_width = i64::from(image.width()) - i64::from(width);
    lost_height > 0 && lost_height > 2 * lost_width
}

fn convolve(
    image: RgbImage,
    width: u32,
    height: u32,
    filter: FilterType,
) -> Result<RgbImage, String> {
    if image.dimensions() == (width, height) {
        return Ok(image);
    }
    let (source_width, source_height) = image.dimensions();
    let source = TypedImageRef::<U8x3>::from_buffer(source_width, source_height, &image)
        .map_err(|error| error.to_string())?;
    let mut resized = vec![0; width as usize * height as usize * 3];
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut resized)
        .map_err(|error| error.to_string())?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    // The function for a type known at run time is compiled for all of them.
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .map_err(|error| error.to_string())?;
    drop(target);
    RgbImage::from_raw(width, height, resized)
        .ok_or_else(|| "the resampler returned too few pixels".into())
}

/// Pillow adds the step up in floating point, which decides where a position falls between two pixels.
fn nearest(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let positions = |source: u32, target: u32| -> Vec<u32> {
        let step = f64::from(source) / f64::from(target);
        let mut position = step * 0.5;
        (0..target)
            .map(|_| {
                let index = (position as u32).min(source.saturating_sub(1));
                position += step;
                index
            })
            .collect()
    };
    let columns = positions(image.width(), width);
    let rows = positions(image.height(), height);
    RgbImage::from_fn(width, height, |x, y| {
        *image.get_pixel(columns[x as usize], rows[y as usize])
    })
}
