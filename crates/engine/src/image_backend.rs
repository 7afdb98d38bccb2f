//! The contract between images that are optimised or learned from and those who compute on their pixels. Operations as those of [`super::backend`]:
//! fused, in one queue, on handles. What changes from step to step is read from the memory of the queue, never passed with a
//! call, so that recorded work can be done again with other values.
//!
//! Images are the rows of a matrix `[images, 3·height·width]` without gaps, red, green and blue planes one after another.
//! A loss is an `f64` in a matrix of two values ([`super::backend::halves`]) at an even place.

use super::backend::{Backend, DeviceError, Matrix};
use super::optimise::AdamSettings;

/// Parameters, the gradient at them, and what Adam remembers, all of one length without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdamOperands {
    /// Changed.
    pub values: Matrix,
    /// Read.
    pub gradient: Matrix,
    /// Running mean of the gradient; changed.
    pub first: Matrix,
    /// Running mean of its square; changed.
    pub second: Matrix,
    /// `[1, 2]`: −learning rate/(1 − β₁ⁿ) and √(1 − β₂ⁿ) of step n.
    pub rates: Matrix,
    /// `[1, 1]`, of [`ImageBackend::flag_not_finite`]: nothing changes where it is not 0.
    pub flags: Matrix,
}

/// What values are clamped to.
#[derive(Debug, Clone, Copy)]
pub struct ChannelLimits<'w, Vector> {
    /// `[3, 2]`: least and largest value of each channel.
    pub limits: &'w Vector,
    /// Values of a channel of an image.
    pub plane: usize,
}

/// Operations on pixels. As those of [`Backend`] they do not check what they are given beyond what memory safety needs, and finish later.
pub trait ImageBackend: Backend {
    /// Lays out `length` values of [`super::backend::Region::Images`], all zero. They stay until the next call; what was there before is lost.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]
    fn lay_out_images(&self, queue: &mut Self::Queue, length: usize) -> Result<(), DeviceError>;

    /// Sets `bit` of `flags [1, 1]` where a value of `x`, without gaps, is infinite or not a number.
    fn flag_not_finite(&self, queue: &mut Self::Queue, x: Matrix, bit: u32, flags: Matrix);

    /// `target = source` rolled and mirrored by `draw` `[3, 1]` ([`super::augment::RollFlip`]: rows down and columns right as the bits of
    /// `i32`, 1 to mirror), one draw for all images of `size` `[height, width]`.
    fn roll_flip(
        &self,
        queue: &mut Self::Queue,
        source: Matrix,
        size: [usize; 2],
        draw: Matrix,
        target: Matrix,
    );
    /// Overwrites `dsource` with the gradient at the source of [`Self::roll_flip`].
    fn roll_flip_adjoint(
        &self,
        queue: &mut Self::Queue,
        dtarget: Matrix,
        size: [usize; 2],
        draw: Matrix,
        dsource: Matrix,
    );

    /// A step of Adam, then a clamp where there are limits.
    fn adam(
        &self,
        queue: &mut Self::Queue,
        operands: AdamOperands,
        settings: &AdamSettings,
        limits: Option<ChannelLimits<'_, Self::Vector>>,
    );
}
