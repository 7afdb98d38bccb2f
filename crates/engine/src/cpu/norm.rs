//! LayerNorm, alone and behind a residual sum, and its backward.

use super::buffer::{View, ViewMut};
use super::simd::{LANES, Lanes, load, multiversion, store, sum};

/// LayerNorm's parameters as slices.
#[derive(Clone, Copy)]
pub struct NormParameters<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub epsilon: f32,
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let width = x.len();
    let mut total: Lanes = [0.0; LANES];
    for at in (0..width).step_by(LANES) {
        let x = load(x, at);
        for lane in 0..LANES {
            total[lane] += x[lane];
        }
    }
    let mean = sum(total) / width as f32;
    // The second pass finds the row in the cache and avoids the cancellation of E[x²] − E[x]².
    let mut squares: Lanes = [0.0; LANES];
    let full = width - width % LANES;
    for at in (0..full).step_by(LANES) {
        let x = load(x, at);
        for lane in 0..LANES {
            let centred = x[lane] - mean;
            squares[lane] = centred.mul_add(centred, squares[lane]);
        }
    }
    for (lane, value) in x[full..].iter().enumerate() {
        let centred = value - mean;
        squares[lane] = centred.mul_add(centred, squares[lane]);
    }
    let variance = sum(squares) / width as f32;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[inline(always)]
fn normalise(x: &[f32], affine: NormParameters<'_>, y: &mut [f32], statistics: &mut [f32]) {
    let (mean, scale) = moments(x, affine.epsilon);
    statistics[0] = mean;
    statistics[1] = scale;
    for at in (0..x.len()).step_by(LANES) {
        let (x, weight, bias) = (load(x, at), load(affine.weight, at), load(affine.bias, at));
        let mut out = [0.0; LANES];
        for lane in 0..LANES {
            out[lane] = ((x[lane] - mean) * scale).mul_add(weight[lane], bias[lane]);
        }
        store(y, at, out);
    }
}

multiversion! {
    pub fn norm(x: View<'_>, affine: NormParameters<'_>, y: &mut ViewMut<'_>, statistics: &mut ViewMut<'_>) {
        for row in 0..x.rows {
            normalise(x.row(row), affine, y.row(row), statistics.row(row));
        }
    }
}

#[inline(always)]
fn residual(x: &[f32], branch: &[f32], bias: &[f32], scale: Option<&[f32]>, y: &mut [f32]) {
    for at in (0..x.len()).step_by(LANES) {
        let (x, branch, bias) = (load(x, at), load(branch, at), load(bias, at));
        let mut out = [0.0; LANES];
        if let Some(scale) = scale {
            let scale = load(scale, at);
            for lane in 0..LANES {
                out[lane] = (branch[lane] + bias[lane]).mul_add(scale[lane], x[lane]);
            }
        } else {
            for lane in 0..LANES {
                out[lane] = x[lane] + (branch[lane] + bias[lane]);
            }
        }
        store(y, at, out);
    }
}

multiversion! {
    /// `y = x[rows] + scale∘(branch + bias)`
    pub fn residual_rows(x: View<'_>, rows: Option<View<'_>>, branch: View<'_>, bias: &[f32], scale: Option<&[f32]>, y: &mut ViewMut<'_>) {
        for row in 0..y.rows {
            let source = rows.map_or(row, |rows| rows.index(row));
            residual(x.row(source), branch.row(row), bias, scale, y.row(row));
        }
    }
}

/// Where [`residual_norm_rows`] writes.
pub struct NormedOut<'m, 'v> {
    pub sum: &'m mut ViewMut<'v>,
    pub normed: &'m mut ViewMut<'v>,
    pub statistics: &'m mut ViewMut<'v>,
}

multiversion! {
    /// [`residual_rows`], then LayerNorm while the row is in the cache.
    pub fn residual_norm_rows(x: View<'_>, rows: Option<View<'_>>, branch: View<'_>, bias: &[f32], scale: Option<&[f32]>, affine: NormParameters<'_>, out: NormedOut<'_, '_>) {
        for row in 0..out.sum.rows {
            let source = rows.map_or(row, |rows| rows.index(row));
            let y = out.sum.row(row);
            residual(x.row(source), branch.row(row), bias, scale, y);
            normalise(y, affine, out.normed.row(row), out.statistics.row(row));
        }
    }
}

multiversion! {
    /// Adds the gradient at `x` to `dx`: with n the normalised row and g = dy∘weight,
    /// dx = scale·(g − mean(g) − n·mean(g∘n)).
    pub fn norm_backward(dy: View<'_>, x: View<'_>, statistics: View<'_>, weight: &[f32], dx: &mut ViewMut<'_>) {
        let width = weight.len();
        for row in 0..x.rows {
            let (dy, x, dx) = (dy.row(row), x.row(row), dx.row(row));
            let (mean, scale) = (statistics.row(row)[0], statistics.row(row)[1]);
            let mut total: Lanes = [0.0; LANES];
            let mut along: Lanes = [0.0; LANES];
            for at in (0..width).step_by(LANES) {
                let (dy, x, weight) = (load(dy, at), load(x, at), load(weight, at));
                for lane in 0..LANES {
                    let g = dy[lane] * weight[lane];
                    total[lane] += g;
                    // Behind the end of the row g is zero.
                    along[lane] = g.mul_add((x[lane] - mean) * scale, along[lane]);
                }
            }
            let total = sum(total) / width as f32;
            let along = sum(along) / width as f32;
            for at in (0..width).step_by(LANES) {
                let (dy, x, weight, mut d) = (load(dy, at), load(x, at), load(weight, at), load(dx, at));
                for lane in 0..LANES {
                    let n = (x[lane] - mean) * scale;
                    let centred = dy[lane].mul_add(weight[lane], -total);
                    d[lane] = scale.mul_add(n.mul_add(-along, centred), d[lane]);
                }
                store(dx, at, d);
            }
        }
    }
}

multiversion! {
    pub fn scale_columns(x: View<'_>, scale: &[f32], y: &mut ViewMut<'_>) {
        for row in 0..x.rows {
            let (x, y) = (x.row(row), y.row(row));
            for at in (0..scale.len()).step_by(LANES) {
                let (mut value, scale) = (load(x, at), load(scale, at));
                for lane in 0..LANES {
                    value[lane] *= scale[lane];
                }
                store(y, at, value);
            }
        }
    }
}
