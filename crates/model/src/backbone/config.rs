//! The hyper-parameters of a vision transformer, read from Hugging Face's `config.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which family a checkpoint belongs to; it decides tensor names and the order of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// `model_type: vit`
    Vit,
    /// `model_type: dinov2`: LayerScale after attention and MLP.
    Dinov2,
    /// `model_type: clip` or `clip_vision_model`: a LayerNorm before the layers, no patch bias, a projection.
    Clip,
}

impl Architecture {
    /// As reports and digests write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vit => "vit",
            Self::Dinov2 => "dinov2",
            Self::Clip => "clip",
        }
    }
}

/// Activation of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x·Φ(x)` with the exact normal distribution function.
    Gelu,
    /// `x·sigmoid(1.702 x)`
    QuickGelu,
}

/// How the tokens after the final LayerNorm become one feature (before CLIP's projection).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The class token.
    #[default]
    Cls,
    /// Mean of the patch tokens.
    Mean,
    /// The class token followed by the mean of the patch tokens.
    ClsMean,
}

/// Hyper-parameters of a vision transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackboneConfig {
    /// The family.
    pub architecture: Architecture,
    /// Width of a token.
    pub width: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Heads of each attention; they share the width evenly.
    pub heads: usize,
    /// Width of the hidden layer of the MLP.
    pub mlp_width: usize,
    /// Side of a square patch in pixels.
    pub patch_size: usize,
    /// Side in pixels of the square image that the stored position embedding belongs to.
    pub native_image_size: usize,
    /// Added to the variance under the root.
    pub layer_norm_epsilon: f32,
    /// Of the MLP.
    pub activation: Activation,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// From tokens to the feature.
    pub pooling: Pooling,
    /// Width of the projected feature (CLIP), if there is a projection.
    pub projection_width: Option<usize>,
}

impl BackboneConfig {
    /// Patches along one side of the stored position embedding.
    pub fn native_grid(&self) -> usize {
        self.native_image_size / self.patch_size
    }

    /// Patches along one side of an image of `image_size` pixels, or `None` where the size is zero or not a multiple of the patch.
    pub fn grid(&self, image_size: usize) -> Option<usize> {
        (image_size > 0 && image_size.is_multiple_of(self.patch_size))
            .then(|| image_size / self.patch_size)
    }

    /// Values of a token in one head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Length of the pooled tokens before the projection.
    pub fn pooled_width(&self) -> usize {
        match self.pooling {
            Pooling::Cls | Pooling::Mean => self.width,
            Pooling::ClsMean => 2 * self.width,
        }
    }

    /// Length of the feature that an image is reduced to.
    pub fn feature_width(&self) -> usize {
        self.projection_width.unwrap_or_else(|| self.pooled_width())
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Every problem found, one sentence each: an unknown model type or activation, a value that is missing, of the wrong type or impossible.
    pub fn from_json(text: &[u8]) -> Result<Self, Vec<String>> {
        let root: Value = serde_json::from_slice(text)
            .map_err(|error| vec![format!("config.json is not valid JSON: {error}")])?;
        let model_type = root.get("model_type").and_then(Value::as_str).unwrap_or("");
        let (architecture, part) = match model_type {
            "vit" => (Architecture::Vit, &root),
            "dinov2" => (Architecture::Dinov2, &root),
            "clip" => (
                Architecture::Clip,
                root.get("vision_config").unwrap_or(&Value::Null),
            ),
            "clip_vision_model" => (Architecture::Clip, &root),
            "" => return Err(vec!["config.json has no \"model_type\"".into()]),
            other => {
                return Err(vec![format!(
                    "model type \"{other}\" is not supported; supported are vit, dinov2, clip and clip_vision_model"
                )]);
            }
        };
        let mut reader = Reader {
            part,
            problems: Vec::new(),
        };
        let config = reader.config(architecture, &root, model_type);
        if reader.problems.is_empty() {
            Ok(config)
        } else {
            Err(reader.problems)
        }
    }
}

/// Reads values with Hugging Face's defaults and remembers what was wrong.
struct Reader<'a> {
    part: &'a Value,
    problems: Vec<String>,
}

/// Upper limit of any count in a configuration: far above every real model, far below what overflows.
const LARGEST_COUNT: u64 = 1 << 20;

impl Reader<'_> {
    fn config(
        &mut self,
        architecture: Architecture,
        root: &Value,
        model_type: &str,
    ) -> BackboneConfig {
        let (image_size, patch_size, epsilon, activation) = match architecture {
            Architecture::Vit => (224, 16, 1e-12, "gelu"),
            Architecture::Dinov2 => (224, 14, 1e-6, "gelu"),
            Architecture::Clip => (224, 32, 1e-5, "quick_gelu"),
        };
        let width = self.count("hidden_size", 768);
        let mlp_width = if architecture == Architecture::Dinov2 {
            self.dinov2_mlp_width(width)
        } else {
            self.count("intermediate_size", 3072)
        };
        let config = BackboneConfig {
            architecture,
            width,
            layers: self.count("num_hidden_layers", 12),
            heads: self.count("num_attention_heads", 12),
            mlp_width,
            patch_size: self.count("patch_size", patch_size),
            native_image_size: self.count("image_size", image_size),
            layer_norm_epsilon: self.epsilon(epsilon),
            activation: self.activation(activation),
            qkv_bias: architecture == Architecture::Clip || self.flag("qkv_bias", true),
            pooling: self.pooling(root),
            projection_width: (model_type == "clip").then(|| self.projection_width(root)),
        };
        if self.count("num_channels", 3) != 3 {
            self.problems
                .push("num_channels is not 3; only colour images are supported".into());
        }
        if self.flag("use_swiglu_ffn", false) {
            self.problems
                .push("use_swiglu_ffn (DINOv2 giant) is not supported".into());
        }
        if config.heads > 0 && !config.width.is_multiple_of(config.heads) {
            self.problems.push(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                config.width, config.heads
            ));
        }
        if config.patch_size > 0 && config.native_image_size < config.patch_size {
            self.problems.push(format!(
                "image_size {} is smaller than patch_size {}",
                config.native_image_size, config.patch_size
            ));
        }
        config
    }

    fn count(&mut self, key: &str, default: u64) -> usize {
        let value = match self.part.get(key) {
            None | Some(Value::Null) => Some(default),
            // Some checkpoints write a square as [side, side].
            Some(Value::Array(sides)) if sides.len() == 2 && sides[0] == sides[1] => {
                sides[0].as_u64()
            }
            Some(value) => value.as_u64(),
        };
        match value {
            Some(value) if (1..=LARGEST_COUNT).contains(&value) => value as usize,
            _ => {
                self.problems.push(format!(
                    "{key} is {}, not a whole number from 1 to {LARGEST_COUNT}",
                    self.part.get(key).unwrap_or(&Value::Null)
                ));
                1
            }
        }
    }

    fn dinov2_mlp_width(&mut self, width: usize) -> usize {
        match self
            .part
            .get("mlp_ratio")
            .unwrap_or(&Value::from(4))
            .as_f64()
        {
            Some(ratio) if ratio > 0.0 && ratio <= 64.0 => (width as f64 * ratio) as usize,
            _ => {
                self.problems
                    .push("mlp_ratio is not a number from 0 to 64".into());
                width
            }
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.part.get(key) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.problems
                    .push(format!("{key} is {other}, not true or false"));
                default
            }
        }
    }

    fn epsilon(&mut self, default: f64) -> f32 {
        match self
            .part
            .get("layer_norm_eps")
            .unwrap_or(&Value::from(default))
            .as_f64()
        {
            Some(epsilon) if epsilon > 0.0 && epsilon < 1.0 => epsilon as f32,
            _ => {
                self.problems
                    .push("layer_norm_eps is not a number between 0 and 1".into());
                default as f32
            }
        }
    }

    fn activation(&mut self, default: &str) -> Activation {
        match self
            .part
            .get("hidden_act")
            .and_then(Value::as_str)
            .unwrap_or(default)
        {
            "gelu" => Activation::Gelu,
            "quick_gelu" => Activation::QuickGelu,
            other => {
                self.problems.push(format!(
                    "hidden_act \"{other}\" is not supported; supported are gelu and quick_gelu"
                ));
                Activation::Gelu
            }
        }
    }

    fn pooling(&mut self, root: &Value) -> Pooling {
        match root.get("pooling") {
            None | Some(Value::Null) => Pooling::Cls,
            Some(value) => match Pooling::deserialize(value) {
                Ok(pooling) => pooling,
                Err(_) => {
                    self.problems.push(format!(
                        "pooling is {value}, not one of cls, mean and cls_mean"
                    ));
                    Pooling::Cls
                }
            },
        }
    }

    fn projection_width(&mut self, root: &Value) -> usize {
        match root
            .get("projection_dim")
            .or_else(|| self.part.get("projection_dim"))
        {
            None => 512,
            Some(value) => match value.as_u64() {
                Some(width) if (1..=LARGEST_COUNT).contains(&width) => width as usize,
                _ => {
                    self.problems
                        .push(format!("projection_dim is {value}, not a whole number"));
                    512
                }
            },
        }
    }
}
