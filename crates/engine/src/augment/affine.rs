//! Rotation, scaling and shift by bilinear sampling; places outside the image are reflected at its border.

use super::check_pair;
use crate::operation::{Checks, OperationError};
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Where the pixels of one image come from: about the centre, turned by the angle, scaled, then shifted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    /// By which the sampled places are turned about the centre.
    pub angle_radians: f32,
    /// Above 1 the picture shrinks.
    pub scale: f32,
    /// Shares of the height and of the width by which the sampled place moves down and right.
    pub shift: [f32; 2],
}

impl Affine {
    /// Angle, scale, and the shift down and right.
    pub(crate) fn numbers(self) -> [f32; 4] {
        let [down, right] = self.shift;
        [self.angle_radians, self.scale, down, right]
    }

    /// What [`Self::numbers`] were made of.
    pub(crate) fn of_numbers([angle_radians, scale, down, right]: [f32; 4]) -> Self {
        Self {
            angle_radians,
            scale,
            shift: [down, right],
        }
    }

    /// `[sine, cosine, down, right]` for images of `size` `[height, width]`: about the centre, place (y, x) shows what was at
    /// `(sine·x + cosine·y + down, cosine·x − sine·y + right)`. Sine and cosine are multiplied by the scale, shifts are in pixels.
    pub(crate) fn map(self, [height, width]: [usize; 2]) -> [f64; 4] {
        let (sine, cosine) = f64::from(self.angle_radians).sin_cos();
        let scale = f64::from(self.scale);
        let [down, right] = self.shift.map(f64::from);
        [
            scale * sine,
            scale * cosine,
            down * height as f64,
            right * width as f64,
        ]
    }
}

/// The identity.
impl Default for Affine {
    fn default() -> Self {
        Self {
            angle_radians: 0.0,
            scale: 1.0,
            shift: [0.0; 2],
        }
    }
}

/// Limits between which parameters are drawn evenly, to both sides of the identity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AffineLimits {
    /// Largest angle.
    pub angle_radians: f32,
    /// Largest difference of the scale from 1.
    pub scale: f32,
    /// Largest share of a side.
    pub shift: f32,
}

/// 12 degrees, 12 percent, a twentieth of the side.
impl Default for AffineLimits {
    fn default() -> Self {
        Self {
            angle_radians: 12f32.to_radians(),
            scale: 0.12,
            shift: 0.05,
        }
    }
}

impl AffineLimits {
    /// Parameters of one image.
    pub fn draw(&self, generator: &mut impl Rng) -> Affine {
        let mut even = |limit: f32| limit * generator.random_range(-1.0f32..=1.0);
        Affine {
            angle_radians: even(self.angle_radians),
            scale: 1.0 + even(self.scale),
            shift: [even(self.shift), even(self.shift)],
        }
    }
}

/// Overwrites `target` with the warped `source`, both `[batch, channels, height, width]`; one [`Affine`] an image.
///
/// # Errors
/// An axis of length zero, lengths that do not fit, values or parameters that are not finite.
pub fn warp(
    source: &[f32],
    shape: [usize; 4],
    changes: &[Affine],
    target: &mut [f32],
) -> Result<(), OperationError> {
    check(Checks("affine warp"), source, shape, changes, target)?;
    warp_images(source, shape, changes, target);
    Ok(())
}

/// [`warp`] of what is known to fit.
pub(crate) fn warp_images(
    source: &[f32],
    shape: [usize; 4],
    changes: &[Affine],
    target: &mut [f32],
) {
    let [_, _, height, width] = shape;
    let (plane, image) = lengths(shape);
    let images = source
        .par_chunks_exact(image)
        .zip(target.par_chunks_exact_mut(image));
    images.zip(changes).for_each(|((source, target), change)| {
        for_each_pixel(*change, height, width, |to, taps| {
            for start in (0..image).step_by(plane) {
                target[start + to] = taps
                    .iter()
                    .map(|&(from, weight)| weight * source[start + from])
                    .sum();
            }
        });
    });
}

/// The adjoint: overwrites `dsource` with the gradient at the source of [`warp`], from `dtarget` at its target.
///
/// # Errors
/// As [`warp`].
pub fn warp_adjoint(
    dtarget: &[f32],
    shape: [usize; 4],
    changes: &[Affine],
    dsource: &mut [f32],
) -> Result<(), OperationError> {
    check(
        Checks("affine warp backward"),
        dtarget,
        shape,
        changes,
        dsource,
    )?;
    warp_images_adjoint(dtarget, shape, changes, dsource);
    Ok(())
}

/// [`warp_adjoint`] of what is known to fit.
pub(crate) fn warp_images_adjoint(
    dtarget: &[f32],
    shape: [usize; 4],
    changes: &[Affine],
    dsource: &mut [f32],
) {
    let [_, _, height, width] = shape;
    let (plane, image) = lengths(shape);
    let images = dtarget
        .par_chunks_exact(image)
        .zip(dsource.par_chunks_exact_mut(image));
    images
        .zip(changes)
        .for_each(|((dtarget, dsource), change)| {
            dsource.fill(0.0);
            for_each_pixel(*change, height, width, |to, taps| {
                for start in (0..image).step_by(plane) {
                    for &(from, weight) in taps {
                        dsource[start + from] += weight * dtarget[start + to];
                    }
                }
            });
        });
}

fn check(
    checks: Checks,
    source: &[f32],
    shape: [usize; 4],
    changes: &[Affine],
    target: &[f32],
) -> Result<(), OperationError> {
    check_pair(checks, source, target, shape)?;
    check_changes(checks, changes, shape[0])
}

/// One change of finite numbers for each image.
pub(crate) fn check_changes(
    checks: Checks,
    changes: &[Affine],
    images: usize,
) -> Result<(), OperationError> {
    checks.length("the parameters", changes, &[images])?;
    changes.iter().try_for_each(|change| {
        let numbers = change.numbers();
        numbers.into_iter().try_for_each(|value| {
            checks.setting(
                "a parameter",
                value,
                value.is_finite(),
                "it must be a finite number",
            )
        })
    })
}

/// Values of a plane and of an image.
fn lengths([_, channels, height, width]: [usize; 4]) -> (usize, usize) {
    (height * width, channels * height * width)
}

/// Calls `visit(target index, (source index, weight) of its four taps)` for every pixel of a plane.
fn for_each_pixel(
    change: Affine,
    height: usize,
    width: usize,
    mut visit: impl FnMut(usize, &[(usize, f32); 4]),
) {
    let (sine, cosine) = f64::from(change.angle_radians).sin_cos();
    let scale = f64::from(change.scale);
    let (centre_y, centre_x) = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
    let shift_y = f64::from(change.shift[0]) * height as f64;
    let shift_x = f64::from(change.shift[1]) * width as f64;
    for row in 0..height {
        let y = row as f64 - centre_y;
        for column in 0..width {
            let x = column as f64 - centre_x;
            let from_y = scale * (sine * x + cosine * y) + shift_y + centre_y;
            let from_x = scale * (cosine * x - sine * y) + shift_x + centre_x;
            let (top, bottom, down) = taps(from_y, height);
            let (left, right, along) = taps(from_x, width);
            let taps = [
                (top * width + left, (1.0 - down) * (1.0 - along)),
                (top * width + right, (1.0 - down) * along),
                (bottom * width + left, down * (1.0 - along)),
                (bottom * width + right, down * along),
            ];
            visit(
                row * width + column,
                &taps.map(|(from, weight)| (from, weight as f32)),
            );
        }
    }
}

/// The two pixels around `position` on an axis of `side` pixels, and the weight of the second.
fn taps(position: f64, side: usize) -> (usize, usize, f64) {
    // Pixel centres are whole numbers, so the border at which the picture is mirrored lies half a pixel outside.
    let length = side as f64;
    let folded = (position + 0.5).rem_euclid(2.0 * length);
    let mirrored = folded.min(2.0 * length - folded) - 0.5;
    let inside = mirrored.clamp(0.0, length - 1.0);
    let first = (inside as usize).min(side - 1);
    (first, (first + 1).min(side - 1), inside - first as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::noise;

    fn any_affine() -> impl Strategy<Value = Affine> {
        (-4.0f32..4.0, 0.2f32..3.0, -1.5f32..1.5, -1.5f32..1.5).prop_map(
            |(angle_radians, scale, down, right)| Affine {
                angle_radians,
                scale,
                shift: [down, right],
            },
        )
    }

    fn inner_product(a: &[f32], b: &[f32]) -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    }

    proptest! {
        #[test]
        fn the_adjoint_satisfies_its_defining_equation_and_weights_sum_to_one(
            changes in prop::collection::vec(any_affine(), 1..4), c in 1usize..3, h in 1usize..9, w in 1usize..9,
            seed in 0u64..1000,
        ) {
            let shape = [changes.len(), c, h, w];
            let count = shape.iter().product();
            let (x, y) = (noise(seed, count), noise(seed + 1, count));
            let (mut forward, mut back) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            warp(&x, shape, &changes, &mut forward).unwrap();
            warp_adjoint(&y, shape, &changes, &mut back).unwrap();
            // f32 sums of up to about 300 products of values below 1.
            prop_assert!((inner_product(&forward, &y) - inner_product(&x, &back)).abs() < 1e-4);
            warp(&vec![0.5; count], shape, &changes, &mut forward).unwrap();
            prop_assert!(forward.iter().all(|value| (value - 0.5).abs() < 1e-6));
        }
    }

    #[test]
    fn the_identity_changes_nothing() {
        let source = noise(4, 2 * 3 * 5 * 7);
        let mut target = vec![f32::NAN; source.len()];
        warp(&source, [2, 3, 5, 7], &[Affine::default(); 2], &mut target).unwrap();
        assert_eq!(target, source);
    }

    #[test]
    fn a_shift_beyond_the_border_reflects() {
        let change = Affine {
            shift: [0.0, 0.5],
            ..Affine::default()
        };
        let mut target = [f32::NAN; 4];
        warp(&[1.0, 2.0, 3.0, 4.0], [1, 1, 1, 4], &[change], &mut target).unwrap();
        assert_eq!(target, [3.0, 4.0, 4.0, 3.0]);
    }

    #[test]
    fn one_change_for_two_images_is_refused() {
        let error = warp(&[0.0; 2], [2, 1, 1, 1], &[Affine::default()], &mut [0.0; 2]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "affine warp: the parameters with shape [2]: 1 values where 2 are needed"
        );
    }
}
