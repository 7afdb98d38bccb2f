//! What inversion optimises: the pixels themselves, or a Fourier spectrum with 1/f scaling after a sigmoid.
//! Turns parameters into normalised images and gradients at images into gradients at parameters.

mod fourier;

use crate::operation::{Checks, OperationError};
pub(crate) use fourier::{Fourier, frequency_scale};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// How images are parametrised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Parametrisation {
    /// Normalised pixel values, kept in the valid range by [`ImageParameters::constrain`].
    Pixels,
    /// Real and imaginary parts of the half spectrum `[batch, 3, height, width/2 + 1, 2]`, divided by frequency, before an
    /// inverse transform and a sigmoid.
    Fourier,
}

impl Parametrisation {
    /// Number of parameters of images of `shape` `[batch, channels, height, width]`.
    pub fn count(self, [batch, channels, height, width]: [usize; 4]) -> usize {
        let columns = match self {
            Self::Pixels => width,
            Self::Fourier => 2 * (width / 2 + 1),
        };
        batch * channels * height * columns
    }

    /// A random start for images of `shape`: normal pixels, or a faint normal spectrum (nearly grey images).
    pub fn draw(self, shape: [usize; 4], generator: &mut impl Rng) -> Vec<f32> {
        let scale = match self {
            Self::Pixels => 1.0,
            Self::Fourier => 0.01,
        };
        (0..self.count(shape))
            .map(|_| {
                let value: f32 = StandardNormal.sample(generator);
                scale * value
            })
            .collect()
    }
}

/// A batch of images as a flat vector of parameters. Buffers are allocated once, at the start.
pub struct ImageParameters {
    shape: [usize; 4],
    mean: [f32; 3],
    standard_deviation: [f32; 3],
    /// With the levels of the last images, `[batch, 3, height, width]`.
    fourier: Option<(Fourier, Vec<f32>)>,
}

impl ImageParameters {
    /// For images of `shape` `[batch, 3, height, width]`, normalised with `mean` and `standard_deviation`.
    ///
    /// # Errors
    /// Not three channels, an axis of length zero, a deviation that is not above zero.
    pub fn new(
        parametrisation: Parametrisation,
        shape: [usize; 4],
        (mean, standard_deviation): ([f32; 3], [f32; 3]),
    ) -> Result<Self, OperationError> {
        check("image parameters", shape, (mean, standard_deviation))?;
        let fourier = match parametrisation {
            Parametrisation::Pixels => None,
            Parametrisation::Fourier => {
                let [batch, channels, height, width] = shape;
                let fourier = Fourier::new(batch * channels, height, width);
                Some((fourier, vec![0.0; shape.iter().product()]))
            }
        };
        Ok(Self {
            shape,
            mean,
            standard_deviation,
            fourier,
        })
    }

    /// Number of parameters.
    pub fn count(&self) -> usize {
        let parametrisation = match self.fourier {
            None => Parametrisation::Pixels,
            Some(_) => Parametrisation::Fourier,
        };
        parametrisation.count(self.shape)
    }

    /// Overwrites `images` `[batch, 3, height, width]`, normalised.
    ///
    /// # Errors
    /// Lengths that do not fit, parameters that are not finite.
    pub fn images(&mut self, parameters: &[f32], images: &mut [f32]) -> Result<(), OperationError> {
        let checks = Checks("image parameters");
        checks.finite("parameters", parameters, &[self.count()])?;
        checks.length("images", images, &self.shape)?;
        match &mut self.fourier {
            None => images.copy_from_slice(parameters),
            Some((fourier, levels)) => {
                fourier.levels(parameters, images);
                levels.copy_from_slice(images);
                let plane = self.shape[2] * self.shape[3];
                normalise(images, plane, (self.mean, self.standard_deviation));
            }
        }
        Ok(())
    }

    /// Overwrites `dparameters` with the gradient at the parameters of the last [`Self::images`], from `dimages`.
    ///
    /// # Errors
    /// Lengths that do not fit, gradients that are not finite.
    pub fn backward(
        &mut self,
        dimages: &[f32],
        dparameters: &mut [f32],
    ) -> Result<(), OperationError> {
        let checks = Checks("image parameters backward");
        checks.finite("dimages", dimages, &self.shape)?;
        checks.length("dparameters", dparameters, &[self.count()])?;
        match &mut self.fourier {
            None => dparameters.copy_from_slice(dimages),
            Some((fourier, levels)) => {
                fourier.backward(dimages, levels, self.standard_deviation, dparameters);
            }
        }
        Ok(())
    }

    /// Brings parameters back to images that exist: pixels are clamped to black and white of their channel; a spectrum
    /// always gives valid images and is left as it is.
    ///
    /// # Errors
    /// A length that does not fit.
    pub fn constrain(&self, parameters: &mut [f32]) -> Result<(), OperationError> {
        Checks("image parameters").length("parameters", parameters, &[self.count()])?;
        if self.fourier.is_none() {
            clamp_to_valid_range(parameters, self.shape, (self.mean, self.standard_deviation))?;
        }
        Ok(())
    }
}

/// Clamps every channel of `pixels` `[batch, 3, height, width]` to `[−mean/std, (1 − mean)/std]`.
///
/// # Errors
/// Not three channels, an axis of length zero, lengths that do not fit, a deviation that is not above zero.
pub fn clamp_to_valid_range(
    pixels: &mut [f32],
    shape: [usize; 4],
    (mean, standard_deviation): ([f32; 3], [f32; 3]),
) -> Result<(), OperationError> {
    check("clamp", shape, (mean, standard_deviation))?;
    Checks("clamp").length("pixels", pixels, &shape)?;
    let limits = valid_range((mean, standard_deviation));
    clamp_channels(pixels, shape[2] * shape[3], &limits);
    Ok(())
}

/// A batch `shape` `[batch, 3, height, width]` and its normalisation are ones that `operation` can compute with.
pub(crate) fn check(
    operation: &'static str,
    shape: [usize; 4],
    (mean, standard_deviation): ([f32; 3], [f32; 3]),
) -> Result<(), OperationError> {
    let checks = Checks(operation);
    if shape.contains(&0) {
        return Err(OperationError::Empty {
            operation,
            name: "the batch",
            shape: shape.to_vec(),
        });
    }
    checks.channels("the batch", shape)?;
    for (mean, deviation) in mean.into_iter().zip(standard_deviation) {
        checks.setting(
            "the mean",
            mean,
            mean.is_finite(),
            "it must be a finite number",
        )?;
        checks.positive("the standard deviation", deviation)?;
    }
    Ok(())
}

/// Turns levels from 0 to 1 in planes of `plane` values, red, green and blue in turn, into normalised values.
pub(crate) fn normalise(
    levels: &mut [f32],
    plane: usize,
    (mean, standard_deviation): ([f32; 3], [f32; 3]),
) {
    for (plane, values) in levels.chunks_exact_mut(plane).enumerate() {
        let (mean, deviation) = (mean[plane % 3], standard_deviation[plane % 3]);
        values
            .iter_mut()
            .for_each(|value| *value = (*value - mean) / deviation);
    }
}

/// `[3, 2]`: black and white of each channel, normalised.
pub(crate) fn valid_range((mean, standard_deviation): ([f32; 3], [f32; 3])) -> [[f32; 2]; 3] {
    std::array::from_fn(|channel| {
        let (mean, deviation) = (mean[channel], standard_deviation[channel]);
        [(0.0 - mean) / deviation, (1.0 - mean) / deviation]
    })
}

/// Clamps every plane of `plane` values to the limits of its channel.
pub(crate) fn clamp_channels(pixels: &mut [f32], plane: usize, limits: &[[f32; 2]]) {
    for (values, [black, white]) in pixels.chunks_exact_mut(plane).zip(limits.iter().cycle()) {
        values
            .iter_mut()
            .for_each(|value| *value = value.clamp(*black, *white));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const NORMALISATION: ([f32; 3], [f32; 3]) = ([0.5, 0.25, 0.0], [0.5, 0.25, 2.0]);

    #[test]
    fn pixels_are_clamped_to_black_and_white_of_their_channel() {
        let mut pixels = [-9.0, 0.5, 9.0, -9.0, 0.5, 9.0, -9.0, 0.25, 9.0];
        let parameters =
            ImageParameters::new(Parametrisation::Pixels, [1, 3, 1, 3], NORMALISATION).unwrap();
        parameters.constrain(&mut pixels).unwrap();
        assert_eq!(pixels, [-1.0, 0.5, 1.0, -1.0, 0.5, 3.0, 0.0, 0.25, 0.5]);
    }

    #[test]
    fn pixels_are_their_own_images_and_a_seed_draws_the_same_start() {
        let draw = |parametrisation: Parametrisation| {
            parametrisation.draw([2, 3, 5, 4], &mut ChaCha8Rng::seed_from_u64(9))
        };
        let start = draw(Parametrisation::Pixels);
        assert_eq!(start, draw(Parametrisation::Pixels));
        assert_eq!(draw(Parametrisation::Fourier).len(), 2 * 3 * 5 * 3 * 2);
        let mut parameters =
            ImageParameters::new(Parametrisation::Pixels, [2, 3, 5, 4], NORMALISATION).unwrap();
        let (mut images, mut back) = (vec![f32::NAN; 120], vec![f32::NAN; 120]);
        parameters.images(&start, &mut images).unwrap();
        parameters.backward(&images, &mut back).unwrap();
        assert_eq!((&images, &back), (&start, &start));
    }

    #[test]
    fn grey_images_and_batches_of_zero_are_refused() {
        let refuse =
            |shape| match ImageParameters::new(Parametrisation::Fourier, shape, NORMALISATION) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
        assert_eq!(
            refuse([1, 1, 4, 4]),
            "image parameters: the batch has shape [1, 1, 4, 4], which does not go with three channels of shape [1, 3, 4, 4]"
        );
        assert_eq!(
            refuse([0, 3, 4, 4]),
            "image parameters: the batch has shape [0, 3, 4, 4]; no axis may be zero"
        );
    }
}
