//! Products with the thin matrices of a LoRA: memory-bound, so each is one pass over the wide operand.

use super::buffer::{View, ViewMut};
use super::simd::{LANES, Lanes, load, multiversion, store, sum};

/// Rows of such a matrix that are worked on together.
const GROUP: usize = 4;

multiversion! {
    /// `u = scale·x·matrixᵀ`
    pub fn down(x: View<'_>, matrix: &[f32], scale: f32, u: &mut ViewMut<'_>) {
        let width = x.columns;
        for row in 0..x.rows {
            let (x, u) = (x.row(row), u.row(row));
            for (u, rows) in u.chunks_mut(GROUP).zip(matrix.chunks(GROUP * width)) {
                let mut sums: [Lanes; GROUP] = [[0.0; LANES]; GROUP];
                let rows = rows_of(rows, width);
                for at in (0..width).step_by(LANES) {
                    let x = load(x, at);
                    for (sum, row) in sums.iter_mut().zip(rows) {
                        let row = load(row, at);
                        for lane in 0..LANES {
                            sum[lane] = x[lane].mul_add(row[lane], sum[lane]);
                        }
                    }
                }
                for (u, sums) in u.iter_mut().zip(sums) {
                    *u = scale * sum(sums);
                }
            }
        }
    }
}

/// The rows of a group; where there are fewer, empty rows, which [`load`] reads as zeros.
#[inline(always)]
fn rows_of(matrix: &[f32], width: usize) -> [&[f32]; GROUP] {
    std::array::from_fn(|row| {
        matrix
            .get(row * width..(row + 1) * width)
            .unwrap_or_default()
    })
}

multiversion! {
    /// Adds `u·matrix` to `y`.
    pub fn up(u: View<'_>, matrix: &[f32], y: &mut ViewMut<'_>) {
        let width = y.columns;
        for row in 0..y.rows {
            let (u, y) = (u.row(row), y.row(row));
            for (u, rows) in u.chunks(GROUP).zip(matrix.chunks(GROUP * width)) {
                let rows = rows_of(rows, width);
                let mut weights = [0.0; GROUP];
                weights[..u.len()].copy_from_slice(u);
                for at in (0..width).step_by(LANES) {
                    let mut out = load(y, at);
                    for (weight, row) in weights.iter().zip(rows) {
                        let row = load(row, at);
                        for lane in 0..LANES {
                            out[lane] = weight.mul_add(row[lane], out[lane]);
                        }
                    }
                    store(y, at, out);
                }
            }
        }
    }
}

multiversion! {
    /// Adds `uᵀ·x` to `dmatrix`.
    pub fn gradient(u: View<'_>, x: View<'_>, dmatrix: &mut ViewMut<'_>) {
        let width = x.columns;
        let rank = u.columns;
        for first in (0..rank).step_by(GROUP) {
            let group = GROUP.min(rank - first);
            // Columns in the outer loop: the sums of a group stay in registers over all rows.
            for at in (0..width).step_by(LANES) {
                let mut sums: [Lanes; GROUP] = [[0.0; LANES]; GROUP];
                for row in 0..x.rows {
                    let (x, u) = (load(x.row(row), at), &u.row(row)[first..first + group]);
                    for (sum, u) in sums.iter_mut().zip(u) {
                        for lane in 0..LANES {
                            sum[lane] = u.mul_add(x[lane], sum[lane]);
                        }
                    }
                }
                for (offset, sum) in sums.iter().enumerate().take(group) {
                    let d = dmatrix.row(first + offset);
                    let mut total = load(d, at);
                    for lane in 0..LANES {
                        total[lane] += sum[lane];
                    }
                    store(d, at, total);
                }
            }
        }
    }
}
