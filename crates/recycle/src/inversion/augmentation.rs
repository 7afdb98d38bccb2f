//! What happens to the images before the model sees them in a step.

use crate::random::{Purpose, generator};
use engine::augment::{AffineLimits, RollFlip};
use engine::images::Change;
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

impl ImageAugmentation {
    /// The changes of step `position` of a batch of `shape` `[batch, 3, side, side]`.
    pub(super) fn draw(self, seed: u64, position: u64, shape: [usize; 4]) -> Change {
        let mut random = generator(seed, Purpose::Augmentation, position);
        match self {
            Self::None => Change::Nothing,
            Self::RollFlip => Change::RollFlip(RollFlip::draw(&mut random, shape[2], shape[3])),
            Self::Affine => {
                let limits = AffineLimits::default();
                Change::Affine((0..shape[0]).map(|_| limits.draw(&mut random)).collect())
            }
        }
    }
}
