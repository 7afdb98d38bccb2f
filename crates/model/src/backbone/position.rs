//! Position embeddings at another grid than the stored one.

use crate::tensor::Tensor;

/// Resamples a position embedding `[1 + native_grid², width]` to `[1 + grid², width]`: row 0 (the class token) stays, the
/// rest is interpolated as PyTorch's `interpolate(mode="bicubic", align_corners=False)` does (no antialiasing).
pub fn interpolate_position_embedding(
    position: &Tensor,
    native_grid: usize,
    grid: usize,
) -> Tensor {
    if native_grid == grid {
        return position.clone();
    }
    let width = position.shape()[1];
    let source = position.data();
    let taps = cubic_taps(native_grid, grid);
    let mut result = vec![0.0f32; (1 + grid * grid) * width];
    result[..width].copy_from_slice(&source[..width]);
    for (row, row_taps) in taps.iter().enumerate() {
        for (column, column_taps) in taps.iter().enumerate() {
            let start = (1 + row * grid + column) * width;
            let target = &mut result[start..start + width];
            for &(y, row_weight) in row_taps {
                for &(x, column_weight) in column_taps {
                    let start = (1 + y * native_grid + x) * width;
                    let weight = row_weight * column_weight;
                    for (value, &from) in target.iter_mut().zip(&source[start..start + width]) {
                        *value += weight * from;
                    }
                }
            }
        }
    }
    Tensor::new([1 + grid * grid, width], result).unwrap_or_default()
}

/// Keys' cubic convolution with PyTorch's coefficient.
const CUBIC_A: f64 = -0.75;

/// For each of `target` places its four source indices (clamped at the border) and weights.
fn cubic_taps(source: usize, target: usize) -> Vec<[(usize, f32); 4]> {
    let scale = source as f64 / target as f64;
    (0..target)
        .map(|place| {
            let centre = scale * (place as f64 + 0.5) - 0.5;
            let floor = centre.floor();
            let t = centre - floor;
            let weights = [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)];
            std::array::from_fn(|tap| {
                let index = floor as i64 - 1 + tap as i64;
                (
                    index.clamp(0, source as i64 - 1) as usize,
                    weights[tap] as f32,
                )
            })
        })
        .collect()
}

/// Weight at distance `x` in 0..=1.
fn inner(x: f64) -> f64 {
    ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1.0
}

/// Weight at distance `x` in 1..=2.
fn outer(x: f64) -> f64 {
    ((CUBIC_A * x - 5.0 * CUBIC_A) * x + 8.0 * CUBIC_A) * x - 4.0 * CUBIC_A
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_embedding_stays_constant_at_any_grid() {
        let position = Tensor::new([1 + 25, 3], vec![0.5; 26 * 3]).unwrap();
        for grid in [1, 2, 5, 7, 16] {
            let result = interpolate_position_embedding(&position, 5, grid);
            assert_eq!(result.shape(), [1 + grid * grid, 3]);
            assert!(result.data().iter().all(|value| (value - 0.5).abs() < 1e-6));
        }
    }
}
