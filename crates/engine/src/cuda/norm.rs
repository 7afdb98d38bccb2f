//! LayerNorm, alone and after a residual sum.

use super::geometry::{by_row, int};
use super::kernels::{NormBackward, NormForward, Residual, ResidualNorm};
use super::queue::{Queue, Stored};
use crate::backend::{Matrix, Norm, NormOutput};

/// As [`crate::backend::Backend::norm`].
pub fn norm(queue: &mut Queue, x: Matrix, norm: &Norm<'_, Stored>, out: NormOutput) {
    let kernel = NormForward {
        x: queue.rows(x),
        weight: queue.vector(norm.weight, x.columns),
        bias: queue.vector(norm.bias, x.columns),
        epsilon: norm.epsilon,
        y: queue.rows_mut(out.normed),
        statistics: queue.values_mut(out.statistics),
        width: int(x.columns),
    };
    queue.launch(by_row(x.rows, x.columns), &kernel);
}

/// As [`crate::backend::Backend::norm_backward`].
pub fn norm_backward(
    queue: &mut Queue,
    dnormed: Matrix,
    x: Matrix,
    statistics: Matrix,
    norm: &Norm<'_, Stored>,
    dx: Matrix,
) {
    let kernel = NormBackward {
        dy: queue.rows(dnormed),
        x: queue.rows(x),
        statistics: queue.values(statistics),
        weight: queue.vector(norm.weight, x.columns),
        dx: queue.rows_mut(dx),
        width: int(x.columns),
    };
    queue.launch(by_row(x.rows, x.columns), &kernel);
}

/// What is summed: `x[rows] + scale∘(branch + bias)`.
pub struct Summands<'w> {
    pub x: Matrix,
    pub rows: Option<Matrix>,
    pub branch: Matrix,
    pub bias: &'w Stored,
    pub scale: Option<&'w Stored>,
}

/// As [`crate::backend::Backend::residual_norm`].
pub fn residual_norm(
    queue: &mut Queue,
    summands: &Summands<'_>,
    sum: Matrix,
    norm: Option<(Norm<'_, Stored>, NormOutput)>,
) {
    let width = sum.columns;
    let geometry = by_row(sum.rows, width);
    let x = queue.rows(summands.x);
    let rows = queue.indices(summands.rows);
    let branch = queue.rows(summands.branch);
    let bias = queue.vector(summands.bias, width);
    let scale = queue.optional(summands.scale, width);
    let sum = queue.rows_mut(sum);
    match norm {
        None => {
            let width = int(width);
            let kernel = Residual {
                x,
                rows,
                branch,
                bias,
                scale,
                sum,
                width,
            };
            queue.launch(geometry, &kernel);
        }
        Some((norm, out)) => {
            let kernel = ResidualNorm {
                x,
                rows,
                branch,
                bias,
                scale,
                sum,
                weight: queue.vector(norm.weight, width),
                norm_bias: queue.vector(norm.bias, width),
                epsilon: norm.epsilon,
                y: queue.rows_mut(out.normed),
                statistics: queue.values_mut(out.statistics),
                width: int(width),
            };
            queue.launch(geometry, &kernel);
        }
    }
}
