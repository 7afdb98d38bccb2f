//! The steps of Hugging Face's image processors: resize, centre crop, rescale, normalise.

use super::resize::{Resizing, resize};
use super::{ImageError, Levels, RgbImage};
use crate::backbone::{Preprocess, ResizeTarget};
use crate::tensor::Tensor;

/// Most pixels of a resized picture: a long and thin one, scaled by its short side, would otherwise grow without bound.
const MOST_RESIZED_PIXELS: u64 = 50_000_000;

/// An upright RGB image to normalised pixels `[3, H, W]`.
///
/// # Errors
/// [`ImageError::TooElongated`] where resizing would take too much memory.
pub(super) fn apply(image: RgbImage, preprocess: &Preprocess) -> Result<Tensor, ImageError> {
    let levels = levels(image, preprocess)?;
    let mut tensor = Tensor::zeros([3, levels.height, levels.width]);
    let plane = levels.height * levels.width;
    for (channel, table) in preprocess.normalised_levels().iter().enumerate() {
        let range = channel * plane..(channel + 1) * plane;
        let target = &mut tensor.data_mut()[range.clone()];
        for (value, &level) in target.iter_mut().zip(&levels.planes[range]) {
            *value = table[usize::from(level)];
        }
    }
    Ok(tensor)
}

/// An upright RGB image resized and cropped.
///
/// # Errors
/// As [`apply`].
pub(super) fn levels(image: RgbImage, preprocess: &Preprocess) -> Result<Levels, ImageError> {
    let resized = match preprocess.resize {
        None => image,
        Some(target) => {
            let (width, height) = target_size(image.dimensions(), target)?;
            resize(image, width, height, preprocess.resample)?
        }
    };
    let (height, width) = preprocess
        .centre_crop
        .unwrap_or((resized.height() as usize, resized.width() as usize));
    Ok(crop(&resized, height, width))
}

/// The resize step for a picture of these sides, if there is one.
///
/// # Errors
/// As [`apply`].
pub(super) fn resizing(
    sides: (u32, u32),
    preprocess: &Preprocess,
) -> Result<Option<Resizing>, ImageError> {
    let resizing = |target| {
        Ok(Resizing {
            from: sides,
            to: target_size(sides, target)?,
            resample: preprocess.resample,
        })
    };
    preprocess.resize.map(resizing).transpose()
}

/// `(width, height)` after the resize step.
fn target_size(sides: (u32, u32), target: ResizeTarget) -> Result<(u32, u32), ImageError> {
    let (width, height) = (u64::from(sides.0), u64::from(sides.1));
    let (target_width, target_height) = match target {
        ResizeTarget::Exact { height, width } => (width as u64, height as u64),
        ResizeTarget::ShortestEdge(edge) => {
            let edge = edge as u64;
            // The longer side is cut to a whole number, not rounded.
            if width <= height {
                (edge, edge.saturating_mul(height) / width.max(1))
            } else {
                (edge.saturating_mul(width) / height.max(1), edge)
            }
        }
    };
    let fits = target_width.saturating_mul(target_height) <= MOST_RESIZED_PIXELS;
    match (u32::try_from(target_width), u32::try_from(target_height)) {
        (Ok(target_width), Ok(target_height)) if fits => Ok((target_width, target_height)),
        _ => Err(ImageError::TooElongated {
            width: sides.0,
            height: sides.1,
        }),
    }
}

/// The middle `height` × `width` of `image`; black where the image is smaller.
fn crop(image: &RgbImage, height: usize, width: usize) -> Levels {
    // Rounded towards minus infinity, as Python's `//` does: an odd lack puts the larger part before the image.
    let offset = |side: u32, crop: usize| (i64::from(side) - crop as i64).div_euclid(2);
    let top = offset(image.height(), height);
    let left = offset(image.width(), width);
    let first_column = usize::try_from(-left).unwrap_or(0);
    let first_source_column = usize::try_from(left).unwrap_or(0);
    let columns = width.min(image.width() as usize);

    let mut planes = vec![0; 3 * height * width];
    for channel in 0..3 {
        let plane = &mut planes[channel * height * width..(channel + 1) * height * width];
        for (row, target) in plane.chunks_exact_mut(width.max(1)).enumerate() {
            let Some(source_row) = usize::try_from(row as i64 + top)
                .ok()
                .filter(|&source_row| source_row < image.height() as usize)
            else {
                continue;
            };
            let start = 3 * (source_row * image.width() as usize + first_source_column);
            let source = &image.as_raw()[start..start + 3 * columns];
            for (level, pixel) in target[first_column..]
                .iter_mut()
                .zip(source.chunks_exact(3))
            {
                *level = pixel[channel];
            }
        }
    }
    Levels {
        height,
        width,
        planes,
    }
}
