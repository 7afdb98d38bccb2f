//! Reads a ResNet from safetensors with torchvision's names and lists everything that does not fit.

use super::convolution::Convolution;
use model::tensor_file::{TensorError, TensorFile, TensorFileError};
use std::collections::BTreeSet;
use thiserror::Error;

/// Why a file is not a ResNet that can be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ResNetError {
    /// The file is no safetensors file, or is damaged.
    #[error("ResNet: {0}")]
    File(#[from] TensorFileError),
    /// Everything that is wrong, one sentence each.
    #[error("this is not a ResNet in torchvision's layout: {}", .0.join("; "))]
    Problems(Vec<String>),
}

/// BatchNorm in eval mode, each `[channels]`.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    /// torchvision's name, such as `layer1.0.bn1`.
    pub name: String,
    pub running_mean: Vec<f32>,
    pub running_variance: Vec<f32>,
    /// `output = scale·input + shift`
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// A convolution without bias and the BatchNorm after it.
#[derive(Debug)]
pub(crate) struct Unit {
    pub convolution: Convolution,
    pub norm: BatchNorm,
}

/// A residual block: `relu(units(x) + (downsample(x) or x))`, with a ReLU between units.
#[derive(Debug)]
pub(crate) struct Block {
    pub units: Vec<Unit>,
    pub downsample: Option<Unit>,
}

/// The classifier after the mean over positions.
#[derive(Debug)]
pub(crate) struct ClassifierHead {
    /// `[classes, channels]`
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// A ResNet of basic or bottleneck blocks. The classifier `fc` may be missing: the prior does not need it.
#[derive(Debug)]
pub struct ResNet {
    pub(crate) stem: Unit,
    pub(crate) blocks: Vec<Block>,
    pub(crate) head: Option<ClassifierHead>,
}

/// Tensors of a BatchNorm.
const NORM_PARTS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

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
        let unknown = file
            .names()
            .filter(|name| !reader.used.contains(*name) && !name.ends_with(".num_batches_tracked"))
            .map(|name| format!("{name}: not a tensor of this architecture"))
            .collect::<Vec<_>>();
        reader.problems.extend(unknown);
        match network {
            Some(network) if reader.problems.is_empty() => Ok(network),
            _ => Err(ResNetError::Problems(reader.problems)),
        }
    }

    /// Gives away the weights of all convolutions, in the order of [`Self::units`]; their shapes stay.
    pub(crate) fn take_weights(&mut self) -> Vec<Vec<f32>> {
        let blocks = self.blocks.iter_mut();
        let units = std::iter::once(&mut self.stem)
            .chain(blocks.flat_map(|block| block.units.iter_mut().chain(&mut block.downsample)));
        units
            .map(|unit| std::mem::take(&mut unit.convolution.weight))
            .collect()
    }

    /// All units in the order of computation; a block's downsample comes after its other units.
    pub(crate) fn units(&self) -> impl Iterator<Item = &Unit> {
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
    /// Goes on after a problem, so that all of them are found: the number of channels is taken from the shapes alone.
    fn network(&mut self) -> Option<ResNet> {
        let stem = self.unit("conv1", "bn1", 3, 7, 2);
        let mut channels = self.output_channels("conv1").unwrap_or(0);
        let mut blocks = Vec::new();
        let mut complete = true;
        for stage in 1..=4 {
            let mut count = 0;
            while self.has(&format!("layer{stage}.{count}.conv1.weight")) {
                let name = format!("layer{stage}.{count}");
                let stride = if stage > 1 && count == 0 { 2 } else { 1 };
                let (block, output) = self.block(&name, channels, stride);
                channels = output;
                complete &= block.is_some();
                blocks.extend(block);
                count += 1;
            }
            if count == 0 {
                let name = format!("layer{stage}.0.conv1.weight");
                self.problems.push(format!("{name}: missing"));
                complete = false;
            }
        }
        let has_head = self.has("fc.weight") || self.has("fc.bias");
        let head = has_head.then(|| self.head(channels)).flatten();
        let stem = stem.filter(|_| complete)?;
        Some(ResNet { stem, blocks, head })
    }

    /// The block, and the number of channels after it.
    fn block(&mut self, name: &str, channels: usize, stride: usize) -> (Option<Block>, usize) {
        let bottleneck = self.has(&format!("{name}.conv3.weight"));
        // torchvision strides the 3×3 convolution: the second of a bottleneck, the first of a basic block.
        let plan: &[(usize, usize)] = if bottleneck {
            &[(1, 1), (3, stride), (1, 1)]
        } else {
            &[(3, stride), (3, 1)]
        };
        let mut units = Vec::new();
        let mut width = channels;
        for (number, &(kernel, stride)) in (1..).zip(plan) {
            let convolution = format!("{name}.conv{number}");
            let norm = format!("{name}.bn{number}");
            units.extend(self.unit(&convolution, &norm, width, kernel, stride));
            width = self.output_channels(&convolution).unwrap_or(width);
        }
        let (convolution, norm) = (
            format!("{name}.downsample.0"),
            format!("{name}.downsample.1"),
        );
        let present =
            self.has(&format!("{convolution}.weight")) || self.has(&format!("{norm}.weight"));
        let downsample = (present || stride != 1 || width != channels)
            .then(|| self.unit(&convolution, &norm, channels, 1, stride));
        let short = match &downsample {
            Some(_) => self.output_channels(&convolution).unwrap_or(width),
            None => channels,
        };
        if short != width {
            self.problems.push(format!(
                "{name}: its shortcut has {short} channels, its convolutions end with {width}"
            ));
            return (None, width);
        }
        let complete = units.len() == plan.len() && !matches!(downsample, Some(None));
        let downsample = downsample.flatten();
        (complete.then_some(Block { units, downsample }), width)
    }

    fn unit(
        &mut self,
        convolution: &str,
        norm: &str,
        input_channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Option<Unit> {
        let output_channels = match self.output_channels(convolution) {
            Some(channels) => channels,
            None => {
                let name = format!("{convolution}.weight");
                let problem = match self.file.shape(&name) {
                    Some(shape) => format!("{name}: shape {shape:?} has no output channels"),
                    None => format!("{name}: missing"),
                };
                self.problems.push(problem);
                self.used.insert(name);
                self.used
                    .extend(NORM_PARTS.map(|part| format!("{norm}.{part}")));
                return None;
            }
        };
        let shape = [output_channels, input_channels, kernel, kernel];
        let weight = self.values(&format!("{convolution}.weight"), &shape);
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

    /// First axis of a convolution's weight, as the file states it; `None` where it is missing or zero.
    fn output_channels(&self, convolution: &str) -> Option<usize> {
        let shape = self.file.shape(&format!("{convolution}.weight"))?;
        shape.first().copied().filter(|channels| *channels > 0)
    }

    fn norm(&mut self, name: &str, channels: usize) -> Option<BatchNorm> {
        let parts = NORM_PARTS.map(|part| self.values(&format!("{name}.{part}"), &[channels]));
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
        Some(BatchNorm {
            name: name.to_owned(),
            scale: (0..channels).map(|c| factor(c) as f32).collect(),
            shift: (0..channels).map(|c| shift(c) as f32).collect(),
            running_mean,
            running_variance,
        })
    }

    fn head(&mut self, channels: usize) -> Option<ClassifierHead> {
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
        Some(ClassifierHead {
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
