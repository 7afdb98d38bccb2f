//! The processor as an [`ImageBackend`]: the functions that images are made with, on views of a queue.

use super::Cpu;
use super::buffer::{Queue, View, ViewMut, views};
use crate::augment::RollFlip;
use crate::backend::{DeviceError, Matrix};
use crate::image_backend::{AdamOperands, ChannelLimits, ImageBackend};
use crate::image_parameters::clamp_channels;
use crate::optimise::AdamSettings;

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

impl ImageBackend for Cpu {
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
