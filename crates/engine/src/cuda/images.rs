//! The CUDA device as an [`ImageBackend`].

use super::queue::{Queue, Stored};
use super::{Cuda, augment, elementwise, optimise};
use crate::backend::{DeviceError, Matrix};
use crate::image_backend::{AdamOperands, ChannelLimits, ImageBackend};
use crate::optimise::AdamSettings;

impl ImageBackend for Cuda {
    fn lay_out_images(&self, queue: &mut Queue, length: usize) -> Result<(), DeviceError> {
        queue.lay_out_images(length)
    }

    fn flag_not_finite(&self, queue: &mut Queue, x: Matrix, bit: u32, flags: Matrix) {
        elementwise::flag_not_finite(queue, x, bit, flags);
    }

    fn roll_flip(
        &self,
        queue: &mut Queue,
        source: Matrix,
        size: [usize; 2],
        draw: Matrix,
        target: Matrix,
    ) {
        augment::roll_flip(queue, source, size, draw, target);
    }

    fn roll_flip_adjoint(
        &self,
        queue: &mut Queue,
        dtarget: Matrix,
        size: [usize; 2],
        draw: Matrix,
        dsource: Matrix,
    ) {
        augment::roll_flip_adjoint(queue, dtarget, size, draw, dsource);
    }

    fn adam(
        &self,
        queue: &mut Queue,
        operands: AdamOperands,
        settings: &AdamSettings,
        limits: Option<ChannelLimits<'_, Stored>>,
    ) {
        optimise::adam(queue, operands, settings, limits);
    }
}
