//! Random changes of images and their adjoints.

use super::geometry::{by_image, by_value, count, int};
use super::kernels::{Recolour, RollFlip, RollFlipAdjoint, Warp, WarpAdjoint};
use super::queue::Queue;
use crate::augment::Affine;
use crate::backend::{Matrix, halves};
use crate::image_backend::WARP_VALUES;

/// Values of a matrix of images without gaps.
///
/// # Panics
/// Where the two matrices are not of such images.
fn values(images: Matrix, others: Matrix, [height, width]: [usize; 2]) -> usize {
    assert_eq!(images.columns, 3 * height * width, "{images:?}");
    assert_eq!((images.rows, images.columns), (others.rows, others.columns));
    images.rows * images.columns
}

/// As [`crate::image_backend::ImageBackend::roll_flip`].
pub fn roll_flip(
    queue: &mut Queue,
    source: Matrix,
    size: [usize; 2],
    draw: Matrix,
    target: Matrix,
) {
    let values = values(source, target, size);
    let kernel = RollFlip {
        source: queue.values(source),
        draw: queue.ints(draw),
        target: queue.values_mut(target),
        count: count(values),
        height: int(size[0]),
        width: int(size[1]),
    };
    queue.launch(by_value(values), &kernel);
}

/// As [`crate::image_backend::ImageBackend::roll_flip_adjoint`].
pub fn roll_flip_adjoint(
    queue: &mut Queue,
    dtarget: Matrix,
    size: [usize; 2],
    draw: Matrix,
    dsource: Matrix,
) {
    let values = values(dtarget, dsource, size);
    let kernel = RollFlipAdjoint {
        dtarget: queue.values(dtarget),
        draw: queue.ints(draw),
        dsource: queue.values_mut(dsource),
        count: count(values),
        height: int(size[0]),
        width: int(size[1]),
    };
    queue.launch(by_value(values), &kernel);
}

/// As [`crate::image_backend::ImageBackend::upload_warps`]: four `f64` an image.
pub fn upload_warps(queue: &mut Queue, changes: &[Affine], size: [usize; 2], maps: Matrix) {
    assert_eq!((maps.rows, maps.columns), (changes.len(), WARP_VALUES));
    let numbers = changes.iter().flat_map(|change| change.map(size));
    let values: Vec<f32> = numbers.flat_map(halves).collect();
    queue.upload(&values, maps);
}

/// As [`crate::image_backend::ImageBackend::warp`].
pub fn warp(queue: &mut Queue, source: Matrix, size: [usize; 2], maps: Matrix, target: Matrix) {
    values(source, target, size);
    assert_eq!((maps.rows, maps.columns), (source.rows, WARP_VALUES));
    let [height, width] = size;
    let kernel = Warp {
        source: queue.values(source),
        maps: queue.doubles(maps),
        target: queue.values_mut(target),
        channels: 3,
        height: int(height),
        width: int(width),
    };
    queue.launch(by_image(height * width, source.rows), &kernel);
}

/// As [`crate::image_backend::ImageBackend::warp_adjoint`].
pub fn warp_adjoint(
    queue: &mut Queue,
    dtarget: Matrix,
    size: [usize; 2],
    maps: Matrix,
    dsource: Matrix,
) {
    values(dtarget, dsource, size);
    assert_eq!((maps.rows, maps.columns), (dtarget.rows, WARP_VALUES));
    let [height, width] = size;
    let kernel = WarpAdjoint {
        dtarget: queue.values(dtarget),
        maps: queue.doubles(maps),
        dsource: queue.values_mut(dsource),
        channels: 3,
        height: int(height),
        width: int(width),
    };
    queue.launch(by_image(height * width, dtarget.rows), &kernel);
}

/// As [`crate::image_backend::ImageBackend::recolour`] or its adjoint.
pub fn recolour(queue: &mut Queue, source: Matrix, lines: Matrix, adjoint: bool, target: Matrix) {
    let area = source.columns / 3;
    values(source, target, [area, 1]);
    assert_eq!((lines.rows, lines.columns), (source.rows, 6));
    let kernel = Recolour {
        source: queue.values(source),
        lines: queue.values(lines),
        adjoint: i32::from(adjoint),
        target: queue.values_mut(target),
        area: int(area),
    };
    queue.launch(by_image(area, 3 * source.rows), &kernel);
}
