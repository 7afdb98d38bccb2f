//! Finite differences for tests: each backward against the slope of a plain forward written in `f64`.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `count` values between −1 and 1.
pub fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| generator.random_range(-1.0f32..1.0))
        .collect()
}

/// The same values in `f64`.
pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// `gradient` is the slope of `forward` at `at`, by central differences.
///
/// The allowance is 1e-4 of the largest slope: `f32` gradients are good to about 1e-6, differences in `f64` with this step
/// to about 1e-9, the rest is room for cancellation in longer chains. A wrong factor or sign is off by far more.
pub fn assert_gradient(name: &str, at: &[f32], gradient: &[f32], forward: impl Fn(&[f64]) -> f64) {
    const STEP: f64 = 1e-5;
    assert_eq!(at.len(), gradient.len(), "{name}");
    let mut point = widen(at);
    let slopes: Vec<f64> = (0..point.len())
        .map(|i| {
            let value = point[i];
            point[i] = value + STEP;
            let above = forward(&point);
            point[i] = value - STEP;
            let below = forward(&point);
            point[i] = value;
            (above - below) / (2.0 * STEP)
        })
        .collect();
    let largest = slopes.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let allowed = 1e-4 * largest + 1e-8;
    for (i, (&found, expected)) in gradient.iter().zip(&slopes).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() <= allowed,
            "{name}[{i}]: {found}, by differences {expected}, allowed {allowed:e}"
        );
    }
}

/// `found` is `expected` within `tolerance`, absolute and relative.
pub fn assert_near(name: &str, found: f32, expected: f64, tolerance: f64) {
    assert!(
        (f64::from(found) - expected).abs() <= tolerance * (1.0 + expected.abs()),
        "{name}: {found}, expected {expected}"
    );
}
