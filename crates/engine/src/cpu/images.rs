//! The processor as an [`ImageBackend`]: the functions that images are made with, on views of a queue.

use super::Cpu;
use super::buffer::{Queue, View, ViewMut, views, views_with_optional};
use crate::augment::{
    Affine, RollFlip, recolour_planes, recolour_planes_adjoint, warp_images, warp_images_adjoint,
};
use crate::backend::{DeviceError, Matrix, halves};
use crate::image_backend::{
    AdamOperands, ChannelLimits, ImageBackend, SpectrumOperands, WARP_VALUES,
};
use crate::image_parameters::{Fourier, clamp_channels, normalise};
use crate::loss::{add_mean_norm, add_total_variation};
use crate::optimise::AdamSettings;
use crate::resnet::{BatchNormPrior, ResNet};

/// `[images, 3, height, width]` of a matrix of images.
///
/// # Panics
/// Where the matrix is not one of such images.
fn shape(images: Matrix, [height, width]: [usize; 2]) -> [usize; 4] {
    assert_eq!(images.columns, 3 * height * width, "{images:?}");
    [images.rows, 3, height, width]
}

fn dense<'a>(view: View<'a>) -> &'a [f32] {
    assert!(view.stride == view.columns || view.rows <= 1);
    view.values
}

fn dense_mut<'a>(view: ViewMut<'a>) -> &'a mut [f32] {
    assert!(view.stride == view.columns || view.rows <= 1);
    view.values
}

fn bits<const COUNT: usize>(view: View<'_>) -> [u32; COUNT] {
    std::array::from_fn(|index| view.values[index].to_bits())
}

/// The changes that [`ImageBackend::upload_warps`] has kept.
fn warps(maps: View<'_>) -> Vec<Affine> {
    let numbers = |row: usize| std::array::from_fn(|index| maps.row(row)[index]);
    (0..maps.rows)
        .map(|row| Affine::of_numbers(numbers(row)))
        .collect()
}

fn lines<'a>(lines: View<'a>) -> &'a [[f32; 2]] {
    assert_eq!(lines.columns, 6);
    dense(lines).as_chunks().0
}

/// Overwrites `loss` with what `prior` makes of the pixels, which it may add a gradient to.
fn pixel_loss(
    queue: &mut Queue,
    pixels: Matrix,
    dpixels: Option<Matrix>,
    loss: Matrix,
    prior: impl FnOnce(&[f32], Option<&mut [f32]>) -> f64,
) {
    let (loss, value) = match dpixels {
        Some(dpixels) => {
            let ([loss, dpixels], [pixels]) = views(queue, [loss, dpixels], [pixels]);
            (loss, prior(dense(pixels), Some(dense_mut(dpixels))))
        }
        None => {
            let ([loss], [pixels]) = views(queue, [loss], [pixels]);
            (loss, prior(dense(pixels), None))
        }
    };
    loss.values.copy_from_slice(&halves(value));
}

/// The transform with what images are normalised with.
pub struct Spectrum {
    fourier: Fourier,
    normalisation: ([f32; 3], [f32; 3]),
    /// Values of a plane.
    plane: usize,
}

impl ImageBackend for Cpu {
    type Spectrum = Spectrum;
    type Levels = Vec<u8>;
    type BatchNormPrior = BatchNormPrior;

    fn lay_out_images(&self, queue: &mut Queue, length: usize) -> Result<(), DeviceError> {
        queue.lay_out_images(length);
        Ok(())
    }

    fn flag_not_finite(&self, queue: &mut Queue, x: Matrix, bit: u32, flags: Matrix) {
        let ([flags], [x]) = views(queue, [flags], [x]);
        let finite = dense(x).chunks(4096).all(|chunk| {
            chunk
                .iter()
                .fold(true, |all, value| all & value.is_finite())
        });
        if !finite {
            flags.values[0] = f32::from_bits(flags.values[0].to_bits() | bit);
        }
    }

    fn room_for_levels(&self) -> usize {
        0
    }

    fn levels(&self, parts: &[&[u8]]) -> Result<Vec<u8>, DeviceError> {
        Ok(parts.concat())
    }

    fn normalise_levels(
        &self,
        queue: &mut Queue,
        levels: &Vec<u8>,
        indices: Matrix,
        flips: Option<Matrix>,
        table: &Vec<f32>,
        side: usize,
        pixels: Matrix,
    ) {
        let image = 3 * side * side;
        assert_eq!((indices.rows, pixels.columns), (pixels.rows, image));
        let ([mut pixels], ([indices], flips)) =
            views_with_optional(queue, [pixels], [indices], flips);
        for row in 0..pixels.rows {
            let picture = &levels[indices.index(row) * image..][..image];
            let target = pixels.row(row);
            for (index, (value, &level)) in target.iter_mut().zip(picture).enumerate() {
                *value = table[index / (side * side) * 256 + usize::from(level)];
            }
            if flips.is_some_and(|flips| flips.index(row) != 0) {
                target.chunks_exact_mut(side).for_each(<[f32]>::reverse);
            }
        }
    }

    fn spectrum(
        &self,
        images: usize,
        [height, width]: [usize; 2],
        normalisation: ([f32; 3], [f32; 3]),
    ) -> Spectrum {
        Spectrum {
            fourier: Fourier::new(3 * images, height, width),
            normalisation,
            plane: height * width,
        }
    }

    fn spectrum_scratch(&self, _images: usize, _size: [usize; 2]) -> usize {
        0
    }

    fn spectrum_images(
        &self,
        queue: &mut Queue,
        spectrum: &mut Spectrum,
        operands: SpectrumOperands,
    ) {
        let ([levels, images], [parameters]) = views(
            queue,
            [operands.levels, operands.images],
            [operands.parameters],
        );
        let (levels, images) = (dense_mut(levels), dense_mut(images));
        spectrum.fourier.levels(dense(parameters), levels);
        images.copy_from_slice(levels);
        normalise(images, spectrum.plane, spectrum.normalisation);
    }

    fn spectrum_backward(
        &self,
        queue: &mut Queue,
        spectrum: &mut Spectrum,
        gradients: SpectrumOperands,
    ) {
        let ([dparameters], [dimages, levels]) = views(
            queue,
            [gradients.parameters],
            [gradients.images, gradients.levels],
        );
        let (dimages, levels) = (dense(dimages), dense(levels));
        let (_, deviation) = spectrum.normalisation;
        let dparameters = dense_mut(dparameters);
        spectrum
            .fourier
            .backward(dimages, levels, deviation, dparameters);
    }

    fn roll_flip(
        &self,
        queue: &mut Queue,
        source: Matrix,
        size: [usize; 2],
        draw: Matrix,
        target: Matrix,
    ) {
        let shape = shape(source, size);
        let ([target], [source, draw]) = views(queue, [target], [source, draw]);
        RollFlip::of_numbers(bits(draw)).forward(dense(source), shape, dense_mut(target));
    }

    fn roll_flip_adjoint(
        &self,
        queue: &mut Queue,
        dtarget: Matrix,
        size: [usize; 2],
        draw: Matrix,
        dsource: Matrix,
    ) {
        let shape = shape(dtarget, size);
        let ([dsource], [dtarget, draw]) = views(queue, [dsource], [dtarget, draw]);
        RollFlip::of_numbers(bits(draw)).backward(dense(dtarget), shape, dense_mut(dsource));
    }

    fn upload_warps(&self, queue: &mut Queue, changes: &[Affine], _size: [usize; 2], maps: Matrix) {
        assert_eq!((maps.rows, maps.columns), (changes.len(), WARP_VALUES));
        let ([mut maps], []) = views(queue, [maps], []);
        for (row, change) in changes.iter().enumerate() {
            maps.row(row)[..4].copy_from_slice(&change.numbers());
        }
    }

    fn warp(
        &self,
        queue: &mut Queue,
        source: Matrix,
        size: [usize; 2],
        maps: Matrix,
        target: Matrix,
    ) {
        let shape = shape(source, size);
        let ([target], [source, maps]) = views(queue, [target], [source, maps]);
        warp_images(dense(source), shape, &warps(maps), dense_mut(target));
    }

    fn warp_adjoint(
        &self,
        queue: &mut Queue,
        dtarget: Matrix,
        size: [usize; 2],
        maps: Matrix,
        dsource: Matrix,
    ) {
        let shape = shape(dtarget, size);
        let ([dsource], [dtarget, maps]) = views(queue, [dsource], [dtarget, maps]);
        warp_images_adjoint(dense(dtarget), shape, &warps(maps), dense_mut(dsource));
    }

    fn recolour(&self, queue: &mut Queue, source: Matrix, colours: Matrix, target: Matrix) {
        let plane = source.columns / 3;
        let ([target], [source, colours]) = views(queue, [target], [source, colours]);
        recolour_planes(dense(source), plane, lines(colours), dense_mut(target));
    }

    fn recolour_adjoint(
        &self,
        queue: &mut Queue,
        dtarget: Matrix,
        colours: Matrix,
        dsource: Matrix,
    ) {
        let plane = dtarget.columns / 3;
        let ([dsource], [dtarget, colours]) = views(queue, [dsource], [dtarget, colours]);
        recolour_planes_adjoint(dense(dtarget), plane, lines(colours), dense_mut(dsource));
    }

    fn total_variation_weights(&self, _images: usize, _size: [usize; 2], weight: f32) -> Vec<f32> {
        vec![weight]
    }

    fn total_variation(
        &self,
        queue: &mut Queue,
        pixels: Matrix,
        size: [usize; 2],
        weights: &Vec<f32>,
        dpixels: Option<Matrix>,
        loss: Matrix,
    ) {
        let shape = shape(pixels, size);
        pixel_loss(queue, pixels, dpixels, loss, |pixels, dpixels| {
            add_total_variation(pixels, shape, weights[0], dpixels)
        });
    }

    fn mean_norm(
        &self,
        queue: &mut Queue,
        pixels: Matrix,
        weight: f32,
        dpixels: Option<Matrix>,
        loss: Matrix,
    ) {
        let shape = [pixels.rows, pixels.columns];
        pixel_loss(queue, pixels, dpixels, loss, |pixels, dpixels| {
            add_mean_norm(pixels, shape, weight, dpixels)
        });
    }

    fn batch_norm_prior(&self, network: ResNet) -> BatchNormPrior {
        BatchNormPrior::new(network)
    }

    fn batch_norm_scratch(
        &self,
        _prior: &BatchNormPrior,
        _images: usize,
        _size: [usize; 2],
    ) -> usize {
        0
    }

    fn batch_norm(
        &self,
        queue: &mut Queue,
        prior: &mut BatchNormPrior,
        pixels: Matrix,
        size: [usize; 2],
        weight: f32,
        dpixels: Option<Matrix>,
        _scratch: Matrix,
        loss: Matrix,
    ) {
        let shape = shape(pixels, size);
        pixel_loss(queue, pixels, dpixels, loss, |pixels, dpixels| {
            prior.add_loss(pixels, shape, weight, dpixels)
        });
    }

    fn adam(
        &self,
        queue: &mut Queue,
        operands: AdamOperands,
        settings: &AdamSettings,
        limits: Option<ChannelLimits<'_, Vec<f32>>>,
    ) {
        let ([values, first, second], [gradient, rates, flags]) = views(
            queue,
            [operands.values, operands.first, operands.second],
            [operands.gradient, operands.rates, operands.flags],
        );
        if bits(flags) != [0] {
            return;
        }
        let (values, first, second) = (dense_mut(values), dense_mut(first), dense_mut(second));
        let rates = [rates.values[0], rates.values[1]];
        settings.step(values, dense(gradient), first, second, rates);
        if let Some(ChannelLimits { limits, plane }) = limits {
            clamp_channels(values, plane, limits.as_chunks::<2>().0);
        }
    }
}
