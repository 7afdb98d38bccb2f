//! Images as a Fourier spectrum: the sums of the transform are products with two matrices, exact in `f32` whatever the precision of
//! others, since ten bits of fraction would show in pictures.

use super::Cuda;
use super::geometry::{by_value, count, int};
use super::kernels::{LevelsBackward, LevelsForward, ScaleSpectrum, ScaleSpectrumBackward};
use super::product::Repeat;
use super::queue::{Queue, Stored};
use crate::backend::{Backend, Matrix};
use crate::image_backend::SpectrumOperands;
use crate::image_parameters::frequency_scale;
use std::f64::consts::TAU;

/// Tables of the transform, as `spectrum.cu` has them.
pub struct Spectrum {
    /// `[height, half]`
    scale: Stored,
    /// `[height, 2·height]`: cosines, then sines.
    along_columns: Stored,
    /// `[2·half, width]`: a line for the real and one for the imaginary part of each frequency.
    along_rows: Stored,
    /// `[3]`
    mean: Stored,
    /// `[3]`
    deviation: Stored,
    planes: usize,
    size: [usize; 2],
}

/// Frequencies along a row.
fn half(width: usize) -> usize {
    width / 2 + 1
}

/// The angle of `frequency` at `place` of `side`.
fn angle(frequency: usize, place: usize, side: usize) -> f64 {
    TAU * (frequency * place % side) as f64 / side as f64
}

fn along_columns(height: usize) -> Vec<f32> {
    let lines = (0..height).flat_map(|y| {
        let cosines = (0..height).map(move |k| angle(k, y, height).cos() as f32);
        cosines.chain((0..height).map(move |k| angle(k, y, height).sin() as f32))
    });
    lines.collect()
}

fn along_rows(width: usize) -> Vec<f32> {
    let lines = (0..half(width)).flat_map(|l| {
        // A frequency and its mirror are one parameter.
        let copies = if l == 0 || 2 * l == width { 1.0 } else { 2.0 };
        let real = (0..width).map(move |x| (copies * angle(l, x, width).cos()) as f32);
        real.chain((0..width).map(move |x| (-copies * angle(l, x, width).sin()) as f32))
    });
    lines.collect()
}

/// The parts of the scratch.
struct Parts {
    /// `[planes·2·height, 2·half]`
    stacked: Matrix,
    /// `[planes·height, 2·half]`
    columns: Matrix,
}

impl Spectrum {
    /// For `images` images of `size` `[height, width]`.
    pub fn new(
        cuda: &Cuda,
        images: usize,
        size: [usize; 2],
        (mean, deviation): ([f32; 3], [f32; 3]),
    ) -> Self {
        let [height, width] = size;
        Self {
            scale: cuda.vector(&frequency_scale(height, width)),
            along_columns: cuda.vector(&along_columns(height)),
            along_rows: cuda.vector(&along_rows(width)),
            mean: cuda.vector(&mean),
            deviation: cuda.vector(&deviation),
            planes: 3 * images,
            size,
        }
    }

    /// Values of scratch.
    pub fn scratch(images: usize, [height, width]: [usize; 2]) -> usize {
        3 * images * 3 * height * 2 * half(width)
    }

    fn parts(&self, operands: &SpectrumOperands) -> Parts {
        let ([height, width], planes) = (self.size, self.planes);
        let whole = operands.scratch;
        let (pixels, parameters) = (planes * height * width, planes * height * 2 * half(width));
        assert_eq!(operands.images.rows * operands.images.columns, pixels);
        assert_eq!(operands.levels.rows * operands.levels.columns, pixels);
        assert_eq!(operands.parameters.columns, parameters);
        assert_eq!((whole.rows, whole.columns), (1, 3 * parameters));
        let rows = |start: usize, rows: usize| Matrix {
            start: whole.start + start,
            rows,
            columns: 2 * half(width),
            stride: 2 * half(width),
            ..whole
        };
        Parts {
            stacked: rows(0, 2 * planes * height),
            columns: rows(2 * parameters, planes * height),
        }
    }

    /// The same values as rows of pixels.
    fn lines(&self, images: Matrix) -> Matrix {
        let [height, width] = self.size;
        Matrix {
            rows: self.planes * height,
            columns: width,
            stride: width,
            ..images
        }
    }

    /// The first step of a product by plane: places from one plane to the next of `stacked` and `columns`.
    fn steps(&self) -> [usize; 2] {
        let step = self.size[0] * 2 * half(self.size[1]);
        [2 * step, step]
    }

    /// As [`crate::image_backend::ImageBackend::spectrum_images`].
    pub fn forward(&self, queue: &mut Queue, operands: SpectrumOperands) {
        let ([height, width], parts) = (self.size, self.parts(&operands));
        let frequencies = height * half(width);
        let values = self.planes * frequencies;
        let kernel = ScaleSpectrum {
            spectrum: queue.values(operands.parameters),
            scale: queue.vector(&self.scale, frequencies),
            stacked: queue.values_mut(parts.stacked),
            count: count(values),
            height: int(height),
            half: int(half(width)),
        };
        queue.launch(by_value(values), &kernel);
        let [stacked, columns] = self.steps();
        let by_plane = Repeat {
            count: self.planes,
            a: 0,
            b: stacked,
            c: columns,
        };
        let a = queue.stored_operand(&self.along_columns, 0, [height, 2 * height], false);
        let b = queue.operand(parts.stacked, false);
        queue.exact_products(a, b, 2 * height, parts.columns, by_plane);
        let a = queue.operand(parts.columns, false);
        let b = queue.stored_operand(&self.along_rows, 0, [2 * half(width), width], false);
        let lines = self.lines(operands.levels);
        queue.exact_products(a, b, 2 * half(width), lines, Repeat::ONCE);
        let pixels = self.planes * height * width;
        let kernel = LevelsForward {
            values: queue.values(operands.levels),
            mean: queue.vector(&self.mean, 3),
            deviation: queue.vector(&self.deviation, 3),
            levels: queue.values_mut(operands.levels),
            images: queue.values_mut(operands.images),
            count: count(pixels),
            plane: int(height * width),
        };
        queue.launch(by_value(pixels), &kernel);
    }

    /// As [`crate::image_backend::ImageBackend::spectrum_backward`].
    pub fn backward(&self, queue: &mut Queue, gradients: SpectrumOperands) {
        let ([height, width], parts) = (self.size, self.parts(&gradients));
        let pixels = self.planes * height * width;
        // Gradients before the sigmoid; what is stacked overwrites them later.
        let dvalues = self.lines(parts.stacked);
        let kernel = LevelsBackward {
            dimages: queue.values(gradients.images),
            levels: queue.values(gradients.levels),
            deviation: queue.vector(&self.deviation, 3),
            dvalues: queue.values_mut(dvalues),
            count: count(pixels),
            plane: int(height * width),
        };
        queue.launch(by_value(pixels), &kernel);
        let a = queue.operand(dvalues, false);
        let b = queue.stored_operand(&self.along_rows, 0, [2 * half(width), width], true);
        queue.exact_products(a, b, width, parts.columns, Repeat::ONCE);
        let [stacked, columns] = self.steps();
        let by_plane = Repeat {
            count: self.planes,
            a: 0,
            b: columns,
            c: stacked,
        };
        let a = queue.stored_operand(&self.along_columns, 0, [height, 2 * height], true);
        let b = queue.operand(parts.columns, false);
        queue.exact_products(a, b, height, parts.stacked, by_plane);
        let frequencies = height * half(width);
        let values = self.planes * frequencies;
        let kernel = ScaleSpectrumBackward {
            dstacked: queue.values(parts.stacked),
            scale: queue.vector(&self.scale, frequencies),
            dspectrum: queue.values_mut(gradients.parameters),
            count: count(values),
            height: int(height),
            half: int(half(width)),
        };
        queue.launch(by_value(values), &kernel);
    }
}
