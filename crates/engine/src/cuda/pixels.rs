//! Images from stored levels, and the priors on pixels alone.

use super::driver::{Geometry, Memory};
use super::geometry::{by_image, by_value, int, one_block, threads};
use super::kernels::{
    AddImagesScaled, Bytes, Doubles, DoublesMut, ImageSquares, Ints, NormSlopes, NormaliseLevels,
    SumParts, TotalVariation, Values, ValuesMut,
};
use super::queue::{Queue, Stored};
use crate::backend::{Matrix, VectorPart, halves};
use crate::loss::pairs;

/// Values that a block squares and sums: as many blocks as fill a device with a few images.
const SQUARES_PER_BLOCK: usize = 4096;

/// Values of the shares in [`total_variation_weights`].
const SHARES: usize = 8;

/// As [`crate::image_backend::ImageBackend::normalise_levels`].
pub fn normalise_levels(
    queue: &mut Queue,
    levels: &Memory,
    indices: Matrix,
    flips: Option<Matrix>,
    table: &Stored,
    side: usize,
    pixels: Matrix,
) {
    let image = 3 * side * side;
    assert_eq!(pixels.columns, image);
    for own in flips.iter().chain([&indices]) {
        assert_eq!((own.rows, own.columns), (pixels.rows, 1));
    }
    let kernel = NormaliseLevels {
        levels: Bytes(levels.address(0, 0)),
        indices: queue.indices(Some(indices)),
        flips: flips.map_or(Ints(0), |flips| queue.ints(flips)),
        table: queue.vector(table, 3 * 256),
        pixels: queue.values_mut(pixels),
        side: int(side),
    };
    queue.launch(by_image(image, pixels.rows), &kernel);
}

/// Shares of the pairs of each direction as four `f64`, then what each pair adds to the gradient.
pub fn total_variation_weights(images: usize, size: [usize; 2], weight: f32) -> Vec<f32> {
    let pairs = pairs(3 * images, size);
    let share = |of: f64| pairs.map(|pairs| if pairs > 0.0 { of / pairs } else { 0.0 });
    let steps = share(f64::from(weight)).map(|step| step as f32);
    share(1.0)
        .into_iter()
        .flat_map(halves)
        .chain(steps)
        .collect()
}

/// As [`crate::image_backend::ImageBackend::total_variation`].
pub fn total_variation(
    queue: &mut Queue,
    pixels: Matrix,
    [height, width]: [usize; 2],
    weights: &Stored,
    dpixels: Option<Matrix>,
    loss: Matrix,
) {
    let count = pixels.rows * pixels.columns;
    assert_eq!(pixels.columns, 3 * height * width);
    let geometry = by_value(count);
    let parts = geometry.grid[0];
    let Some(partial) = queue.sums(parts) else {
        return;
    };
    let part = |start| VectorPart {
        vector: weights,
        start,
    };
    let kernel = TotalVariation {
        pixels: queue.values(pixels),
        planes: int(3 * pixels.rows),
        height: int(height),
        width: int(width),
        shares: Doubles(queue.part(&part(0), SHARES).0),
        steps: queue.part(&part(SHARES), 4),
        dpixels: queue.optional_values_mut(dpixels, count),
        partial: DoublesMut(partial),
    };
    queue.launch(geometry, &kernel);
    sum_parts(queue, Doubles(partial), parts, loss);
}

/// Overwrites `loss` with the sum of `parts` values.
pub fn sum_parts(queue: &mut Queue, partial: Doubles, parts: usize, loss: Matrix) {
    let kernel = SumParts {
        partial,
        count: int(parts),
        out: queue.doubles_mut(loss, 1),
    };
    queue.launch(one_block(parts), &kernel);
}

/// As [`crate::image_backend::ImageBackend::mean_norm`].
pub fn mean_norm(
    queue: &mut Queue,
    pixels: Matrix,
    weight: f32,
    dpixels: Option<Matrix>,
    loss: Matrix,
) {
    let (images, length) = (pixels.rows, pixels.columns);
    let parts = length.div_ceil(SQUARES_PER_BLOCK);
    // The slopes of the images lie after the parts of their sums.
    let Some(partial) = queue.sums(images * parts + images.div_ceil(2)) else {
        return;
    };
    let slopes = partial + (images * parts * size_of::<f64>()) as u64;
    let kernel = ImageSquares {
        pixels: queue.values(pixels),
        length: int(length),
        per_part: int(SQUARES_PER_BLOCK),
        partial: DoublesMut(partial),
    };
    let geometry = Geometry {
        grid: [parts, images, 1],
        threads: threads(length),
        shared: 0,
    };
    queue.launch(geometry, &kernel);
    let kernel = NormSlopes {
        partial: Doubles(partial),
        images: int(images),
        parts: int(parts),
        weight,
        loss: queue.doubles_mut(loss, 1),
        slopes: ValuesMut(slopes),
    };
    queue.launch(one_block(images), &kernel);
    let Some(dpixels) = dpixels else {
        return;
    };
    let kernel = AddImagesScaled {
        pixels: queue.values(pixels),
        slopes: Values(slopes),
        dpixels: queue.optional_values_mut(Some(dpixels), images * length),
        length: int(length),
    };
    queue.launch(by_image(length, images), &kernel);
}
