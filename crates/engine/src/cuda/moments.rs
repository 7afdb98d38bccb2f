//! Sums over the rows of a matrix, in `f64`.

use super::driver::Geometry;
use super::geometry::{int, threads};
use super::kernels::{AddColumnSums, ColumnSums, Doubles, DoublesMut};
use super::queue::Queue;
use crate::backend::Matrix;

/// Columns that a block sums: `SUM_COLUMNS` of the kernels.
const BLOCK_COLUMNS: usize = 32;

/// Rows that a block sums one after another: few enough that many blocks share a micro-batch, many enough that the second kernel has
/// little to do.
const PART_ROWS: usize = 256;

/// As [`crate::backend::Backend::column_sums`].
pub fn column_sums(queue: &mut Queue, x: Matrix, sums: Matrix) {
    let target = queue.doubles_mut(sums, 2 * x.columns);
    let parts = x.rows.div_ceil(PART_ROWS);
    if parts != 1 {
        queue.fill_zero(sums);
    }
    let partial = match parts {
        0 => return,
        1 => target,
        _ => match queue.sums(parts * 2 * x.columns) {
            Some(address) => DoublesMut(address),
            None => return,
        },
    };
    let kernel = ColumnSums {
        x: queue.rows(x),
        rows: int(x.rows),
        columns: int(x.columns),
        rows_per_part: int(PART_ROWS),
        partial,
    };
    let geometry = Geometry {
        grid: [x.columns.div_ceil(BLOCK_COLUMNS), parts, 1],
        threads: 256,
        shared: 0,
    };
    queue.launch(geometry, &kernel);
    if parts == 1 {
        return;
    }
    let kernel = AddColumnSums {
        partial: Doubles(partial.0),
        parts: int(parts),
        columns: int(x.columns),
        sums: target,
    };
    let own = threads(2 * x.columns);
    let geometry = Geometry {
        grid: [(2 * x.columns).div_ceil(own as usize), 1, 1],
        threads: own,
        shared: 0,
    };
    queue.launch(geometry, &kernel);
}
