//! Convolutions as products over unfolded patches, all images of a batch at once.

use super::Cuda;
use super::geometry::{by_row, int};
use super::kernels::{Fold, Unfold};
use super::queue::{Queue, Stored};
use crate::backend::{Backend, Matrix};
use crate::resnet::{Convolution as Shape, PlaneSize};

/// Activations `[images·height·width, channels]`, or images `[images, channels, height, width]`.
#[derive(Clone, Copy)]
pub struct Maps {
    /// Without gaps.
    pub at: Matrix,
    /// Height and width.
    pub size: PlaneSize,
    /// Whether the channels of an image lie one after another.
    pub by_channel: bool,
}

impl Maps {
    /// Values from one image, line, pixel and channel to the next.
    fn strides(self, channels: usize) -> [i32; 4] {
        let [height, width] = self.size;
        let (line, pixel, channel) = match self.by_channel {
            true => (width, 1, height * width),
            false => (width * channels, channels, 1),
        };
        [channels * height * width, line, pixel, channel].map(int)
    }

    fn images(self, channels: usize) -> usize {
        self.at.rows * self.at.columns / (channels * self.size[0] * self.size[1])
    }
}

/// The first values of `area` as a matrix without gaps.
pub fn first_of(area: Matrix, rows: usize, columns: usize) -> Matrix {
    assert!(rows * columns <= area.columns, "{area:?} is too small");
    Matrix {
        rows,
        columns,
        stride: columns,
        ..area
    }
}

/// A weight on the device, `[out, kernel row, kernel column, in]`.
pub struct Convolution(Stored);

impl Convolution {
    /// Copies `weight` `[out, in, kernel, kernel]` of a convolution of this shape.
    pub fn new(cuda: &Cuda, shape: &Shape, weight: &[f32]) -> Self {
        let (taps, inputs) = (shape.kernel * shape.kernel, shape.input_channels);
        let rows = weight.chunks_exact(taps * inputs);
        let values: Vec<f32> = rows
            .flat_map(|row| (0..taps * inputs).map(|i| row[i % inputs * taps + i / inputs]))
            .collect();
        Self(cuda.vector(&values))
    }

    /// Overwrites `y` `[images·positions, out]`. `patches` is one row.
    pub fn forward(&self, queue: &mut Queue, shape: &Shape, x: Maps, patches: Matrix, y: Matrix) {
        let depth = shape.depth();
        let unfolded = match shape.is_pointwise() && !x.by_channel {
            true => x.at,
            false => {
                let patches = first_of(patches, y.rows, depth);
                let [image, line, pixel, channel] = x.strides(shape.input_channels);
                let kernel = Unfold {
                    x: queue.values(x.at),
                    image_stride: image,
                    line_stride: line,
                    pixel_stride: pixel,
                    channel_stride: channel,
                    patches: queue.values_mut(patches),
                    height: int(x.size[0]),
                    width: int(x.size[1]),
                    channels: int(shape.input_channels),
                    kernel: int(shape.kernel),
                    step: int(shape.stride),
                };
                queue.launch(by_row(y.rows, depth), &kernel);
                patches
            }
        };
        let a = queue.operand(unfolded, false);
        let b = queue.stored_operand(&self.0, 0, [shape.output_channels, depth], true);
        queue.product(a, b, depth, 1.0, y, false);
    }

    /// Adds the gradient at the input to `dx`.
    pub fn backward(
        &self,
        queue: &mut Queue,
        shape: &Shape,
        dy: Matrix,
        patches: Matrix,
        dx: Maps,
    ) {
        let (depth, outputs) = (shape.depth(), shape.output_channels);
        let a = queue.operand(dy, false);
        let b = queue.stored_operand(&self.0, 0, [outputs, depth], false);
        if shape.is_pointwise() && !dx.by_channel {
            queue.product(a, b, outputs, 1.0, dx.at, true);
            return;
        }
        let dpatches = first_of(patches, dy.rows, depth);
        queue.product(a, b, outputs, 1.0, dpatches, false);
        let [image, line, pixel, channel] = dx.strides(shape.input_channels);
        let kernel = Fold {
            dpatches: queue.values(dpatches),
            dx: queue.values_mut(dx.at),
            image_stride: image,
            line_stride: line,
            pixel_stride: pixel,
            channel_stride: channel,
            height: int(dx.size[0]),
            width: int(dx.size[1]),
            channels: int(shape.input_channels),
            kernel: int(shape.kernel),
            step: int(shape.stride),
        };
        let pixels = dx.images(shape.input_channels) * dx.size[0] * dx.size[1];
        queue.launch(by_row(pixels, shape.input_channels), &kernel);
    }
}
