//! What happens to the images before the model sees them in a step, and the way of gradients back.

use crate::random::{Purpose, generator};
use engine::augment::{Affine, AffineLimits, RollFlip, warp, warp_adjoint};
use engine::operation::OperationError;
use serde::{Deserialize, Serialize};

/// Random changes of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImageAugmentation {
    /// The images as they are.
    None,
    /// Rolled by up to an eighth of the side both ways and mirrored half of the time, one draw per batch: the published recipe.
    RollFlip,
    /// Turned, scaled and shifted a little, one draw per image.
    Affine,
}

/// The changes of one step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Draw {
    Nothing,
    RollFlip(RollFlip),
    Affine(Vec<Affine>),
}

impl Draw {
    /// The changes of step `position` of a batch of `shape` `[batch, 3, side, side]`.
    pub fn random(
        augmentation: ImageAugmentation,
        seed: u64,
        position: u64,
        shape: [usize; 4],
    ) -> Self {
        let mut random = generator(seed, Purpose::Augmentation, position);
        match augmentation {
            ImageAugmentation::None => Self::Nothing,
            ImageAugmentation::RollFlip => {
                Self::RollFlip(RollFlip::draw(&mut random, shape[2], shape[3]))
            }
            ImageAugmentation::Affine => {
                let limits = AffineLimits::default();
                Self::Affine((0..shape[0]).map(|_| limits.draw(&mut random)).collect())
            }
        }
    }

    /// Overwrites `target` with the changed `source`.
    pub fn apply(
        &self,
        source: &[f32],
        shape: [usize; 4],
        target: &mut [f32],
    ) -> Result<(), OperationError> {
        match self {
            Self::Nothing => {
                target.copy_from_slice(source);
                Ok(())
            }
            Self::RollFlip(draw) => draw.apply(source, shape, target),
            Self::Affine(draws) => warp(source, shape, draws, target),
        }
    }

    /// Overwrites `dsource` with the gradient at the source, from `dtarget`.
    pub fn adjoint(
        &self,
        dtarget: &[f32],
        shape: [usize; 4],
        dsource: &mut [f32],
    ) -> Result<(), OperationError> {
        match self {
            Self::Nothing => {
                dsource.copy_from_slice(dtarget);
                Ok(())
            }
            Self::RollFlip(draw) => draw.adjoint(dtarget, shape, dsource),
            Self::Affine(draws) => warp_adjoint(dtarget, shape, draws, dsource),
        }
    }
}
