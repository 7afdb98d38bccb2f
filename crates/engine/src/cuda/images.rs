//! The CUDA device as an [`ImageBackend`].

use super::driver::Memory;
use super::queue::{Queue, Stored};
use super::resnet::{BatchNormPrior, Terms};
use super::spectrum::Spectrum;
use super::{Cuda, augment, elementwise, optimise, pixels};
use crate::augment::Affine;
use crate::backend::{Backend, DeviceError, Matrix};
use crate::image_backend::{AdamOperands, ChannelLimits, ImageBackend, SpectrumOperands};
use crate::optimise::AdamSettings;
use crate::resnet::ResNet;

/// Pictures that stay may have this share of the device's memory, so that most is left for passes.
const SHARE_OF_LEVELS: usize = 4;

impl ImageBackend for Cuda {
    type Spectrum = Spectrum;
    type Levels = Memory;
    type BatchNormPrior = BatchNormPrior;

    fn lay_out_images(&self, queue: &mut Queue, length: usize) -> Result<(), DeviceError> {
        queue.lay_out_images(length)
    }

    fn flag_not_finite(&self, queue: &mut Queue, x: Matrix, bit: u32, flags: Matrix) {
        elementwise::flag_not_finite(queue, x, bit, flags);
    }

    fn room_for_levels(&self) -> usize {
        self.device.memory / SHARE_OF_LEVELS
    }

    fn levels(&self, parts: &[&[u8]]) -> Result<Memory, DeviceError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let memory = Memory::new(
            self.device.lane.stream.context(),
            bytes.div_ceil(size_of::<f32>()),
        )?;
        let mut start = 0;
        for part in parts {
            self.device.lane.stream.upload_bytes(part, &memory, start)?;
            start += part.len();
        }
        Ok(memory)
    }

    fn normalise_levels(
        &self,
        queue: &mut Queue,
        levels: &Memory,
        indices: Matrix,
        flips: Option<Matrix>,
        table: &Stored,
        side: usize,
        pixels: Matrix,
    ) {
        pixels::normalise_levels(queue, levels, indices, flips, table, side, pixels);
    }

    fn spectrum(
        &self,
        images: usize,
        size: [usize; 2],
        normalisation: ([f32; 3], [f32; 3]),
    ) -> Spectrum {
        Spectrum::new(self, images, size, normalisation)
    }

    fn spectrum_scratch(&self, images: usize, size: [usize; 2]) -> usize {
        Spectrum::scratch(images, size)
    }

    fn spectrum_images(
        &self,
        queue: &mut Queue,
        spectrum: &mut Spectrum,
        operands: SpectrumOperands,
    ) {
        spectrum.forward(queue, operands);
    }

    fn spectrum_backward(
        &self,
        queue: &mut Queue,
        spectrum: &mut Spectrum,
        gradients: SpectrumOperands,
    ) {
        spectrum.backward(queue, gradients);
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

    fn upload_warps(&self, queue: &mut Queue, changes: &[Affine], size: [usize; 2], maps: Matrix) {
        augment::upload_warps(queue, changes, size, maps);
    }

    fn warp(
        &self,
        queue: &mut Queue,
        source: Matrix,
        size: [usize; 2],
        maps: Matrix,
        target: Matrix,
    ) {
        augment::warp(queue, source, size, maps, target);
    }

    fn warp_adjoint(
        &self,
        queue: &mut Queue,
        dtarget: Matrix,
        size: [usize; 2],
        maps: Matrix,
        dsource: Matrix,
    ) {
        augment::warp_adjoint(queue, dtarget, size, maps, dsource);
    }

    fn recolour(&self, queue: &mut Queue, source: Matrix, lines: Matrix, target: Matrix) {
        augment::recolour(queue, source, lines, false, target);
    }

    fn recolour_adjoint(&self, queue: &mut Queue, dtarget: Matrix, lines: Matrix, dsource: Matrix) {
        augment::recolour(queue, dtarget, lines, true, dsource);
    }

    fn total_variation_weights(&self, images: usize, size: [usize; 2], weight: f32) -> Stored {
        self.vector(&pixels::total_variation_weights(images, size, weight))
    }

    fn total_variation(
        &self,
        queue: &mut Queue,
        pixels: Matrix,
        size: [usize; 2],
        weights: &Stored,
        dpixels: Option<Matrix>,
        loss: Matrix,
    ) {
        pixels::total_variation(queue, pixels, size, weights, dpixels, loss);
    }

    fn mean_norm(
        &self,
        queue: &mut Queue,
        pixels: Matrix,
        weight: f32,
        dpixels: Option<Matrix>,
        loss: Matrix,
    ) {
        pixels::mean_norm(queue, pixels, weight, dpixels, loss);
    }

    fn batch_norm_prior(&self, network: ResNet) -> BatchNormPrior {
        BatchNormPrior::new(self, network)
    }

    fn batch_norm_scratch(&self, prior: &BatchNormPrior, images: usize, size: [usize; 2]) -> usize {
        prior.scratch(images, size)
    }

    fn batch_norm(
        &self,
        queue: &mut Queue,
        prior: &mut BatchNormPrior,
        pixels: Matrix,
        size: [usize; 2],
        weight: f32,
        dpixels: Option<Matrix>,
        scratch: Matrix,
        loss: Matrix,
    ) {
        let terms = Terms {
            pixels,
            size,
            weight,
            dpixels,
            loss,
        };
        prior.queue(queue, terms, scratch);
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
