//! Resampling of 8-bit RGB as Pillow does it.

use super::{ImageError, RgbImage};
use crate::backbone::Resample;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

/// Sides in pixels, before and after a resize.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resizing {
    pub from: (u32, u32),
    pub to: (u32, u32),
    pub resample: Resample,
}

impl Resizing {
    /// Bytes of the picture, of what lies between the two passes, of the result and of the kernels.
    pub fn bytes(self) -> u64 {
        let (from, to) = (self.from, self.to);
        let between = match columns_come_first(from, to) {
            true => (from.0, to.1),
            false => (to.0, from.1),
        };
        let rgb = |(width, height): (u32, u32)| 3 * u64::from(width) * u64::from(height);
        let kernels = self.kernel_bytes(from.0, to.0) + self.kernel_bytes(from.1, to.1);
        (rgb(from) + rgb(between)).max(rgb(between) + rgb(to)) + kernels
    }

    /// The resampler keeps, for each pixel of the result, the weights of all pixels that it is made from: as floating point and
    /// once more as integers.
    fn kernel_bytes(self, from: u32, to: u32) -> u64 {
        const BYTES_OF_A_WEIGHT: u64 = 8 + 4;
        let reach = match self.resample {
            // Positions alone.
            Resample::Nearest => return 4 * u64::from(to),
            Resample::Box => 1,
            Resample::Bilinear | Resample::Hamming => 2,
            Resample::Bicubic => 4,
            Resample::Lanczos => 6,
        };
        let shrinking = u64::from(from).div_ceil(u64::from(to.max(1))).max(1);
        u64::from(to) * (reach * shrinking + 2) * BYTES_OF_A_WEIGHT
    }
}

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
    let columns_first = columns_come_first(image.dimensions(), (width, height));
    let (between_width, between_height) = match columns_first {
        true => (image.width(), height),
        false => (width, image.height()),
    };
    convolve(image, between_width, between_height, filter)
        .and_then(|between| convolve(between, width, height, filter))
        .map_err(|detail| ImageError::ResizeFailed { detail })
}

/// Levels are rounded and clipped between the two passes, so their order shows. Pillow scales within rows first, except,
/// since version 13, where the height loses more than twice what the width loses.
fn columns_come_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let lost_height = i64::from(from.1) - i64::from(to.1);
    let lost_width = i64::from(from.0) - i64::from(to.0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_count() {
        let resizing = |from, to| Resizing {
            from,
            to,
            resample: Resample::Bicubic,
        };
        // 50,000,000 weights and more for each axis of a picture of one row.
        let wide = resizing((50_000_000, 1), (224, 224)).bytes();
        assert!(wide > 2 << 30, "{wide}");
        let small = resizing((300, 300), (224, 224)).bytes();
        assert!(small < 1 << 20, "{small}");
    }
}
