//! What goes value by value.

use super::geometry::{by_row, by_value, count, int};
use super::kernels::{AddAffine, AddScaled, FlagNotFinite, Scale, ScaleColumns};
use super::queue::{Queue, Stored};
use crate::backend::{Matrix, VectorPart};

/// As [`crate::backend::Backend::scale_columns`].
pub fn scale_columns(queue: &mut Queue, x: Matrix, scale: &Stored, y: Matrix) {
    let kernel = ScaleColumns {
        x: queue.rows(x),
        scales: queue.vector(scale, x.columns),
        y: queue.rows_mut(y),
        columns: int(x.columns),
    };
    queue.launch(by_row(x.rows, x.columns), &kernel);
}

/// As [`crate::backend::Backend::add_affine`].
pub fn add_affine(
    queue: &mut Queue,
    x: Matrix,
    offset: &VectorPart<'_, Stored>,
    slope: &VectorPart<'_, Stored>,
    dx: Matrix,
) {
    let kernel = AddAffine {
        x: queue.rows(x),
        offset: queue.part(offset, x.columns),
        slope: queue.part(slope, x.columns),
        dx: queue.rows_mut(dx),
        columns: int(x.columns),
    };
    queue.launch(by_row(x.rows, x.columns), &kernel);
}

/// As [`crate::backend::Backend::add`].
pub fn add(queue: &mut Queue, x: Matrix, y: Matrix) {
    let kernel = AddScaled {
        x: queue.rows(x),
        factor: 1.0,
        y: queue.rows_mut(y),
        columns: int(x.columns),
    };
    queue.launch(by_row(x.rows, x.columns), &kernel);
}

/// As [`crate::image_backend::ImageBackend::flag_not_finite`].
pub fn flag_not_finite(queue: &mut Queue, x: Matrix, bit: u32, flags: Matrix) {
    let values = x.rows * x.columns;
    assert_eq!((flags.rows, flags.columns), (1, 1));
    let kernel = FlagNotFinite {
        x: queue.values(x),
        count: count(values),
        bit: bit.cast_signed(),
        flags: queue.ints_mut(flags),
    };
    queue.launch(by_value(values), &kernel);
}

/// Overwrites `y` with `x`.
pub fn copy(queue: &mut Queue, x: Matrix, y: Matrix) {
    let kernel = Scale {
        x: queue.rows(x),
        factor: 1.0,
        y: queue.rows_mut(y),
        columns: int(x.columns),
    };
    queue.launch(by_row(x.rows, x.columns), &kernel);
}
