//! The contract between images that are optimised or learned from and those who compute on their pixels. Operations as those of [`super::backend`]:
//! fused, in one queue, on handles. What changes from step to step is read from the memory of the queue, never passed with a
//! call, so that recorded work can be done again with other values.
//!
//! Images are the rows of a matrix `[images, 3·height·width]` without gaps, red, green and blue planes one after another.
//! A loss is an `f64` in a matrix of two values ([`super::backend::halves`]) at an even place.

use super::augment::Affine;
use super::backend::{Backend, DeviceError, Matrix};
use super::optimise::AdamSettings;
use super::resnet::ResNet;

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

/// Images as a spectrum, or the gradients at both; all without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpectrumOperands {
    /// `[1, images·3·height·(width/2 + 1)·2]`, as [`super::image_parameters::Parametrisation::Fourier`] has them.
    pub parameters: Matrix,
    /// Levels from 0 to 1, as many as the images; written forward and read backward.
    pub levels: Matrix,
    /// `[images, 3·height·width]`, normalised.
    pub images: Matrix,
    /// One row of [`ImageBackend::spectrum_scratch`] values.
    pub scratch: Matrix,
}

/// Values that [`ImageBackend::upload_warps`] needs for an image.
pub const WARP_VALUES: usize = 8;

/// Operations on pixels. As those of [`Backend`] they do not check what they are given beyond what memory safety needs, and finish later.
pub trait ImageBackend: Backend {
    /// The transform of a spectrum for images of one shape.
    type Spectrum: Send;
    /// A pool of pictures, a byte a value.
    type Levels: Send + Sync;
    /// A ResNet and the statistics that it remembers.
    type BatchNormPrior: Send;

    /// Lays out `length` values of [`super::backend::Region::Images`], all zero. They stay until the next call; what was there before is lost.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]
    fn lay_out_images(&self, queue: &mut Self::Queue, length: usize) -> Result<(), DeviceError>;

    /// Sets `bit` of `flags [1, 1]` where a value of `x`, without gaps, is infinite or not a number.
    fn flag_not_finite(&self, queue: &mut Self::Queue, x: Matrix, bit: u32, flags: Matrix);

    /// Most bytes of pictures that may stay where the backend computes; 0 where nothing is won by it.
    fn room_for_levels(&self) -> usize;
    /// The pictures of all `parts`, each `[pictures, 3, side, side]` with a byte a value, one after another where the backend computes.
    ///
    /// # Errors
    /// [`DeviceError`]
    fn levels(&self, parts: &[&[u8]]) -> Result<Self::Levels, DeviceError>;
    /// Overwrites each row of `pixels` `[images, 3·side²]` with the picture of that number in `indices` (`[images, 1]`), its lines mirrored where
    /// `flips` (`[images, 1]`, indices) is not 0, as `table` `[3, 256]` says what a level of a channel is. There is a picture of each number.
    #[expect(clippy::too_many_arguments, reason = "operands of one fused operation")]
    fn normalise_levels(
        &self,
        queue: &mut Self::Queue,
        levels: &Self::Levels,
        indices: Matrix,
        flips: Option<Matrix>,
        table: &Self::Vector,
        side: usize,
        pixels: Matrix,
    );

    /// The transform for `images` images of `size` `[height, width]`, normalised with mean and standard deviation.
    fn spectrum(
        &self,
        images: usize,
        size: [usize; 2],
        normalisation: ([f32; 3], [f32; 3]),
    ) -> Self::Spectrum;
    /// Values of scratch that the two that follow need.
    fn spectrum_scratch(&self, images: usize, size: [usize; 2]) -> usize;
    /// Overwrites levels and images.
    fn spectrum_images(
        &self,
        queue: &mut Self::Queue,
        spectrum: &mut Self::Spectrum,
        operands: SpectrumOperands,
    );
    /// Overwrites the gradient at the parameters from that at the images.
    fn spectrum_backward(
        &self,
        queue: &mut Self::Queue,
        spectrum: &mut Self::Spectrum,
        gradients: SpectrumOperands,
    );

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

    /// As [`Backend::upload`], for the changes of images of `size` `[height, width]`: `maps` is `[images, WARP_VALUES]`, in a form that the
    /// backend chooses, at an even place.
    fn upload_warps(
        &self,
        queue: &mut Self::Queue,
        changes: &[Affine],
        size: [usize; 2],
        maps: Matrix,
    );
    /// `target = source` changed by `maps`, one an image.
    fn warp(
        &self,
        queue: &mut Self::Queue,
        source: Matrix,
        size: [usize; 2],
        maps: Matrix,
        target: Matrix,
    );
    /// Overwrites `dsource` with the gradient at the source of [`Self::warp`]. No scale is zero.
    fn warp_adjoint(
        &self,
        queue: &mut Self::Queue,
        dtarget: Matrix,
        size: [usize; 2],
        maps: Matrix,
        dsource: Matrix,
    );
    /// `target = gain·source + constant` with `lines` `[images, 6]` of [`super::augment::colour_lines`]: both for red, green and blue.
    fn recolour(&self, queue: &mut Self::Queue, source: Matrix, lines: Matrix, target: Matrix);
    /// Overwrites `dsource` with the gradient at the source of [`Self::recolour`].
    fn recolour_adjoint(
        &self,
        queue: &mut Self::Queue,
        dtarget: Matrix,
        lines: Matrix,
        dsource: Matrix,
    );

    /// What [`Self::total_variation`] of `images` images of `size` `[height, width]` reads, with `weight` of its gradient.
    fn total_variation_weights(&self, images: usize, size: [usize; 2], weight: f32)
    -> Self::Vector;
    /// Overwrites `loss` `[1, 2]` with [`super::loss::total_variation`] of `pixels`, of which there is one at least, not weighted, and
    /// adds its weighted gradient to `dpixels`.
    fn total_variation(
        &self,
        queue: &mut Self::Queue,
        pixels: Matrix,
        size: [usize; 2],
        weights: &Self::Vector,
        dpixels: Option<Matrix>,
        loss: Matrix,
    );
    /// As [`Self::total_variation`], for [`super::loss::mean_norm`].
    fn mean_norm(
        &self,
        queue: &mut Self::Queue,
        pixels: Matrix,
        weight: f32,
        dpixels: Option<Matrix>,
        loss: Matrix,
    );

    /// The prior that compares with the statistics stored in `network`.
    fn batch_norm_prior(&self, network: ResNet) -> Self::BatchNormPrior;
    /// Values of scratch that [`Self::batch_norm`] of `images` images of `size` `[height, width]` needs.
    fn batch_norm_scratch(
        &self,
        prior: &Self::BatchNormPrior,
        images: usize,
        size: [usize; 2],
    ) -> usize;
    /// As [`Self::total_variation`], for [`super::resnet::BatchNormPrior`]; `scratch` is one row at an even place.
    #[expect(clippy::too_many_arguments, reason = "operands of one fused operation")]
    fn batch_norm(
        &self,
        queue: &mut Self::Queue,
        prior: &mut Self::BatchNormPrior,
        pixels: Matrix,
        size: [usize; 2],
        weight: f32,
        dpixels: Option<Matrix>,
        scratch: Matrix,
        loss: Matrix,
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
