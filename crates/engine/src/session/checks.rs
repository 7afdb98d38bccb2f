//! What a session accepts: every shape and value is looked at before any arithmetic.

use super::{Entry, Input, Wanted};
use crate::backend::Matrix;
use crate::operation::{Checks, OperationError};
use crate::vit::{Differentiate, NormInputGradients, PassInput, PassStart};
use model::adapter::{Adapter, HeadInput, Target};
use model::backbone::{Backbone, BackboneConfig, Pooling};
use model::tensor::{ShapeError, Tensor};
use std::ops::Range;

const FORWARD: Checks = Checks("forward");
const BACKWARD: Checks = Checks("backward");

/// A batch that has passed.
pub struct Checked {
    pub batch: usize,
    pub start: PassStart,
    pub tokens: usize,
    pub sparse: bool,
    pub tokens_after: Vec<usize>,
    pub class_only_end: bool,
    pub pooled_width: usize,
    pub feature_width: usize,
    pub end_layer: usize,
    pub read: HeadInput,
    pub has_adapter: bool,
    /// Whether the inputs of all LayerNorms are summed up.
    pub norm_input_sums: bool,
    /// Empty but for [`super::Session::published_residual`].
    pub residual_after_norm: Vec<usize>,
    /// Side of the images, 0 after a cached prefix.
    pub side: usize,
}

impl Checked {
    pub fn first_layer(&self) -> usize {
        match self.start {
            PassStart::Pixels { .. } => 0,
            PassStart::Hidden { layer } => layer,
        }
    }

    /// Takes over what is asked for.
    pub fn want(&mut self, wanted: Wanted) {
        self.norm_input_sums = wanted.norm_input_sums;
        self.class_only_end &= !wanted.last_hidden_state && !wanted.norm_input_sums;
    }

    /// Tokens of an image before `layer`.
    pub fn tokens_at(&self, layer: usize) -> usize {
        if layer <= self.first_layer() {
            self.tokens
        } else {
            self.tokens_after[layer - 1]
        }
    }

    /// The values of some images, or `pixels`, where they are made of pictures that stay on the device, and the tokens of theirs that enter.
    pub fn part<'a>(
        &self,
        input: &Input<'a>,
        images: &Range<usize>,
        pixels: Matrix,
    ) -> (PassInput<'a>, Option<&'a [u32]>) {
        let rows = |tensor: &'a Tensor| {
            let length = tensor.data().len() / self.batch;
            &tensor.data()[images.start * length..images.end * length]
        };
        let source = match input.entry {
            Entry::Pixels(pixels) => PassInput::Pixels(rows(pixels)),
            Entry::Pictures { .. } => PassInput::Images(pixels),
            Entry::Hidden { values, .. } => PassInput::Hidden(rows(values)),
        };
        let positions = input
            .tokens
            .filter(|_| self.sparse)
            .map(|all| &all[images.start * self.tokens..images.end * self.tokens]);
        (source, positions)
    }
}

pub fn shape(error: ShapeError) -> OperationError {
    OperationError::Length {
        operation: FORWARD.0,
        name: "output",
        shape: error.shape,
        expected: error.expected,
        found: error.found,
    }
}

/// All weights are finite.
pub fn weights(backbone: &Backbone) -> Result<(), OperationError> {
    let mut problem = Ok(());
    backbone.weights.visit(&mut |_, shape, values| {
        if problem.is_ok() {
            problem = Checks("load weights").finite("a weight", values, shape);
        }
    });
    problem
}

/// `input` fits the backbone; the pass ends before `end_layer` where one is given.
pub fn input(
    config: &BackboneConfig,
    input: &Input<'_>,
    entered: Entered,
    end_layer: Option<usize>,
) -> Result<Checked, OperationError> {
    let end = end_layer.unwrap_or(config.layers);
    if end > config.layers {
        return Err(mismatch("layer", &[end], "layers", &[config.layers]));
    }
    let Entered {
        batch,
        start,
        tokens: all_tokens,
        side,
    } = entered;
    let first = match start {
        PassStart::Pixels { .. } => 0,
        PassStart::Hidden { layer } => layer,
    };
    if first > end {
        return Err(mismatch("first layer", &[first], "end layer", &[end]));
    }
    let tokens = match (input.tokens, input.entry) {
        (Some(chosen), Entry::Pixels(_) | Entry::Pictures { .. }) => {
            chosen_tokens(chosen, batch, all_tokens)?
        }
        _ => all_tokens,
    };
    if let Some(adapter) = input.adapter {
        self::adapter(config, adapter)?;
    }
    for pruning in input.pruning {
        let holds = (0.0..=1.0).contains(&pruning.ratio);
        FORWARD.setting(
            "pruning ratio",
            pruning.ratio as f32,
            holds,
            "it must be from 0 to 1",
        )?;
        if pruning.layer >= config.layers {
            return Err(mismatch(
                "pruned layer",
                &[pruning.layer],
                "layers",
                &[config.layers],
            ));
        }
    }
    let mut tokens_after = vec![tokens; config.layers];
    let mut current = tokens;
    for (layer, left) in tokens_after.iter_mut().enumerate().skip(first) {
        for pruning in input.pruning.iter().filter(|p| p.layer == layer) {
            // As Python's int() cuts.
            current -= ((current - 1) as f64 * pruning.ratio) as usize;
        }
        *left = current;
    }
    let pooling = match input.read {
        HeadInput::Feature => config.pooling,
        HeadInput::Cls => Pooling::Cls,
        HeadInput::ClsMean => Pooling::ClsMean,
    };
    if pooling != Pooling::Cls && end_layer.is_none() && current < 2 {
        return Err(mismatch(
            "tokens that are left",
            &[current],
            "tokens that a mean of patches needs",
            &[2],
        ));
    }
    let last_prunes = end == config.layers
        && end > first
        && tokens_after[end - 1]
            != if end - 1 == first {
                tokens
            } else {
                tokens_after[end - 2]
            };
    let pooled_width = match pooling {
        Pooling::Cls | Pooling::Mean => config.width,
        Pooling::ClsMean => 2 * config.width,
    };
    Ok(Checked {
        batch,
        start,
        tokens,
        sparse: input.tokens.is_some() && !matches!(input.entry, Entry::Hidden { .. }),
        class_only_end: pooling == Pooling::Cls
            && end > first
            && end_layer.is_none()
            && !last_prunes
            && current > 1,
        tokens_after,
        pooled_width,
        feature_width: match input.read {
            HeadInput::Feature => config.projection_width.unwrap_or(pooled_width),
            _ => pooled_width,
        },
        end_layer: end,
        read: input.read,
        has_adapter: input
            .adapter
            .is_some_and(|adapter| !adapter.pairs.is_empty()),
        norm_input_sums: false,
        residual_after_norm: Vec::new(),
        side,
    })
}

/// What enters a pass.
pub struct Entered {
    batch: usize,
    start: PassStart,
    tokens: usize,
    side: usize,
}

/// Images of `shape` `[batch, 3, side, side]`.
pub fn pixels(config: &BackboneConfig, shape: &[usize]) -> Result<Entered, OperationError> {
    let &[batch, 3, height, side] = shape else {
        return Err(mismatch("pixels", shape, "expected", &[0, 3, 0, 0]));
    };
    match config.grid(side) {
        Some(grid) if height == side => Ok(Entered {
            batch,
            start: PassStart::Pixels { grid },
            tokens: 1 + grid * grid,
            side,
        }),
        _ => {
            let patch = [config.patch_size, config.patch_size];
            Err(mismatch("pixels", shape, "square patches", &patch))
        }
    }
}

/// Pictures of `side` by their number, of which there are `count`.
fn pictures(
    config: &BackboneConfig,
    numbers: &[u32],
    mirrored: &[bool],
    [count, side]: [usize; 2],
) -> Result<Entered, OperationError> {
    if numbers.len() != mirrored.len() {
        let (images, mirrored) = ([numbers.len()], [mirrored.len()]);
        return Err(mismatch("pictures", &images, "mirrored", &mirrored));
    }
    if let Some(&number) = numbers.iter().find(|&&number| number as usize >= count) {
        return Err(mismatch(
            "a picture's number",
            &[number as usize],
            "pictures",
            &[count],
        ));
    }
    pixels(config, &[numbers.len(), 3, side, side])
}

/// What the entry of `input` is; `kept` are number and side of the pictures of each set that stays on the device.
pub fn entry(
    config: &BackboneConfig,
    input: &Input<'_>,
    kept: &[[usize; 2]],
) -> Result<Entered, OperationError> {
    match input.entry {
        Entry::Pictures {
            set,
            numbers,
            mirrored,
        } => match kept.get(set) {
            Some(&kept) => pictures(config, numbers, mirrored, kept),
            None => Err(mismatch(
                "a set's number",
                &[set],
                "sets of pictures",
                &[kept.len()],
            )),
        },
        Entry::Pixels(pixels) => {
            let shape = pixels.shape();
            FORWARD.finite("pixels", pixels.data(), shape)?;
            self::pixels(config, shape)
        }
        Entry::Hidden { layer, values } => {
            let shape = values.shape();
            FORWARD.finite("hidden states", values.data(), shape)?;
            match *shape {
                [batch, tokens, width] if width == config.width => {
                    if layer >= config.layers {
                        return Err(mismatch(
                            "entry layer",
                            &[layer],
                            "layers",
                            &[config.layers],
                        ));
                    }
                    Ok(Entered {
                        batch,
                        start: PassStart::Hidden { layer },
                        tokens,
                        side: 0,
                    })
                }
                _ => Err(mismatch("hidden states", shape, "token", &[config.width])),
            }
        }
    }
}

fn mismatch(
    left: &'static str,
    left_shape: &[usize],
    right: &'static str,
    right_shape: &[usize],
) -> OperationError {
    OperationError::Mismatch {
        operation: FORWARD.0,
        left,
        left_shape: left_shape.to_vec(),
        right,
        right_shape: right_shape.to_vec(),
    }
}

/// Tokens per image of a choice.
fn chosen_tokens(chosen: &[u32], batch: usize, all_tokens: usize) -> Result<usize, OperationError> {
    if chosen.is_empty() || !chosen.len().is_multiple_of(batch) {
        return Err(mismatch("kept tokens", &[chosen.len()], "images", &[batch]));
    }
    let tokens = chosen.len() / batch;
    for (image, row) in chosen.chunks_exact(tokens).enumerate() {
        let ascending = row[0] == 0 && row.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = row[tokens - 1] < all_tokens as u32;
        if !ascending || !inside {
            return Err(OperationError::Tokens {
                image,
                tokens: all_tokens,
            });
        }
    }
    Ok(tokens)
}

pub fn adapter(config: &BackboneConfig, adapter: &Adapter) -> Result<(), OperationError> {
    for (site, pair) in &adapter.pairs {
        let (inputs, outputs) = match site.target {
            Target::MlpIn => (config.width, config.mlp_width),
            Target::MlpOut => (config.mlp_width, config.width),
            _ => (config.width, config.width),
        };
        let (a, b) = (pair.a.shape(), pair.b.shape());
        if site.layer >= config.layers {
            return Err(mismatch(
                "layer of an adapter",
                &[site.layer],
                "layers",
                &[config.layers],
            ));
        }
        FORWARD.finite("lora A", pair.a.data(), a)?;
        FORWARD.finite("lora B", pair.b.data(), b)?;
        if a.len() != 2 || a[1] != inputs {
            return Err(mismatch("lora A", a, "its linear map", &[outputs, inputs]));
        }
        if *b != [outputs, a[0]] {
            return Err(mismatch("lora B", b, "lora A", a));
        }
        let finite = pair.scale.is_finite();
        FORWARD.setting(
            "scale of an adapter",
            pair.scale,
            finite,
            "it must be a finite number",
        )?;
    }
    Ok(())
}

/// The gradients that are asked for exist.
pub fn differentiate(
    checked: &Checked,
    input: &Input<'_>,
    differentiate: Differentiate,
) -> Result<(), OperationError> {
    if differentiate.pixels && !matches!(input.entry, Entry::Pixels(_)) {
        return Err(OperationError::NoGradient {
            wanted: "pixels",
            reason: "the pass does not start from pixels of the host",
        });
    }
    if differentiate.pairs {
        if !checked.has_adapter {
            return Err(OperationError::NoGradient {
                wanted: "low-rank pairs",
                reason: "the pass has no adapter",
            });
        }
        let first = input
            .adapter
            .and_then(|adapter| adapter.pairs.keys().next());
        if first.is_some_and(|site| site.layer < checked.first_layer()) {
            return Err(OperationError::NoGradient {
                wanted: "low-rank pairs",
                reason: "some of them come before the layer that the pass starts from",
            });
        }
    }
    Ok(())
}

/// Gradients of the outputs fit the pass that waits for them.
pub fn backward(
    checked: &Checked,
    dfeatures: &[f32],
    norm_inputs: Option<NormInputGradients<'_>>,
    config: &BackboneConfig,
) -> Result<(), OperationError> {
    let shape = [checked.batch, checked.feature_width];
    BACKWARD.finite("dfeatures", dfeatures, &shape)?;
    if let Some(gradients) = norm_inputs {
        if checked.class_only_end {
            return Err(OperationError::NoGradient {
                wanted: "norm inputs",
                reason: "the forward pass was not asked for their sums",
            });
        }
        let shape = [2 * config.layers, config.width];
        BACKWARD.finite("offsets at norm inputs", gradients.offset, &shape)?;
        BACKWARD.finite("slopes at norm inputs", gradients.slope, &shape)?;
    }
    Ok(())
}
