//! Reads a ResNet from safetensors with torchvision's names and lists everything that does not fit.

use super::convolution::Convolution;
use crate::tensor_file::{TensorError, TensorFile, TensorFileError};
use std::collections::BTreeSet;
use thiserror::Error;

/// Why a file is not a ResNet that can be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ResNetError {
    #[error("ResNet: {0}")]
    File(#[from] TensorFileError),
    /// Everything that is wrong, one sentence each.
    #[error("this is not a ResNet in torchvision's layout: {}", .0.join("; "))]
    Problems(Vec<String>),
}

/// BatchNorm in eval mode, each `[channels]`.
#[derive(Debug)]
pub(super) struct Norm {
    /// torchvision's name, such as `layer1.0.bn1`.
    pub name: String,
    pub running_mean: Vec<f32>,
    pub running_variance: Vec<f32>,
    /// `output = scale·input + shift`
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// A convolution without bias and the BatchNorm behind it.
#[derive(Debug)]
pub(super) struct Unit {
    pub convolution: Convolution,
    pub norm: Norm,
}

/// A residual block: `relu(units(x) + (downsample(x) or x))`, with a ReLU between units.
#[derive(Debug)]
pub(super) struct Block {
    pub units: Vec<Unit>,
    pub downsample: Option<Unit>,
}

/// The classifier behind the mean over positions.
#[derive(Debug)]
pub(super) struct Head {
    /// `[classes, channels]`
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// A ResNet of basic or bottleneck blocks. The classifier `fc` may be missing: the prior does not need it.
#[derive(Debug)]
pub struct ResNet {
    pub(super) stem: Unit,
    pub(super) blocks: Vec<Block>,
    pub(super) head: Option<Head>,
}

/// What torchvision's BatchNorm2d adds to the variance.
const EPSILON: f64 = 1e-5;

impl ResNet {
    /// Reads `bytes` of a safetensors file.
    ///
    /// # Errors
    /// [`ResNetError::File`] for a broken file, [`ResNetError::Problems`] with all tensors that are missing, misshapen,
    /// not finite or foreign to this architecture.
    pub fn read(bytes: &[u8]) -> Result<Self, ResNetError> {
        let file = TensorFile::parse(bytes)?;
        let mut reader = Reader {
            file: &file,
            problems: Vec::new(),
            used: BTreeSet::new(),
        };
        let network = reader.network();
        let strangers = file
            .names()
            .filter(|name| !reader.used.contains(*name) && !name.ends_with(".num_batches_tracked"))
            .map(|name| format!("{name}: not a tensor of this architecture"))
            .collect::<Vec<_>>();
        reader.problems.extend(strangers);
        match network {
            Some(network) if reader.problems.is_empty() => Ok(network),
            _ => Err(ResNetError::Problems(reader.problems)),
        }
    }

    /// All units in the order of computation; a block's downsample comes after its other units.
    pub(super) fn units(&self) -> impl Iterator<Item = &Unit> {
        let blocks = self.blocks.iter();
        std::iter::once(&self.stem)
            .chain(blocks.flat_map(|block| block.units.iter().chain(&block.downsample)))
    }
}

struct Reader<'a> {
    file: &'a TensorFile<'a>,
    problems: Vec<String>,
    used: BTreeSet<String>,
}

impl Reader<'_> {
    /// Goes on after a problem, so that all of them are found.
    fn network(&mut self) -> Option<ResNet> {
        let stem = self.unit("conv1", "bn1", 3, 7, 2);
        let mut channels = stem.as_ref().map(|unit| unit.convolution.output_channels);
        let mut blocks = Vec::new();
        let mut complete = true;
        for stage in 1..=4 {
            let mut count = 0;
            while self.has(&format!("layer{stage}.{count}.conv1.weight")) {
                let stride = if stage > 1 && count == 0 { 2 } else { 1 };
                let block = self.block(&format!("layer{stage}.{count}"), channels, stride);
                channels = block.as_ref().and_then(Block::output_channels);
                complete &= block.is_some();
                blocks.extend(block);
                count += 1;
            }
            if count == 0 {
                self.problems
                    .push(format!("layer{stage}.0.conv1.weight: missing"));
                complete = false;
            }
        }
        let head = if self.has("fc.weight") || self.has("fc.bias") {
            channels.and_then(|channels| self.head(channels))
        } else {
            None
        };
        let stem = stem.filter(|_| complete)?;
        Some(ResNet { stem, blocks, head })
    }

    fn block(&mut self, name: &str, channels: Option<usize>, stride: usize) -> Option<Block> {
        // A stage behind a broken one is still checked, from the number of channels that it says itself.
        let channels = channels.or_else(|| {
            let shape = self.file.shape(&format!("{name}.conv1.weight"))?;
            shape.get(1).copied()
        })?;
        let bottleneck = self.has(&format!("{name}.conv3.weight"));
        // torchvision strides the 3×3 convolution: the second of a bottleneck, the first of a basic block.
        let plan: &[(usize, usize)] = if bottleneck {
            &[(1, 1), (3, stride), (1, 1)]
        } else {
            &[(3, stride), (3, 1)]
        };
        let mut units = Vec::new();
        let mut width = Some(channels);
        for (index, &(kernel, stride)) in plan.iter().enumerate() {
            let part = |kind: &str| format!("{name}.{kind}{}", index + 1);
            let unit = width
                .and_then(|width| self.unit(&part("conv"), &part("bn"), width, kernel, stride));
            width = unit.as_ref().map(|unit| unit.convolution.output_channels);
            units.extend(unit);
        }
        let shortcut = format!("{name}.downsample.0");
        let downsample = if self.has(&format!("{shortcut}.weight")) {
            let norm = format!("{name}.downsample.1");
            Some(self.unit(&shortcut, &norm, channels, 1, stride)?)
        } else {
            None
        };
        if units.len() != plan.len() {
            return None;
        }
        let block = Block { units, downsample };
        let output = block.output_channels()?;
        let short = match &block.downsample {
            Some(unit) => Some(unit.convolution.output_channels),
            None => (stride == 1).then_some(channels),
        };
        match short {
            Some(short) if short == output => Some(block),
            Some(short) => {
                self.problems.push(format!(
                    "{name}: its shortcut has {short} channels, its convolutions end with {output}"
                ));
                None
            }
            None => {
                self.problems.push(format!("{shortcut}.weight: missing"));
                None
            }
        }
    }

    fn unit(
        &mut self,
        convolution: &str,
        norm: &str,
        input_channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Option<Unit> {
        let name = format!("{convolution}.weight");
        let output_channels = match self.file.shape(&name) {
            Some([output, ..]) if *output > 0 => *output,
            Some(shape) => {
                let shape = shape.to_vec();
                self.used.insert(name.clone());
                self.problems
                    .push(format!("{name}: shape {shape:?}, expected [channels, {input_channels}, {kernel}, {kernel}]"));
                return None;
            }
            None => {
                self.problems.push(format!("{name}: missing"));
                return None;
            }
        };
        let shape = [output_channels, input_channels, kernel, kernel];
        let weight = self.values(&name, &shape);
        let norm = self.norm(norm, output_channels);
        let convolution = Convolution {
            weight: weight?,
            input_channels,
            output_channels,
            kernel,
            stride,
        };
        Some(Unit {
            convolution,
            norm: norm?,
        })
    }

    fn norm(&mut self, name: &str, channels: usize) -> Option<Norm> {
        let parts = ["weight", "bias", "running_mean", "running_var"];
        let parts = parts.map(|part| self.values(&format!("{name}.{part}"), &[channels]));
        let [
            Some(weight),
            Some(bias),
            Some(running_mean),
            Some(running_variance),
        ] = parts
        else {
            return None;
        };
        if let Some(value) = running_variance.iter().find(|value| **value < 0.0) {
            self.problems
                .push(format!("{name}.running_var: {value} is below zero"));
            return None;
        }
        let factor =
            |c: usize| f64::from(weight[c]) / (f64::from(running_variance[c]) + EPSILON).sqrt();
        let shift = |c: usize| f64::from(bias[c]) - f64::from(running_mean[c]) * factor(c);
        Some(Norm {
            name: name.to_owned(),
            scale: (0..channels).map(|c| factor(c) as f32).collect(),
            shift: (0..channels).map(|c| shift(c) as f32).collect(),
            running_mean,
            running_variance,
        })
    }

    fn head(&mut self, channels: usize) -> Option<Head> {
        let classes = self
            .file
            .shape("fc.weight")
            .and_then(|shape| shape.first().copied());
        let Some(classes) = classes.filter(|classes| *classes > 0) else {
            self.used
                .extend(["fc.weight".to_owned(), "fc.bias".to_owned()]);
            self.problems.push(format!(
                "fc.weight: missing or without classes, expected [classes, {channels}]"
            ));
            return None;
        };
        let weight = self.values("fc.weight", &[classes, channels]);
        let bias = self.values("fc.bias", &[classes]);
        Some(Head {
            weight: weight?,
            bias: bias?,
        })
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        self.used.insert(name.to_owned());
        // Not `read_shaped`: a 1×1 kernel must not pass for another shape without its axes of length 1.
        let found = match self.file.shape(name) {
            Some(found) if found != shape => Err(TensorError::Shape {
                name: name.to_owned(),
                found: found.to_vec(),
                expected: shape.to_vec(),
            }),
            _ => self.file.read(name),
        };
        match found {
            Ok(tensor) => Some(tensor.into_data()),
            Err(error) => {
                self.problems.push(error.to_string());
                None
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.file.shape(name).is_some()
    }
}

impl Block {
    fn output_channels(&self) -> Option<usize> {
        self.units
            .last()
            .map(|unit| unit.convolution.output_channels)
    }
}
