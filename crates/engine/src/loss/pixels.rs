//! Priors on pixels alone: total variation and the L2 norm.

use crate::operation::{Checks, OperationError};

/// Neighbours of a pixel as `(rows down, columns right)`; one of each pair of opposite directions.
const NEIGHBOURS: [(usize, isize); 4] = [(0, 1), (1, 0), (1, 1), (1, -1)];

/// Total variation of `pixels` `[batch, channels, height, width]`: the sum over the four directions (right, down and both
/// diagonals) of the mean absolute difference of neighbours. A direction without neighbours (an image one pixel wide)
/// counts as zero. Adds `weight` × gradient to `dpixels`; the result is not weighted.
///
/// # Errors
/// An axis of length zero, lengths that do not fit, values or a weight that are not finite.
pub fn total_variation(
    pixels: &[f32],
    shape: [usize; 4],
    weight: f32,
    dpixels: Option<&mut [f32]>,
) -> Result<f32, OperationError> {
    check("total variation", pixels, shape, weight, dpixels.as_deref())?;
    Ok(add_total_variation(pixels, shape, weight, dpixels) as f32)
}

/// [`total_variation`] of what is known to fit.
pub(crate) fn add_total_variation(
    pixels: &[f32],
    shape: [usize; 4],
    weight: f32,
    mut dpixels: Option<&mut [f32]>,
) -> f64 {
    let [batch, channels, height, width] = shape;
    let planes = batch * channels;
    let mut loss = 0.0;
    for (down, right) in NEIGHBOURS {
        let side = right.unsigned_abs();
        if down >= height || side >= width {
            continue;
        }
        let (first, second) = if right < 0 { (side, 0) } else { (0, side) };
        let count = width - side;
        let pairs = (planes * (height - down) * count) as f64;
        let step = (f64::from(weight) / pairs) as f32;
        let mut sum = 0.0;
        for plane in 0..planes {
            for row in 0..height - down {
                let here = (plane * height + row) * width + first;
                let there = (plane * height + row + down) * width + second;
                let pair = pixels[here..here + count]
                    .iter()
                    .zip(&pixels[there..there + count]);
                sum += pair.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
                if let Some(dpixels) = dpixels.as_deref_mut() {
                    for i in 0..count {
                        let slope = sign(pixels[here + i] - pixels[there + i]) * step;
                        dpixels[here + i] += slope;
                        dpixels[there + i] -= slope;
                    }
                }
            }
        }
        loss += sum / pairs;
    }
    loss
}

/// Pairs of neighbours in each direction, over `planes` planes.
pub(crate) fn pairs(planes: usize, [height, width]: [usize; 2]) -> [f64; 4] {
    NEIGHBOURS.map(|(down, right)| {
        let rows = height.saturating_sub(down);
        (planes * rows * width.saturating_sub(right.unsigned_abs())) as f64
    })
}

/// Mean over the images of `pixels` `[batch, channels, height, width]` of their L2 norm.
/// Adds `weight` × gradient to `dpixels` (zero for an image of zeros); the result is not weighted.
///
/// # Errors
/// As [`total_variation`].
pub fn mean_norm(
    pixels: &[f32],
    shape: [usize; 4],
    weight: f32,
    dpixels: Option<&mut [f32]>,
) -> Result<f32, OperationError> {
    check("L2 prior", pixels, shape, weight, dpixels.as_deref())?;
    let [batch, channels, height, width] = shape;
    let image = channels * height * width;
    Ok(add_mean_norm(pixels, [batch, image], weight, dpixels) as f32)
}

/// [`mean_norm`] of what is known to fit.
pub(crate) fn add_mean_norm(
    pixels: &[f32],
    [batch, image_length]: [usize; 2],
    weight: f32,
    mut dpixels: Option<&mut [f32]>,
) -> f64 {
    let mut loss = 0.0;
    for (index, image) in pixels.chunks_exact(image_length).enumerate() {
        let norm = image
            .iter()
            .map(|&value| f64::from(value) * f64::from(value))
            .sum::<f64>()
            .sqrt();
        loss += norm;
        if let Some(dpixels) = dpixels.as_deref_mut().filter(|_| norm > 0.0) {
            let factor = (f64::from(weight) / (batch as f64 * norm)) as f32;
            let dimage = &mut dpixels[index * image_length..(index + 1) * image_length];
            for (dvalue, value) in dimage.iter_mut().zip(image) {
                *dvalue += factor * value;
            }
        }
    }
    loss / batch as f64
}

fn check(
    operation: &'static str,
    pixels: &[f32],
    shape: [usize; 4],
    weight: f32,
    dpixels: Option<&[f32]>,
) -> Result<(), OperationError> {
    let checks = Checks(operation);
    checks.setting(
        "the weight",
        weight,
        weight.is_finite(),
        "it must be a finite number",
    )?;
    checks.finite("pixels", pixels, &shape)?;
    match dpixels {
        Some(dpixels) => checks.length("dpixels", dpixels, &shape),
        None => Ok(()),
    }
}

/// −1, 0 or 1; unlike `signum` zero for zero.
fn sign(value: f32) -> f32 {
    f32::from(value > 0.0) - f32::from(value < 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    fn plain_total_variation(pixels: &[f64], [b, c, h, w]: [usize; 4]) -> f64 {
        let at = |plane: usize, y: isize, x: isize| -> Option<f64> {
            let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
            inside.then(|| pixels[(plane * h + y as usize) * w + x as usize])
        };
        let directions = [(0, 1), (1, 0), (1, 1), (1, -1)];
        let means = directions.map(|(down, right)| {
            let mut differences = Vec::new();
            for plane in 0..b * c {
                for y in 0..h as isize {
                    for x in 0..w as isize {
                        if let (Some(p), Some(q)) =
                            (at(plane, y, x), at(plane, y + down, x + right))
                        {
                            differences.push((p - q).abs());
                        }
                    }
                }
            }
            differences.iter().sum::<f64>() / differences.len().max(1) as f64
        });
        means.iter().sum()
    }

    proptest! {
        #[test]
        fn pixel_priors_and_their_gradients_equal_the_plain_formulas(
            b in 1usize..3, c in 1usize..4, h in 1usize..6, w in 1usize..6, seed in 0u64..1000,
        ) {
            let shape = [b, c, h, w];
            // Steps of 1/64: neighbours are equal, where both slopes are zero, or far apart against the difference step.
            let pixels: Vec<f32> = noise(seed, b * c * h * w)
                .iter()
                .map(|value| (value * 64.0).round() / 64.0)
                .collect();
            let start = noise(seed + 1, pixels.len());
            let gained = |added: &[f32]| -> Vec<f32> {
                added.iter().zip(&start).map(|(a, s)| (a - s) / 0.5).collect()
            };

            let mut dpixels = start.clone();
            let loss = total_variation(&pixels, shape, 0.5, Some(&mut dpixels)).unwrap();
            assert_near("tv", loss, plain_total_variation(&widen(&pixels), shape), 1e-6);
            let slope = |at: &[f64]| plain_total_variation(at, shape);
            if loss > 0.0 {
                assert_gradient("tv", &pixels, &gained(&dpixels), slope);
            }

            let norm = |at: &[f64]| -> f64 {
                at.chunks(c * h * w).map(|i| i.iter().map(|v| v * v).sum::<f64>().sqrt()).sum::<f64>() / b as f64
            };
            let mut dpixels = start.clone();
            let loss = mean_norm(&pixels, shape, 0.5, Some(&mut dpixels)).unwrap();
            assert_near("norm", loss, norm(&widen(&pixels)), 1e-6);
            assert_gradient("norm", &pixels, &gained(&dpixels), norm);
        }
    }

    #[test]
    fn a_constant_image_has_no_variation_and_no_slope() {
        let mut dpixels = [0.0; 12];
        let loss = total_variation(&[0.3; 12], [1, 1, 3, 4], 1.0, Some(&mut dpixels)).unwrap();
        assert_eq!((loss, dpixels), (0.0, [0.0; 12]));
    }

    #[test]
    fn an_image_of_zeros_has_a_finite_norm_gradient() {
        let mut dpixels = [0.0; 4];
        mean_norm(&[0.0; 4], [1, 1, 2, 2], 1.0, Some(&mut dpixels)).unwrap();
        assert_eq!(dpixels, [0.0; 4]);
    }
}
