//! One image through the ResNet and back. Images do not meet here: what couples them are the statistics, see `prior`.

use super::convolution::PlaneSize;
use super::weights::{ResNet, Unit};
use crate::loss::{Moments, StatisticsTerm};
use std::ops::Range;

/// Where everything is in an image's memory, for one image size.
#[derive(Debug)]
pub(crate) struct ResNetPlan {
    pub size: PlaneSize,
    /// One for each unit, in the order of [`ResNet::units`].
    pub units: Vec<Place>,
    /// Output of the pooled stem, then of each block.
    pub outputs: Vec<Range<usize>>,
    /// Values kept of one image.
    pub kept_values: usize,
    /// Largest number of values of an activation, and of a convolution's patches.
    pub activation_values: usize,
    pub patch_values: usize,
}

/// Input size of a unit's convolution, and where its output (the BatchNorm's input) is kept.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub input: PlaneSize,
    pub kept: Range<usize>,
}

/// Buffers of one worker.
#[derive(Debug)]
pub(super) struct Scratch {
    patches: Vec<f32>,
    /// Three activations.
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl ResNetPlan {
    pub fn new(network: &ResNet, size: PlaneSize) -> Self {
        let mut plan = Self {
            size,
            units: Vec::new(),
            outputs: Vec::new(),
            kept_values: 0,
            activation_values: 3 * size[0] * size[1],
            patch_values: 0,
        };
        let stem = plan.place(&network.stem, size);
        let mut size = pooled_size(stem);
        plan.output(network.stem.convolution.output_channels, size);
        for block in &network.blocks {
            let mut inner = size;
            let mut channels = 0;
            for unit in &block.units {
                inner = plan.place(unit, inner);
                channels = unit.convolution.output_channels;
            }
            if let Some(unit) = &block.downsample {
                plan.place(unit, size);
            }
            size = inner;
            plan.output(channels, size);
        }
        plan
    }

    pub(super) fn scratch(&self) -> Scratch {
        let activation = || vec![0.0; self.activation_values];
        Scratch {
            patches: vec![0.0; self.patch_values],
            a: activation(),
            b: activation(),
            c: activation(),
        }
    }

    fn place(&mut self, unit: &Unit, input: PlaneSize) -> PlaneSize {
        let output = unit.convolution.output_size(input);
        let kept = self.keep(unit.convolution.output_channels * output[0] * output[1]);
        self.patch_values = self.patch_values.max(unit.convolution.patch_values(input));
        self.units.push(Place { input, kept });
        output
    }

    fn output(&mut self, channels: usize, size: PlaneSize) {
        let range = self.keep(channels * size[0] * size[1]);
        self.outputs.push(range);
    }

    fn keep(&mut self, values: usize) -> Range<usize> {
        let start = self.kept_values;
        self.kept_values += values;
        self.activation_values = self.activation_values.max(values);
        start..self.kept_values
    }

    /// Runs `image` `[3, height, width]`; overwrites `kept` with every BatchNorm's input and every block's output.
    pub(super) fn forward(
        &self,
        network: &ResNet,
        image: &[f32],
        kept: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { patches, a, b, .. } = scratch;
        let stem = &self.units[0];
        let unit = &network.stem;
        unit.convolution
            .forward(image, stem.input, patches, &mut kept[stem.kept.clone()]);
        let activation = &mut a[..stem.kept.len()];
        normalise(unit, &kept[stem.kept.clone()], activation);
        relu(activation);
        let stem_size = unit.convolution.output_size(stem.input);
        pool(activation, stem_size, &mut kept[self.outputs[0].clone()]);

        let mut next_unit = 1;
        for (index, block) in network.blocks.iter().enumerate() {
            let (input, output) = (&self.outputs[index], &self.outputs[index + 1]);
            // `a` carries the chain of units, `b` the shortcut.
            for (position, unit) in block.units.iter().enumerate() {
                let place = &self.units[next_unit];
                next_unit += 1;
                let (before, after) = kept.split_at_mut(place.kept.start);
                let target = &mut after[..place.kept.len()];
                let source = if position == 0 {
                    &before[input.clone()]
                } else {
                    &a[..unit.convolution.input_channels * place.input[0] * place.input[1]]
                };
                unit.convolution
                    .forward(source, place.input, patches, target);
                let activation = &mut a[..place.kept.len()];
                normalise(unit, target, activation);
                if position + 1 < block.units.len() {
                    relu(activation);
                }
            }
            let shortcut = if let Some(unit) = &block.downsample {
                let place = &self.units[next_unit];
                next_unit += 1;
                let (before, after) = kept.split_at_mut(place.kept.start);
                let target = &mut after[..place.kept.len()];
                unit.convolution
                    .forward(&before[input.clone()], place.input, patches, target);
                normalise(unit, target, &mut b[..place.kept.len()]);
                &b[..place.kept.len()]
            } else {
                &kept[input.clone()]
            };
            let sum = &mut a[..output.len()];
            let terms = sum.iter_mut().zip(shortcut);
            terms.for_each(|(value, short)| *value += short);
            relu(sum);
            kept[output.clone()].copy_from_slice(sum);
        }
    }

    /// Overwrites `moments`, one for each unit, with those of one image.
    pub fn moments(&self, kept: &[f32], moments: &mut [Moments]) {
        for (place, moments) in self.units.iter().zip(moments) {
            moments.of_planes(&kept[place.kept.clone()]);
        }
    }

    /// Output of the last block, `[channels, positions]`.
    pub fn last_output<'a>(&self, kept: &'a [f32]) -> &'a [f32] {
        self.outputs
            .last()
            .map_or(&[], |range| &kept[range.clone()])
    }

    /// Adds the gradient at the image of the sum of all `terms`, one for each unit, to `dimage`.
    pub(super) fn backward(
        &self,
        network: &ResNet,
        kept: &[f32],
        terms: &[StatisticsTerm],
        dimage: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { patches, a, b, c } = scratch;
        // `a`: gradient at a block's output, `b`: at its input, `c`: inside its chain of units.
        a.fill(0.0);
        let mut next_unit = self.units.len();
        for (index, block) in network.blocks.iter().enumerate().rev() {
            let (input, output) = (&self.outputs[index], &self.outputs[index + 1]);
            mask(&mut a[..output.len()], &kept[output.clone()]);
            b[..input.len()].fill(0.0);
            if let Some(unit) = &block.downsample {
                next_unit -= 1;
                let place = &self.units[next_unit];
                let dkept = &mut c[..place.kept.len()];
                dkept.copy_from_slice(&a[..place.kept.len()]);
                unnormalise(unit, &terms[next_unit], &kept[place.kept.clone()], dkept);
                unit.convolution
                    .backward(dkept, place.input, patches, &mut b[..input.len()]);
            } else {
                b[..input.len()].copy_from_slice(&a[..input.len()]);
            }
            for (position, unit) in block.units.iter().enumerate().rev() {
                next_unit -= 1;
                let place = &self.units[next_unit];
                let values = &kept[place.kept.clone()];
                let dkept = &mut a[..place.kept.len()];
                if position + 1 < block.units.len() {
                    mask_normalised(unit, values, dkept);
                }
                unnormalise(unit, &terms[next_unit], values, dkept);
                if position == 0 {
                    unit.convolution
                        .backward(dkept, place.input, patches, &mut b[..input.len()]);
                } else {
                    let count = unit.convolution.input_channels * place.input[0] * place.input[1];
                    c[..count].fill(0.0);
                    unit.convolution
                        .backward(dkept, place.input, patches, &mut c[..count]);
                    std::mem::swap(a, c);
                }
            }
            std::mem::swap(a, b);
        }
        let stem = &self.units[0];
        let values = &kept[stem.kept.clone()];
        let unit = &network.stem;
        let stem_size = unit.convolution.output_size(stem.input);
        let activation = &mut b[..stem.kept.len()];
        normalise(unit, values, activation);
        relu(activation);
        let dactivation = &mut c[..stem.kept.len()];
        dactivation.fill(0.0);
        pool_backward(
            activation,
            stem_size,
            &a[..self.outputs[0].len()],
            dactivation,
        );
        mask_normalised(unit, values, dactivation);
        unnormalise(unit, &terms[0], values, dactivation);
        unit.convolution
            .backward(dactivation, stem.input, patches, dimage);
    }
}

/// Values of each channel, with the channel.
fn planes(values: usize, channels: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let length = values / channels;
    (0..channels).map(move |channel| (channel, channel * length..(channel + 1) * length))
}

/// Overwrites `output` with the BatchNorm of `values`.
fn normalise(unit: &Unit, values: &[f32], output: &mut [f32]) {
    for (channel, plane) in planes(values.len(), unit.norm.scale.len()) {
        let (scale, shift) = (unit.norm.scale[channel], unit.norm.shift[channel]);
        let pairs = output[plane.clone()].iter_mut().zip(&values[plane]);
        pairs.for_each(|(slot, value)| *slot = scale * value + shift);
    }
}

/// Turns `gradient` at the BatchNorm's output into that at its input `values`, and adds that of the term.
fn unnormalise(unit: &Unit, term: &StatisticsTerm, values: &[f32], gradient: &mut [f32]) {
    for (channel, plane) in planes(values.len(), unit.norm.scale.len()) {
        let scale = unit.norm.scale[channel];
        let (constant, slope) = (term.constant[channel], term.slope[channel]);
        let pairs = gradient[plane.clone()].iter_mut().zip(&values[plane]);
        pairs.for_each(|(slot, value)| *slot = *slot * scale + (constant + slope * value));
    }
}

fn relu(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = value.max(0.0));
}

/// Zeroes `gradient` where the output of a ReLU is zero.
fn mask(gradient: &mut [f32], output: &[f32]) {
    for (slot, value) in gradient.iter_mut().zip(output) {
        if *value <= 0.0 {
            *slot = 0.0;
        }
    }
}

/// Zeroes `gradient` where the BatchNorm of `values` is not above zero.
fn mask_normalised(unit: &Unit, values: &[f32], gradient: &mut [f32]) {
    for (channel, plane) in planes(values.len(), unit.norm.scale.len()) {
        let (scale, shift) = (unit.norm.scale[channel], unit.norm.shift[channel]);
        for (slot, value) in gradient[plane.clone()].iter_mut().zip(&values[plane]) {
            if scale * value + shift <= 0.0 {
                *slot = 0.0;
            }
        }
    }
}

/// Size after the 3×3 maximum with stride 2 and padding 1.
fn pooled_size(size: PlaneSize) -> PlaneSize {
    size.map(|side| side.div_ceil(2))
}

/// Calls `visit(output index, index of the window's first largest value)`.
fn for_each_window(values: &[f32], size: PlaneSize, mut visit: impl FnMut(usize, usize)) {
    let [height, width] = size;
    let [rows, columns] = pooled_size(size);
    for plane in 0..values.len() / (height * width) {
        for row in 0..rows {
            let window_rows = (2 * row).saturating_sub(1)..(2 * row + 2).min(height);
            for column in 0..columns {
                let window_columns = (2 * column).saturating_sub(1)..(2 * column + 2).min(width);
                let mut largest =
                    (plane * height + window_rows.start) * width + window_columns.start;
                for y in window_rows.clone() {
                    for x in window_columns.clone() {
                        let index = (plane * height + y) * width + x;
                        if values[index] > values[largest] {
                            largest = index;
                        }
                    }
                }
                visit((plane * rows + row) * columns + column, largest);
            }
        }
    }
}

fn pool(values: &[f32], size: PlaneSize, output: &mut [f32]) {
    for_each_window(values, size, |to, from| output[to] = values[from]);
}

/// Adds to `dvalues`.
fn pool_backward(values: &[f32], size: PlaneSize, doutput: &[f32], dvalues: &mut [f32]) {
    for_each_window(values, size, |to, from| dvalues[from] += doutput[to]);
}
