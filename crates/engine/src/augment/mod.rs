//! Random changes of a batch of images, each with its adjoint, which carries gradients back.
//! Draws are plain structs taken from the caller's generator, so that a seed gives the same run and a job can resume.

mod affine;
mod colour;
mod roll_flip;

pub use affine::{Affine, AffineLimits, warp, warp_adjoint};
pub(crate) use affine::{check_changes, warp_images, warp_images_adjoint};
pub use colour::{Colour, ColourLimits, colour_lines, recolour, recolour_adjoint};
pub(crate) use colour::{recolour_planes, recolour_planes_adjoint};
pub use roll_flip::RollFlip;

use crate::operation::{Checks, OperationError};

/// Checks that two `[batch, channels, height, width]` buffers fit `shape` and the source is finite.
fn check_pair(
    checks: Checks,
    source: &[f32],
    target: &[f32],
    shape: [usize; 4],
) -> Result<(), OperationError> {
    checks.finite("the source", source, &shape)?;
    checks.length("the target", target, &shape)
}
