//! The steps that inversion, meta-training and serving are made of, on backbones of usual sizes with random weights, ready to
//! be timed. Knows sessions; knows nothing of how times are taken or shown.

use super::augment::RollFlip;
use super::image_parameters::Parametrisation;
use super::images::{Change, ImageBatchOptions, PriorWeights};
use super::loss::{LinearHeadGradients, cross_entropy, linear_head, linear_head_backward};
use super::operation::OperationError;
use super::optimise::AdamSettings;
use super::session::{Entry, Input, Pruning, Session, SessionOptions, View, ViewLoss, Wanted};
use super::vit::Differentiate;
use model::adapter::{Adapter, HeadInput, LowRankPair, Site, Target};
use model::backbone::{
    Activation, Architecture, Backbone, BackboneConfig, BackboneError, LayerNorm, LayerWeights,
    Linear, Pooling, Preprocess, Resample, Weights, embedded,
};
use model::tensor::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use thiserror::Error;

/// Size of a backbone and of the batch it is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Stable name, as `bench --size` takes it.
    pub name: &'static str,
    /// Values of a token.
    pub width: usize,
    /// Heads of each attention.
    pub heads: usize,
    /// Pixels along a patch's side.
    pub patch_size: usize,
    /// Pixels along an image's side.
    pub image_size: usize,
    /// Images of a step.
    pub batch: usize,
    /// Of the adapters.
    pub rank: usize,
}

/// Layers of every measured backbone.
pub const LAYERS: usize = 12;

/// Sizes that every step is measured at: a small transformer at two image sizes, alone and in batches, and a base one.
pub const SIZES: [Size; 4] = [
    Size {
        name: "vit-s-98",
        width: 384,
        heads: 6,
        patch_size: 14,
        image_size: 98,
        batch: 40,
        rank: 4,
    },
    Size {
        name: "vit-s-98-one",
        batch: 1,
        ..SMALL
    },
    Size {
        name: "vit-s-224",
        image_size: 224,
        batch: 8,
        ..SMALL
    },
    Size {
        name: "vit-b-224",
        width: 768,
        heads: 12,
        patch_size: 16,
        image_size: 224,
        batch: 4,
        rank: 4,
    },
];

/// Batches that fill a CUDA device, measured where they are asked for: those of inversion and of meta-training.
pub const LARGE_SIZES: [Size; 2] = [
    Size {
        name: "vit-b-224-25",
        batch: 25,
        rank: 16,
        ..SIZES[3]
    },
    Size {
        name: "vit-b-224-100",
        batch: 100,
        rank: 16,
        ..SIZES[3]
    },
];

/// Batches of the embedded backbone, which other runtimes can be given as ONNX; only [`Step::Forward`] is made for them.
pub const EMBEDDED_SIZES: [Size; 2] = [
    Size {
        name: EMBEDDED_BATCH,
        batch: 40,
        ..SMALL
    },
    Size {
        name: EMBEDDED_ONE,
        ..SMALL
    },
];

const EMBEDDED_BATCH: &str = "dinov2-s8-98";
const EMBEDDED_ONE: &str = "dinov2-s8-98-one";

const SMALL: Size = Size {
    name: "",
    width: 384,
    heads: 6,
    patch_size: 14,
    image_size: 98,
    batch: 1,
    rank: 4,
};

impl Size {
    fn patches(self) -> usize {
        let grid = self.image_size / self.patch_size;
        grid * grid
    }
}

/// A step that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Features of the bare backbone.
    Forward,
    /// Forward and the gradient at the pixels.
    InputGradient,
    /// As [`Self::InputGradient`] with an adapter, dropping 75 % of the patches in the middle layer.
    PrunedInputGradient,
    /// Forward and the gradient at an adapter's low-rank pairs of q and v; this percentage of the patches left out. As in meta-training
    /// the loss may couple all images, so that all forward passes come before the first backward.
    MetaTraining {
        /// Share of the patches that is dropped, 0 to 99.
        sparsity_percent: usize,
    },
    /// A whole step of images under optimisation with an adapter: roll and flip, total variation, cross-entropy, Adam and the clamp.
    Inversion,
    /// As dense [`Self::MetaTraining`], low-rank pairs in the last six layers only, the layers before them cached.
    LastSixCached,
}

/// Steps by their stable names, as `bench --step` takes them.
pub const STEPS: [(&str, Step); 9] = [
    ("forward", Step::Forward),
    ("input-gradient", Step::InputGradient),
    ("pruned-input-gradient", Step::PrunedInputGradient),
    (
        "meta-dense",
        Step::MetaTraining {
            sparsity_percent: 0,
        },
    ),
    (
        "meta-sparse-25",
        Step::MetaTraining {
            sparsity_percent: 25,
        },
    ),
    (
        "meta-sparse-50",
        Step::MetaTraining {
            sparsity_percent: 50,
        },
    ),
    (
        "meta-sparse-75",
        Step::MetaTraining {
            sparsity_percent: 75,
        },
    ),
    ("meta-last-6-cached", Step::LastSixCached),
    ("inversion", Step::Inversion),
];

/// A step with everything it needs.
pub struct Prepared {
    session: Session,
    step: Step,
    values: Tensor,
    tokens: Option<Vec<u32>>,
    adapter: Option<Adapter>,
    dfeatures: Vec<f32>,
    /// `[CLASSES, width]`, of [`Step::Inversion`]
    head: Tensor,
}

/// Classes of the head that [`Step::Inversion`] has.
const CLASSES: usize = 5;

/// Why a step cannot be made ready.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The embedded backbone cannot be read.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// The threads cannot start, or a pass was refused, which is a defect.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl Prepared {
    /// Makes random weights, images and low-rank pairs, and where needed the cached prefix.
    ///
    /// # Errors
    /// [`PrepareError`] where threads cannot start, or a device has no room.
    pub fn new(size: Size, step: Step, options: SessionOptions) -> Result<Self, PrepareError> {
        let mut random = Random(ChaCha8Rng::seed_from_u64(0));
        let backbone = match size.name {
            EMBEDDED_BATCH | EMBEDDED_ONE => embedded()?,
            _ => random.backbone(size),
        };
        let mut session = Session::new(&backbone, options)?;
        let side = size.image_size;
        let pixels = random.tensor(&[size.batch, 3, side, side], 1.0);
        let first = match step {
            Step::LastSixCached => LAYERS - 6,
            _ => 0,
        };
        let adapter = match step {
            Step::Forward | Step::InputGradient => None,
            _ => Some(random.adapter(size, first)),
        };
        let tokens = match step {
            Step::MetaTraining { sparsity_percent } if sparsity_percent > 0 => {
                let kept = size.patches() - size.patches() * sparsity_percent / 100;
                // Spread over the image; which tokens they are does not change the work.
                let one = (0..=kept).map(|i| (i * size.patches() / kept) as u32);
                Some(one.collect::<Vec<_>>().repeat(size.batch))
            }
            _ => None,
        };
        let values = match step {
            Step::LastSixCached => session.hidden_states(&Input::pixels(&pixels), first)?,
            _ => pixels,
        };
        let head = random.tensor(&[CLASSES, size.width], 0.05);
        if let (Step::Inversion, Some(adapter)) = (step, &adapter) {
            session.hold(&backbone, adapter)?;
            let options = ImageBatchOptions {
                parametrisation: Parametrisation::Pixels,
                shape: [size.batch, 3, side, side],
                normalisation: ([0.5; 3], [0.5; 3]),
                adam: AdamSettings::default(),
                priors: PriorWeights {
                    total_variation: 0.01,
                    ..PriorWeights::default()
                },
            };
            session.start_images(options, values.data())?;
        }
        Ok(Self {
            session,
            step,
            values,
            tokens,
            adapter,
            dfeatures: Vec::new(),
            head,
        })
    }

    /// Runs the step once.
    ///
    /// # Errors
    /// [`OperationError`]; the steps as prepared give none.
    pub fn run(&mut self) -> Result<(), OperationError> {
        const PRUNING: [Pruning; 1] = [Pruning {
            layer: LAYERS / 2,
            ratio: 0.75,
        }];
        let values = &self.values;
        let input = Input {
            entry: match self.step {
                Step::LastSixCached => Entry::Hidden {
                    layer: LAYERS - 6,
                    values,
                },
                _ => Entry::Pixels(values),
            },
            tokens: self.tokens.as_deref(),
            adapter: self.adapter.as_ref(),
            pruning: match self.step {
                Step::PrunedInputGradient => &PRUNING,
                _ => &[],
            },
            read: HeadInput::Feature,
        };
        let pixels = matches!(self.step, Step::InputGradient | Step::PrunedInputGradient);
        let differentiate = Differentiate {
            pixels,
            pairs: !pixels,
        };
        // The loss is half the squared length of the features: its gradient is the features.
        match self.step {
            Step::Inversion => return self.invert(),
            Step::Forward => {
                self.session.forward(&input, Wanted::default())?;
            }
            Step::InputGradient | Step::PrunedInputGradient => {
                self.session
                    .step(&input, differentiate, |_, features, dfeatures| {
                        dfeatures.copy_from_slice(features);
                        Ok(0.0)
                    })?;
            }
            Step::MetaTraining { .. } | Step::LastSixCached => {
                let wanted = Wanted::default();
                let output = self.session.forward_for(&input, wanted, differentiate)?;
                self.dfeatures.clear();
                self.dfeatures.extend_from_slice(output.features.data());
                self.session.backward(&self.dfeatures, None)?;
            }
        }
        Ok(())
    }
}

impl Prepared {
    /// Cross-entropy of a random head; image i shows class i modulo their number.
    fn invert(&mut self) -> Result<(), OperationError> {
        let (batch, width) = (self.values.shape()[0], self.head.shape()[1]);
        let head = &self.head;
        let look = |images: Range<usize>, features: &[f32], dfeatures: &mut [f32]| {
            let labels: Vec<usize> = images.map(|image| image % CLASSES).collect();
            let mut logits = vec![0.0; labels.len() * CLASSES];
            linear_head(features, width, head.data(), None, &mut logits)?;
            let mut dlogits = vec![0.0; logits.len()];
            let loss = cross_entropy(&logits, &labels, CLASSES, Some(&mut dlogits))?;
            let share = labels.len() as f32 / batch as f32;
            dlogits.iter_mut().for_each(|slope| *slope *= share);
            let gradients = LinearHeadGradients {
                dfeatures: Some(dfeatures),
                ..LinearHeadGradients::default()
            };
            linear_head_backward(features, width, head.data(), &dlogits, gradients)?;
            Ok(f64::from(loss * share))
        };
        let view = View {
            held: Some(0),
            pruning: &[],
            read: HeadInput::Feature,
            norm_input_sums: false,
            loss: ViewLoss::Separate(&look),
        };
        let change = Change::RollFlip(RollFlip {
            down: 3,
            right: -2,
            flip: true,
        });
        self.session.step_images(&change, &mut [view], 0.1)?;
        Ok(())
    }
}

struct Random(ChaCha8Rng);

impl Random {
    fn tensor(&mut self, shape: &[usize], size: f32) -> Tensor {
        let mut tensor = Tensor::zeros(shape);
        for value in tensor.data_mut() {
            *value = self.0.random_range(-size..size);
        }
        tensor
    }

    fn linear(&mut self, outputs: usize, inputs: usize) -> Linear {
        let size = (3.0 / inputs as f32).sqrt();
        Linear {
            weight: self.tensor(&[outputs, inputs], size),
            bias: Some(self.tensor(&[outputs], 0.01)),
        }
    }

    fn backbone(&mut self, size: Size) -> Backbone {
        let width = size.width;
        let config = BackboneConfig {
            architecture: Architecture::Vit,
            width,
            layers: LAYERS,
            heads: size.heads,
            mlp_width: 4 * width,
            patch_size: size.patch_size,
            native_image_size: size.image_size,
            layer_norm_epsilon: 1e-6,
            activation: Activation::Gelu,
            qkv_bias: true,
            pooling: Pooling::Cls,
            projection_width: None,
        };
        let norm = || LayerNorm {
            weight: ones(width),
            bias: Tensor::zeros([width]),
        };
        let layers = (0..LAYERS).map(|_| LayerWeights {
            norm1: norm(),
            query: self.linear(width, width),
            key: self.linear(width, width),
            value: self.linear(width, width),
            output: self.linear(width, width),
            scale1: None,
            norm2: norm(),
            mlp_in: self.linear(4 * width, width),
            mlp_out: self.linear(width, 4 * width),
            scale2: None,
        });
        let layers = layers.collect();
        let weights = Weights {
            patch: self.linear(width, 3 * size.patch_size * size.patch_size),
            cls_token: self.tensor(&[width], 0.02),
            position: self.tensor(&[1 + size.patches(), width], 0.02),
            pre_norm: None,
            layers,
            final_norm: norm(),
            projection: None,
        };
        let preprocess = Preprocess {
            resize: None,
            resample: Resample::Bicubic,
            centre_crop: None,
            rescale: 1.0,
            mean: [0.0; 3],
            standard_deviation: [1.0; 3],
        };
        Backbone::new(config, preprocess, weights)
    }

    fn adapter(&mut self, Size { width, rank, .. }: Size, first_layer: usize) -> Adapter {
        let mut adapter = Adapter::default();
        for layer in first_layer..LAYERS {
            for target in [Target::Query, Target::Value] {
                let pair = LowRankPair {
                    a: self.tensor(&[rank, width], 0.05),
                    b: self.tensor(&[width, rank], 0.05),
                    scale: 1.0,
                };
                adapter.pairs.insert(Site { layer, target }, pair);
            }
        }
        adapter
    }
}

fn ones(length: usize) -> Tensor {
    let mut tensor = Tensor::zeros([length]);
    tensor.data_mut().fill(1.0);
    tensor
}
