//! Change of colour: gain and offset of each channel about mid-grey, after an optional inversion to the negative.
//! Not clamped to the valid range, so that the change is linear and loses no gradient.

use super::check_pair;
use crate::operation::{Checks, OperationError};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The change of one image: `p → gain·(q − 0.5) + 0.5 + offset` on levels from 0 to 1, with `q = 1 − p` where inverted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Colour {
    /// Red, green, blue.
    pub gain: [f32; 3],
    /// Red, green, blue; of levels from 0 to 1.
    pub offset: [f32; 3],
    /// Whether the levels are turned to their negative first.
    pub invert: bool,
}

/// Limits between which parameters are drawn evenly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ColourLimits {
    /// Largest difference of a channel's gain from 1.
    pub gain: f32,
    /// Largest offset of a channel, of levels from 0 to 1.
    pub offset: f32,
    /// From 0 to 1.
    pub inversion_probability: f64,
}

impl Default for ColourLimits {
    fn default() -> Self {
        Self {
            gain: 0.3,
            offset: 0.15,
            inversion_probability: 0.5,
        }
    }
}

impl ColourLimits {
    /// Parameters of one image.
    pub fn draw(&self, generator: &mut impl Rng) -> Colour {
        let mut even = |limit: f32| limit * generator.random_range(-1.0f32..=1.0);
        let gain = [0; 3].map(|_| 1.0 + even(self.gain));
        let offset = [0; 3].map(|_| even(self.offset));
        let probability = self.inversion_probability.clamp(0.0, 1.0);
        Colour {
            gain,
            offset,
            invert: generator.random_bool(probability),
        }
    }
}

impl Colour {
    /// `(gain, constant)` with which a normalised value of `channel` becomes `gain·value + constant`.
    fn line(&self, channel: usize, mean: f32, standard_deviation: f32) -> (f32, f32) {
        let gain = if self.invert {
            -self.gain[channel]
        } else {
            self.gain[channel]
        };
        let grey = (0.5 - mean) / standard_deviation;
        let offset = self.offset[channel] / standard_deviation;
        (gain, grey * (1.0 - gain) + offset)
    }
}

/// Overwrites `target` with the recoloured `source`, both `[batch, 3, height, width]` and normalised with `mean` and
/// `standard_deviation`; one [`Colour`] an image.
///
/// # Errors
/// Not three channels, an axis of length zero, lengths that do not fit, values that are not finite.
pub fn recolour(
    source: &[f32],
    shape: [usize; 4],
    changes: &[Colour],
    (mean, standard_deviation): ([f32; 3], [f32; 3]),
    target: &mut [f32],
) -> Result<(), OperationError> {
    let checks = Checks("recolour");
    check(checks, source, shape, changes, target)?;
    for deviation in standard_deviation {
        checks.positive("the standard deviation", deviation)?;
    }
    let lines = colour_lines(changes, (mean, standard_deviation));
    recolour_planes(source, shape[2] * shape[3], &lines, target);
    Ok(())
}

/// `[images, 3, 2]`: gain and constant of each plane, for images normalised with mean and deviation.
pub fn colour_lines(
    changes: &[Colour],
    (mean, standard_deviation): ([f32; 3], [f32; 3]),
) -> Vec<[f32; 2]> {
    let line = |change: &Colour, channel: usize| {
        let (gain, constant) = change.line(channel, mean[channel], standard_deviation[channel]);
        [gain, constant]
    };
    changes
        .iter()
        .flat_map(|change| [0, 1, 2].map(|channel| line(change, channel)))
        .collect()
}

/// Overwrites `target` with `gain·source + constant` for planes of `plane` values.
pub(crate) fn recolour_planes(
    source: &[f32],
    plane: usize,
    lines: &[[f32; 2]],
    target: &mut [f32],
) {
    let planes = source
        .chunks_exact(plane)
        .zip(target.chunks_exact_mut(plane));
    for ((source, target), [gain, constant]) in planes.zip(lines) {
        for (to, from) in target.iter_mut().zip(source) {
            *to = gain * from + constant;
        }
    }
}

/// The adjoint of [`recolour_planes`].
pub(crate) fn recolour_planes_adjoint(
    dtarget: &[f32],
    plane: usize,
    lines: &[[f32; 2]],
    dsource: &mut [f32],
) {
    let planes = dtarget
        .chunks_exact(plane)
        .zip(dsource.chunks_exact_mut(plane));
    for ((dtarget, dsource), [gain, _]) in planes.zip(lines) {
        for (to, from) in dsource.iter_mut().zip(dtarget) {
            *to = gain * from;
        }
    }
}

/// Overwrites `dsource` with the gradient at the source of [`recolour`], from `dtarget` at its target.
///
/// # Errors
/// As [`recolour`].
pub fn recolour_adjoint(
    dtarget: &[f32],
    shape: [usize; 4],
    changes: &[Colour],
    dsource: &mut [f32],
) -> Result<(), OperationError> {
    check(
        Checks("recolour backward"),
        dtarget,
        shape,
        changes,
        dsource,
    )?;
    let lines = colour_lines(changes, ([0.0; 3], [1.0; 3]));
    recolour_planes_adjoint(dtarget, shape[2] * shape[3], &lines, dsource);
    Ok(())
}

fn check(
    checks: Checks,
    source: &[f32],
    shape: [usize; 4],
    changes: &[Colour],
    target: &[f32],
) -> Result<(), OperationError> {
    check_pair(checks, source, target, shape)?;
    checks.channels("the source", shape)?;
    checks.length("the parameters", changes, &[shape[0]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

    /// Calls `visit(values of the plane, image, channel)` for every plane of `[batch, 3, height, width]`.
    fn for_each_plane(
        [batch, channels, height, width]: [usize; 4],
        mut visit: impl FnMut(std::ops::Range<usize>, usize, usize),
    ) {
        let length = height * width;
        for plane in 0..batch * channels {
            visit(
                plane * length..(plane + 1) * length,
                plane / channels,
                plane % channels,
            );
        }
    }

    /// In the order of the definition: to levels, invert, gain, offset, back.
    fn plain(source: &[f64], shape: [usize; 4], changes: &[Colour]) -> Vec<f64> {
        let mut target = source.to_vec();
        for_each_plane(shape, |index, image, channel| {
            let change = &changes[image];
            let (mean, deviation) = (f64::from(MEAN[channel]), f64::from(DEVIATION[channel]));
            for value in &mut target[index] {
                let level = *value * deviation + mean;
                let level = if change.invert { 1.0 - level } else { level };
                let gain = f64::from(change.gain[channel]);
                let level = gain * (level - 0.5) + 0.5 + f64::from(change.offset[channel]);
                *value = (level - mean) / deviation;
            }
        });
        target
    }

    #[test]
    fn recolour_and_its_gradient_equal_the_plain_formula_on_drawn_changes() {
        let mut generator = ChaCha8Rng::seed_from_u64(3);
        let changes: Vec<Colour> = (0..6)
            .map(|_| ColourLimits::default().draw(&mut generator))
            .collect();
        assert!(changes.iter().any(|c| c.invert) && changes.iter().any(|c| !c.invert));
        let shape = [6, 3, 3, 1];
        let source = noise(5, 6 * 3 * 3);
        let mut target = vec![f32::NAN; source.len()];
        recolour(&source, shape, &changes, (MEAN, DEVIATION), &mut target).unwrap();
        for (found, expected) in target.iter().zip(plain(&widen(&source), shape, &changes)) {
            assert_near("value", *found, expected, 1e-6);
        }
        let dtarget = noise(6, source.len());
        let mut dsource = vec![f32::NAN; source.len()];
        recolour_adjoint(&dtarget, shape, &changes, &mut dsource).unwrap();
        assert_gradient("dsource", &source, &dsource, |at| {
            let pairs = plain(at, shape, &changes).into_iter().zip(&dtarget);
            pairs.map(|(a, &b)| a * f64::from(b)).sum()
        });
    }

    #[test]
    fn four_channels_are_refused() {
        let error = recolour_adjoint(&[0.0; 4], [1, 4, 1, 1], &[], &mut [0.0; 4]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "recolour backward: the source has shape [1, 4, 1, 1], which does not go with three channels of shape [1, 3, 1, 1]"
        );
    }
}
