//! Changed copies of a picture, from which a head learns how features vary within a class: turned, moved, scaled, recoloured. A copy
//! depends on the picture and its specification alone, so its feature can be kept and an answer repeats.

use engine::augment::{Affine, AffineLimits, ColourLimits, recolour, warp};
use engine::operation::OperationError;
use model::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Which copy of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopySpec {
    /// Copies of different numbers are drawn independently.
    pub index: u32,
    /// Whether its levels are turned to their negative.
    pub negative: bool,
    /// Whether left and right change places.
    pub mirrored: bool,
    /// Limits of the change in percent of [`LIMITS`] and [`COLOUR_LIMITS`].
    pub strength_percent: u32,
}

/// 15 degrees, 15 percent, a tenth of the side.
pub const LIMITS: AffineLimits = AffineLimits {
    angle_radians: 0.261_799_4,
    scale: 0.15,
    shift: 0.1,
};

/// Gain and offset of each channel.
pub const COLOUR_LIMITS: ColourLimits = ColourLimits {
    gain: 0.3,
    offset: 0.15,
    inversion_probability: 0.0,
};

/// The copy `spec` of `pixels` `[3, height, width]`, which are normalised with mean and standard deviation `normalisation`.
///
/// # Errors
/// Another shape, values that are not finite.
pub fn copy_of(
    pixels: &Tensor,
    spec: CopySpec,
    normalisation: ([f32; 3], [f32; 3]),
) -> Result<Tensor, OperationError> {
    // Another number of axes has no image in it, which `warp` refuses.
    let [channels, height, width] = pixels.shape().try_into().unwrap_or([0; 3]);
    let shape = [1, channels, height, width];
    let mut random = ChaCha8Rng::from_seed(seed(pixels, spec.index));
    let strength = spec.strength_percent as f32 / 100.0;
    let affine = AffineLimits {
        angle_radians: strength * LIMITS.angle_radians,
        scale: strength * LIMITS.scale,
        shift: strength * LIMITS.shift,
    };
    let colour = ColourLimits {
        gain: strength * COLOUR_LIMITS.gain,
        offset: strength * COLOUR_LIMITS.offset,
        ..COLOUR_LIMITS
    };
    let affine: Affine = affine.draw(&mut random);
    let mut colour = colour.draw(&mut random);
    colour.invert = spec.negative;
    let mut warped = Tensor::zeros(pixels.shape());
    warp(pixels.data(), shape, &[affine], warped.data_mut())?;
    if spec.mirrored {
        for row in warped.data_mut().chunks_exact_mut(width) {
            row.reverse();
        }
    }
    let mut copy = Tensor::zeros(pixels.shape());
    recolour(
        warped.data(),
        shape,
        &[colour],
        normalisation,
        copy.data_mut(),
    )?;
    Ok(copy)
}

/// `pixels` and, after them, their copies `specs`.
///
/// # Errors
/// As [`copy_of`].
pub fn with_its_copies(
    pixels: Tensor,
    specs: &[CopySpec],
    normalisation: ([f32; 3], [f32; 3]),
) -> Result<Vec<Tensor>, OperationError> {
    let copies = specs
        .iter()
        .map(|&spec| copy_of(&pixels, spec, normalisation));
    let copies = copies.collect::<Result<Vec<_>, _>>()?;
    Ok(std::iter::once(pixels).chain(copies).collect())
}

/// Of the generator that draws copy `index`.
fn seed(pixels: &Tensor, index: u32) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for value in pixels.data() {
        hasher.update(value.to_le_bytes());
    }
    hasher.update(index.to_le_bytes());
    hasher.finalize().into()
}
