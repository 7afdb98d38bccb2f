//! Random changes of images and their adjoints.

use super::kernels::{RollFlip, RollFlipAdjoint};
use super::queue::{Queue, by_value, count, int};
use crate::backend::Matrix;

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
