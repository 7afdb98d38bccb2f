//! Sizes as kernels take them, and the blocks and threads that go over them.

use super::driver::Geometry;

/// A size as kernels take it.
///
/// # Panics
/// Where it is not one that a pass can have.
pub fn int(size: usize) -> i32 {
    match i32::try_from(size) {
        Ok(size) => size,
        Err(_) => panic!("{size} values are more than a kernel counts"),
    }
}

/// As [`int`], for kernels that treat values as one list.
pub fn count(values: usize) -> i64 {
    i64::try_from(values).unwrap_or(i64::MAX)
}

/// Threads of a block that goes over `columns` values.
pub fn threads(columns: usize) -> u32 {
    (columns.clamp(1, 256).next_multiple_of(32)) as u32
}

/// A block for each of `rows` rows of `columns` values.
pub fn by_row(rows: usize, columns: usize) -> Geometry {
    Geometry {
        grid: [rows, 1, 1],
        threads: threads(columns),
        shared: 0,
    }
}

/// A thread for each of `values` values.
pub fn by_value(values: usize) -> Geometry {
    let threads = threads(values);
    Geometry {
        grid: [values.div_ceil(threads as usize), 1, 1],
        threads,
        shared: 0,
    }
}

/// One block for `values` values.
pub fn one_block(values: usize) -> Geometry {
    Geometry {
        grid: [1; 3],
        threads: threads(values),
        shared: 0,
    }
}

/// A thread for each of `values` values of each of `images` images.
pub fn by_image(values: usize, images: usize) -> Geometry {
    let line = by_value(values);
    Geometry {
        grid: [line.grid[0], images, 1],
        ..line
    }
}
