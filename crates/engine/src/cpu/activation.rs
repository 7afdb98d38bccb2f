//! GELU with the exact normal distribution function, QuickGELU, and their slopes.

use super::buffer::{View, ViewMut};
use super::simd::{LANES, exp, load, map, multiversion, store};

/// Distribution function Φ and density φ of the standard normal distribution.
///
/// Φ(−|x|) = φ(x)·t·R(t) with t = 1/(1 + c·|x|), the scaled complementary error function as a polynomial R that was
/// fitted for equal relative error (2e-8) over |x| ≤ 13, past which `f32` has no more to say.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    // 0.3 / √2
    const SLOPE: f32 = 0.212_132_03;
    const R: [f32; 9] = [
        -0.129_375_53,
        0.484_788_33,
        -0.510_531,
        0.545_517_1,
        -0.092_954_166,
        0.214_110_15,
        0.148_578_1,
        0.170_676_32,
        0.169_190_7,
    ];
    // 1 / √(2π)
    const DENSITY: f32 = 0.398_942_3;
    let size = x.abs().min(13.2);
    let bell = exp(-0.5 * size * size);
    let t = 1.0 / size.mul_add(SLOPE, 1.0);
    let mut r = R[0];
    for coefficient in &R[1..] {
        r = r.mul_add(t, *coefficient);
    }
    let tail = 0.5 * bell * t * r;
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    (below, bell * DENSITY)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    let (below, density) = normal(x);
    x.mul_add(density, below)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

const QUICK: f32 = 1.702;

#[inline(always)]
fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(QUICK * x)
}

#[inline(always)]
fn quick_gelu_slope(x: f32) -> f32 {
    let s = sigmoid(QUICK * x);
    (QUICK * x * s).mul_add(1.0 - s, s)
}

/// `y = f(x + bias)` row by row.
#[inline(always)]
fn forward_rows(x: View<'_>, bias: &[f32], y: &mut ViewMut<'_>, f: impl Fn(f32) -> f32) {
    for row in 0..x.rows {
        let (x, y) = (x.row(row), y.row(row));
        for at in (0..bias.len()).step_by(LANES) {
            let (x, bias) = (load(x, at), load(bias, at));
            let mut sum = [0.0; LANES];
            for lane in 0..LANES {
                sum[lane] = x[lane] + bias[lane];
            }
            store(y, at, map(sum, &f));
        }
    }
}

#[inline(always)]
fn in_place_rows(x: &mut ViewMut<'_>, bias: &[f32], f: impl Fn(f32) -> f32) {
    for row in 0..x.rows {
        let x = x.row(row);
        for at in (0..bias.len()).step_by(LANES) {
            let (value, bias) = (load(x, at), load(bias, at));
            let mut sum = [0.0; LANES];
            for lane in 0..LANES {
                sum[lane] = value[lane] + bias[lane];
            }
            store(x, at, map(sum, &f));
        }
    }
}

#[inline(always)]
fn backward_rows(x: View<'_>, bias: &[f32], dy: &mut ViewMut<'_>, slope: impl Fn(f32) -> f32) {
    for row in 0..x.rows {
        let (x, dy) = (x.row(row), dy.row(row));
        for at in (0..bias.len()).step_by(LANES) {
            let (x, bias, mut d) = (load(x, at), load(bias, at), load(dy, at));
            for lane in 0..LANES {
                d[lane] *= slope(x[lane] + bias[lane]);
            }
            store(dy, at, d);
        }
    }
}

multiversion! {
    pub fn gelu_rows(x: View<'_>, bias: &[f32], y: &mut ViewMut<'_>) {
        forward_rows(x, bias, y, gelu);
    }
}
multiversion! {
    pub fn gelu_in_place(x: &mut ViewMut<'_>, bias: &[f32]) {
        in_place_rows(x, bias, gelu);
    }
}
multiversion! {
    pub fn gelu_backward(x: View<'_>, bias: &[f32], dy: &mut ViewMut<'_>) {
        backward_rows(x, bias, dy, gelu_slope);
    }
}
multiversion! {
    pub fn quick_gelu_rows(x: View<'_>, bias: &[f32], y: &mut ViewMut<'_>) {
        forward_rows(x, bias, y, quick_gelu);
    }
}
multiversion! {
    pub fn quick_gelu_in_place(x: &mut ViewMut<'_>, bias: &[f32]) {
        in_place_rows(x, bias, quick_gelu);
    }
}
multiversion! {
    pub fn quick_gelu_backward(x: View<'_>, bias: &[f32], dy: &mut ViewMut<'_>) {
        backward_rows(x, bias, dy, quick_gelu_slope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twins::exact_distribution;

    #[test]
    fn gelu_and_its_slope_are_good_to_f32() {
        for step in -600..=600 {
            let x = step as f32 * 0.01;
            let wide = f64::from(x);
            let below = exact_distribution(wide);
            let density = (-0.5 * wide * wide).exp() / (2.0 * std::f64::consts::PI).sqrt();
            // A few units of the last place of 1, the size of Φ.
            let error = (f64::from(gelu(x)) - wide * below).abs();
            assert!(error < 3e-7 * wide.abs().max(1.0), "gelu({x}): {error:e}");
            let error = (f64::from(gelu_slope(x)) - (below + wide * density)).abs();
            assert!(error < 4e-7, "slope of gelu at {x}: {error:e}");
        }
    }

    #[test]
    fn gelu_of_large_values_is_the_identity_or_zero() {
        assert_eq!(gelu(50.0), 50.0);
        assert_eq!(gelu_slope(50.0), 1.0);
        assert!(gelu(-50.0).abs() < 1e-30);
        assert!(gelu_slope(-50.0).abs() < 1e-30);
    }
}
