//! Convolution of one image as a matrix product over unfolded patches, with its gradient at the input.

use crate::matrix::{Layout, product};

/// A square kernel without bias, padded by half its side, as torchvision's ResNets use it.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// `[output_channels, input_channels, kernel, kernel]`
    pub weight: Vec<f32>,
    pub input_channels: usize,
    pub output_channels: usize,
    pub kernel: usize,
    pub stride: usize,
}

/// Height and width of planes.
pub(crate) type PlaneSize = [usize; 2];

impl Convolution {
    /// Size of the output planes.
    pub fn output_size(&self, input: PlaneSize) -> PlaneSize {
        // With padding kernel / 2 and an odd kernel the output starts at every `stride`-th pixel.
        input.map(|side| side.div_ceil(self.stride))
    }

    /// Values that [`Self::forward`] and [`Self::backward`] need for patches: none for a 1×1 kernel with stride 1.
    pub fn patch_values(&self, input: PlaneSize) -> usize {
        if self.is_pointwise() {
            return 0;
        }
        self.depth() * self.output_size(input).iter().product::<usize>()
    }

    /// Overwrites `output` `[output_channels, …]` from `input` `[input_channels, height, width]`.
    pub fn forward(&self, input: &[f32], size: PlaneSize, patches: &mut [f32], output: &mut [f32]) {
        let positions = self.output_size(size).iter().product();
        output.fill(0.0);
        let unfolded = if self.is_pointwise() {
            input
        } else {
            let patches = &mut patches[..self.depth() * positions];
            self.unfold(input, size, patches);
            patches
        };
        product(
            output,
            [self.output_channels, positions, self.depth()],
            (&self.weight, Layout::Plain),
            (unfolded, Layout::Plain),
        );
    }

    /// Adds the gradient at the input to `dinput` `[input_channels, height, width]`.
    pub fn backward(
        &self,
        doutput: &[f32],
        size: PlaneSize,
        patches: &mut [f32],
        dinput: &mut [f32],
    ) {
        let positions = self.output_size(size).iter().product();
        let sizes = [self.depth(), positions, self.output_channels];
        let weight = (self.weight.as_slice(), Layout::Transposed);
        if self.is_pointwise() {
            product(dinput, sizes, weight, (doutput, Layout::Plain));
            return;
        }
        let dpatches = &mut patches[..self.depth() * positions];
        dpatches.fill(0.0);
        product(dpatches, sizes, weight, (doutput, Layout::Plain));
        self.fold(dpatches, size, dinput);
    }

    /// Whether a pixel is its own patch.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1
    }

    /// Values of one patch.
    pub fn depth(&self) -> usize {
        self.input_channels * self.kernel * self.kernel
    }

    /// Copies patches into `[input_channels · kernel · kernel, output positions]`, zero outside the image.
    fn unfold(&self, input: &[f32], size: PlaneSize, patches: &mut [f32]) {
        patches.fill(0.0);
        self.for_each_row(size, |from, to, count| {
            let source = input[from..].iter().step_by(self.stride);
            for (slot, value) in patches[to..to + count].iter_mut().zip(source) {
                *slot = *value;
            }
        });
    }

    /// The adjoint of [`Self::unfold`]: adds patches into the image.
    fn fold(&self, dpatches: &[f32], size: PlaneSize, dinput: &mut [f32]) {
        self.for_each_row(size, |from, to, count| {
            let target = dinput[from..].iter_mut().step_by(self.stride);
            for (slot, value) in target.zip(&dpatches[to..to + count]) {
                *slot += value;
            }
        });
    }

    /// Calls `visit(first index in the image, first index in the patches, count)` for every run of output positions in a row
    /// whose tap lies inside the image; the image index advances by the stride.
    fn for_each_row(&self, [height, width]: PlaneSize, mut visit: impl FnMut(usize, usize, usize)) {
        let [output_height, output_width] = self.output_size([height, width]);
        let padding = self.kernel / 2;
        // Output positions from `first` on read inside the axis, `count` of them.
        let inside = |tap: usize, side: usize, outputs: usize| {
            let first = padding.saturating_sub(tap).div_ceil(self.stride);
            let end = (side + padding).saturating_sub(tap).div_ceil(self.stride);
            (first, end.min(outputs).saturating_sub(first))
        };
        for channel in 0..self.input_channels {
            for tap_row in 0..self.kernel {
                let (first_row, rows) = inside(tap_row, height, output_height);
                for tap_column in 0..self.kernel {
                    let (first, count) = inside(tap_column, width, output_width);
                    if count == 0 {
                        continue;
                    }
                    let tap = (channel * self.kernel + tap_row) * self.kernel + tap_column;
                    for row in first_row..first_row + rows {
                        let image_row = row * self.stride + tap_row - padding;
                        let image_column = first * self.stride + tap_column - padding;
                        let from = (channel * height + image_row) * width + image_column;
                        let to = (tap * output_height + row) * output_width + first;
                        visit(from, to, count);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_near, noise};

    fn plain(convolution: &Convolution, input: &[f32], [height, width]: PlaneSize) -> Vec<f64> {
        let [rows, columns] = convolution.output_size([height, width]);
        let (kernel, padding) = (convolution.kernel, (convolution.kernel / 2) as isize);
        let mut output = vec![0.0; convolution.output_channels * rows * columns];
        for (index, value) in output.iter_mut().enumerate() {
            let (o, y, x) = (
                index / (rows * columns),
                index / columns % rows,
                index % columns,
            );
            for i in 0..convolution.input_channels {
                for ky in 0..kernel {
                    for kx in 0..kernel {
                        let from_y = (y * convolution.stride + ky) as isize - padding;
                        let from_x = (x * convolution.stride + kx) as isize - padding;
                        let inside = (0..height as isize).contains(&from_y)
                            && (0..width as isize).contains(&from_x);
                        if inside {
                            let from = (i * height + from_y as usize) * width + from_x as usize;
                            let tap =
                                ((o * convolution.input_channels + i) * kernel + ky) * kernel + kx;
                            *value += f64::from(input[from]) * f64::from(convolution.weight[tap]);
                        }
                    }
                }
            }
        }
        output
    }

    proptest! {
        #[test]
        fn convolution_equals_the_plain_loops_and_its_backward_is_the_adjoint(
            height in 1usize..10, width in 1usize..10, input_channels in 1usize..4, output_channels in 1usize..4,
            half in 0usize..4, stride in 1usize..3, seed in 0u64..1000,
        ) {
            let kernel = 2 * half + 1;
            let convolution = Convolution {
                weight: noise(seed, output_channels * input_channels * kernel * kernel),
                input_channels,
                output_channels,
                kernel,
                stride,
            };
            let size = [height, width];
            let input = noise(seed + 1, input_channels * height * width);
            let mut patches = vec![f32::NAN; convolution.patch_values(size)];
            let outputs = convolution.output_size(size).iter().product::<usize>() * output_channels;
            let mut output = vec![f32::NAN; outputs];
            convolution.forward(&input, size, &mut patches, &mut output);
            for (found, expected) in output.iter().zip(plain(&convolution, &input, size)) {
                assert_near("output", *found, expected, 1e-5);
            }
            let doutput = noise(seed + 2, outputs);
            let start = noise(seed + 3, input.len());
            let mut dinput = start.clone();
            convolution.backward(&doutput, size, &mut patches, &mut dinput);
            let left: f64 = output.iter().zip(&doutput).map(|(a, b)| f64::from(a * b)).sum();
            let added = dinput.iter().zip(&start).zip(&input);
            let right: f64 = added.map(|((d, s), x)| f64::from(d - s) * f64::from(*x)).sum();
            prop_assert!((left - right).abs() < 1e-3, "{left} {right}");
        }
    }
}
