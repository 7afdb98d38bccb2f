//! The BatchNorm prior: a ResNet forward, the statistics of the whole batch, and backward, queued without waiting. As
//! `crate::resnet` does it image by image; here all images go at once and channels lie side by side.

use super::Cuda;
use super::convolution::{Convolution, Maps, first_of};
use super::geometry::{by_row, by_value, count, int, one_block};
use super::kernels::{
    BatchNorm, BatchNormBackward, MaxPool, MaxPoolBackward, ReluBackward, StatisticsTerm, Values,
};
use super::queue::{Queue, Stored};
use super::{elementwise, moments, pixels};
use crate::backend::{Backend, Matrix};
use crate::resnet::{PlaneSize, ResNet, ResNetPlan, Unit as Shape};

/// A ResNet on the device.
pub struct BatchNormPrior {
    /// Its shapes; the weights of the convolutions are in `units`.
    network: ResNet,
    /// In the order of [`ResNet::units`].
    units: Vec<Unit>,
}

/// A convolution and the BatchNorm after it, each `[channels]`.
struct Unit {
    convolution: Convolution,
    scale: Stored,
    shift: Stored,
    mean: Stored,
    variance: Stored,
}

/// What the prior is of, and where its results go.
#[derive(Clone, Copy)]
pub struct Terms {
    /// `[images, 3·height·width]`
    pub pixels: Matrix,
    /// Height and width.
    pub size: PlaneSize,
    /// Of the gradient.
    pub weight: f32,
    /// Is added to.
    pub dpixels: Option<Matrix>,
    /// `[1, 2]`
    pub loss: Matrix,
}

impl BatchNormPrior {
    /// Copies the weights.
    pub fn new(cuda: &Cuda, mut network: ResNet) -> Self {
        let weights = network.take_weights();
        let units = network.units().zip(weights);
        let units = units.map(|(unit, weight)| Unit {
            convolution: Convolution::new(cuda, &unit.convolution, &weight),
            scale: cuda.vector(&unit.norm.scale),
            shift: cuda.vector(&unit.norm.shift),
            mean: cuda.vector(&unit.norm.running_mean),
            variance: cuda.vector(&unit.norm.running_variance),
        });
        Self {
            units: units.collect(),
            network,
        }
    }

    /// Values of scratch.
    pub fn scratch(&self, images: usize, size: PlaneSize) -> usize {
        let plan = ResNetPlan::new(&self.network, size);
        Parts::new(&self.network, &plan, images, None).length
    }

    /// Queues the prior.
    pub fn queue(&self, queue: &mut Queue, terms: Terms, scratch: Matrix) {
        let plan = ResNetPlan::new(&self.network, terms.size);
        let parts = Parts::new(&self.network, &plan, terms.pixels.rows, Some(scratch));
        let pass = Pass {
            prior: self,
            shapes: self.network.units().collect(),
            plan: &plan,
            parts: &parts,
            images: terms.pixels.rows,
        };
        pass.forward(queue, terms.pixels, terms.size);
        pass.terms(queue, terms.weight);
        let losses = queue.doubles(parts.losses);
        pixels::sum_parts(queue, losses, self.units.len(), terms.loss);
        if let Some(dpixels) = terms.dpixels {
            pass.backward(queue, dpixels, terms.size);
        }
    }
}

/// The parts of the scratch, each one row.
struct Parts {
    /// Sums of each unit, then its loss, as `f64`.
    sums: Vec<Matrix>,
    losses: Matrix,
    /// Lines of the gradient of the statistics, one a unit.
    offsets: Vec<Matrix>,
    slopes: Vec<Matrix>,
    /// All that a [`ResNetPlan`] keeps, of all images.
    kept: Matrix,
    /// Three activations, and the patches of a convolution.
    a: Matrix,
    b: Matrix,
    c: Matrix,
    patches: Matrix,
    length: usize,
}

impl Parts {
    /// In `scratch`, or anywhere, to find out the length.
    fn new(network: &ResNet, plan: &ResNetPlan, images: usize, scratch: Option<Matrix>) -> Self {
        let mut next = 0;
        let anywhere = Matrix {
            region: crate::backend::Region::Images,
            start: 0,
            rows: 1,
            columns: usize::MAX,
            stride: usize::MAX,
        };
        let whole = scratch.unwrap_or(anywhere);
        let mut take = |length: usize| {
            let start = whole.start + next;
            next += length;
            assert!(next <= whole.columns, "{whole:?} is too small");
            Matrix {
                start,
                columns: length,
                stride: length,
                ..whole
            }
        };
        let channels: Vec<usize> = network
            .units()
            .map(|unit| unit.convolution.output_channels)
            .collect();
        // What holds f64 comes first, at even places.
        let sums = channels.iter().map(|own| take(4 * own)).collect();
        let losses = take(2 * channels.len());
        let offsets = channels.iter().map(|&own| take(own)).collect();
        let slopes = channels.iter().map(|&own| take(own)).collect();
        let kept = take(images * plan.kept_values);
        let [a, b, c] = [(); 3].map(|()| take(images * plan.activation_values));
        let patches = take(images * plan.patch_values);
        Self {
            sums,
            losses,
            offsets,
            slopes,
            kept,
            a,
            b,
            c,
            patches,
            length: next,
        }
    }
}

/// A batch on its way through the network.
struct Pass<'p> {
    prior: &'p BatchNormPrior,
    shapes: Vec<&'p Shape>,
    plan: &'p ResNetPlan,
    parts: &'p Parts,
    images: usize,
}

impl Pass<'_> {
    fn channels(&self, unit: usize) -> usize {
        self.shapes[unit].convolution.output_channels
    }

    /// Values `from` on of what is kept of all images.
    fn kept(&self, range: &std::ops::Range<usize>, channels: usize) -> Matrix {
        let kept = self.parts.kept;
        let area = Matrix {
            start: kept.start + self.images * range.start,
            columns: self.images * range.len(),
            ..kept
        };
        first_of(area, self.images * range.len() / channels, channels)
    }

    /// The input of a unit's BatchNorm, `[images·positions, channels]`.
    fn input(&self, unit: usize) -> Matrix {
        self.kept(&self.plan.units[unit].kept, self.channels(unit))
    }

    /// The output of the pooled stem or of a block, of which `channels` of the unit are the channels.
    fn output(&self, index: usize, unit: usize) -> Matrix {
        self.kept(&self.plan.outputs[index], self.channels(unit))
    }

    fn maps(&self, at: Matrix, unit: usize) -> Maps {
        Maps {
            at,
            size: self.plan.units[unit].input,
            by_channel: false,
        }
    }

    fn convolve(&self, queue: &mut Queue, unit: usize, x: Maps) {
        let own = &self.prior.units[unit];
        let shape = &self.shapes[unit].convolution;
        own.convolution
            .forward(queue, shape, x, self.parts.patches, self.input(unit));
    }

    fn convolve_backward(&self, queue: &mut Queue, unit: usize, dy: Matrix, dx: Maps) {
        let own = &self.prior.units[unit];
        let shape = &self.shapes[unit].convolution;
        own.convolution
            .backward(queue, shape, dy, self.parts.patches, dx);
    }

    /// Overwrites `y` with the BatchNorm of a unit's input, plus a shortcut.
    fn normalise(
        &self,
        queue: &mut Queue,
        unit: usize,
        shortcut: Option<Matrix>,
        relu: bool,
        y: Matrix,
    ) {
        let (x, own) = (self.input(unit), &self.prior.units[unit]);
        assert_eq!((x.rows, x.columns), (y.rows, y.columns));
        let kernel = BatchNorm {
            x: queue.values(x),
            scale: queue.vector(&own.scale, x.columns),
            shift: queue.vector(&own.shift, x.columns),
            shortcut: shortcut.map_or(Values(0), |shortcut| queue.values(shortcut)),
            relu: i32::from(relu),
            y: queue.values_mut(y),
            channels: int(x.columns),
        };
        queue.launch(by_row(x.rows, x.columns), &kernel);
    }

    /// Turns the gradient at a unit's output into that at its BatchNorm's input, that of the statistics included.
    fn normalise_backward(&self, queue: &mut Queue, unit: usize, masked: bool, dy: Matrix) {
        let (x, own) = (self.input(unit), &self.prior.units[unit]);
        assert_eq!((x.rows, x.columns), (dy.rows, dy.columns));
        let kernel = BatchNormBackward {
            x: queue.values(x),
            scale: queue.vector(&own.scale, x.columns),
            shift: queue.vector(&own.shift, x.columns),
            masked: i32::from(masked),
            offset: queue.values(self.parts.offsets[unit]),
            slope: queue.values(self.parts.slopes[unit]),
            dy: queue.values_mut(dy),
            channels: int(x.columns),
        };
        queue.launch(by_row(x.rows, x.columns), &kernel);
    }

    /// The same rows and columns in another part of the scratch.
    fn like(&self, area: Matrix, other: Matrix) -> Matrix {
        first_of(area, other.rows, other.columns)
    }

    fn forward(&self, queue: &mut Queue, pixels: Matrix, size: PlaneSize) {
        let Parts { a, b, .. } = *self.parts;
        let image = Maps {
            at: pixels,
            size,
            by_channel: true,
        };
        self.convolve(queue, 0, image);
        let activation = self.like(a, self.input(0));
        self.normalise(queue, 0, None, true, activation);
        let [height, width] = self.stem_size();
        let pooled = self.output(0, 0);
        let kernel = MaxPool {
            x: queue.values(activation),
            y: queue.values_mut(pooled),
            height: int(height),
            width: int(width),
            channels: int(pooled.columns),
        };
        queue.launch(by_row(pooled.rows, pooled.columns), &kernel);
        let (mut source, mut unit) = (pooled, 1);
        for (index, block) in self.prior.network.blocks.iter().enumerate() {
            let last = unit + block.units.len() - 1;
            let mut x = source;
            for own in unit..=last {
                self.convolve(queue, own, self.maps(x, own));
                if own < last {
                    x = self.like(a, self.input(own));
                    self.normalise(queue, own, None, true, x);
                }
            }
            unit = last + 1;
            let mut shortcut = source;
            if block.downsample.is_some() {
                self.convolve(queue, unit, self.maps(source, unit));
                shortcut = self.like(b, self.input(unit));
                self.normalise(queue, unit, None, false, shortcut);
                unit += 1;
            }
            source = self.output(index + 1, last);
            self.normalise(queue, last, Some(shortcut), true, source);
        }
    }

    fn stem_size(&self) -> PlaneSize {
        let stem = &self.plan.units[0];
        self.shapes[0].convolution.output_size(stem.input)
    }

    /// Sums of all inputs, and from them losses and lines.
    fn terms(&self, queue: &mut Queue, weight: f32) {
        for (index, own) in self.prior.units.iter().enumerate() {
            let (x, sums) = (self.input(index), self.parts.sums[index]);
            moments::column_sums(queue, x, sums);
            let loss = Matrix {
                start: self.parts.losses.start + 2 * index,
                columns: 2,
                ..self.parts.losses
            };
            let kernel = StatisticsTerm {
                sums: queue.doubles(sums),
                count: x.rows as f64,
                mean: queue.vector(&own.mean, x.columns),
                variance: queue.vector(&own.variance, x.columns),
                weight,
                columns: int(x.columns),
                loss: queue.doubles_mut(loss, 1),
                offset: queue.values_mut(self.parts.offsets[index]),
                slope: queue.values_mut(self.parts.slopes[index]),
            };
            queue.launch(one_block(x.columns), &kernel);
        }
    }

    fn backward(&self, queue: &mut Queue, dpixels: Matrix, size: PlaneSize) {
        // `a`: gradient at a block's output, `b`: at its input, `c`: inside its chain of units.
        let Parts {
            mut a,
            mut b,
            mut c,
            ..
        } = *self.parts;
        let mut unit = self.prior.units.len();
        queue.fill_zero(a);
        let blocks = self.prior.network.blocks.iter().enumerate().rev();
        for (index, block) in blocks {
            let downsample = block.downsample.is_some().then(|| unit - 1);
            unit -= block.units.len() + usize::from(downsample.is_some());
            let last = unit + block.units.len() - 1;
            let output = self.output(index + 1, last);
            let doutput = self.like(a, output);
            let values = output.rows * output.columns;
            let kernel = ReluBackward {
                y: queue.values(output),
                dy: queue.values_mut(doutput),
                count: count(values),
            };
            queue.launch(by_value(values), &kernel);
            let input = self.shapes[unit].convolution.input_channels;
            let input = self.kept(&self.plan.outputs[index], input);
            let dinput = self.like(b, input);
            if let Some(own) = downsample {
                let dkept = self.like(c, output);
                elementwise::copy(queue, doutput, dkept);
                self.normalise_backward(queue, own, false, dkept);
                queue.fill_zero(dinput);
                self.convolve_backward(queue, own, dkept, self.maps(dinput, own));
            } else {
                elementwise::copy(queue, doutput, dinput);
            }
            for own in (unit..=last).rev() {
                let dkept = self.like(a, self.input(own));
                self.normalise_backward(queue, own, own < last, dkept);
                if own == unit {
                    self.convolve_backward(queue, own, dkept, self.maps(dinput, own));
                } else {
                    let dsource = self.like(c, self.input(own - 1));
                    queue.fill_zero(dsource);
                    self.convolve_backward(queue, own, dkept, self.maps(dsource, own));
                    std::mem::swap(&mut a, &mut c);
                }
            }
            std::mem::swap(&mut a, &mut b);
        }
        self.stem_backward(queue, [a, b, c], dpixels, size);
    }

    /// From the gradient at the pooled stem, in the first of the activations.
    fn stem_backward(
        &self,
        queue: &mut Queue,
        [a, b, c]: [Matrix; 3],
        dpixels: Matrix,
        size: PlaneSize,
    ) {
        let activation = self.like(b, self.input(0));
        self.normalise(queue, 0, None, true, activation);
        let [height, width] = self.stem_size();
        let dpooled = self.like(a, self.output(0, 0));
        let dactivation = self.like(c, activation);
        let kernel = MaxPoolBackward {
            x: queue.values(activation),
            dy: queue.values(dpooled),
            dx: queue.values_mut(dactivation),
            height: int(height),
            width: int(width),
            channels: int(activation.columns),
        };
        queue.launch(by_row(activation.rows, activation.columns), &kernel);
        self.normalise_backward(queue, 0, true, dactivation);
        let dimage = Maps {
            at: dpixels,
            size,
            by_channel: true,
        };
        self.convolve_backward(queue, 0, dactivation, dimage);
    }
}
