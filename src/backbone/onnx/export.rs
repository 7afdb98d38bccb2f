//! Writes a backbone's forward pass as an ONNX graph.

use super::graph::{Attribute, Axis, Graph, MICROSOFT, Value};
use crate::backbone::config::{Activation, Architecture, Pooling};
use crate::backbone::position::interpolate_position_embedding;
use crate::backbone::weights::{Affine, LayerWeights, Linear};
use crate::backbone::{Backbone, BackboneConfig};
use crate::tensor::Tensor;
use thiserror::Error;

/// Changes with every change of the graphs written here, so that cached files of an older program are not used.
pub const GRAPH_VERSION: u32 = 1;

/// Which operators the graph may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operators {
    /// ONNX Runtime's fused attention and QuickGELU beside the standard ones.
    OnnxRuntime,
    /// Standard ONNX only, for other runtimes.
    Standard,
}

/// Why a backbone cannot be written as ONNX.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ExportError {
    #[error(
        "image size {image_size} px is no multiple of the patch size {patch_size} px; the nearest that is: {nearest}"
    )]
    ImageSize {
        image_size: usize,
        patch_size: usize,
        nearest: usize,
    },
    #[error(
        "the weights take {bytes} bytes, more than the 2 GiB that an ONNX file can hold; use the native encoder for this backbone"
    )]
    TooLarge { bytes: usize },
}

/// Largest serialised protobuf message, less room for the nodes.
const LARGEST_MODEL_BYTES: usize = i32::MAX as usize - (16 << 20);

/// Writes the forward pass at `image_size` as an ONNX model.
///
/// Input `pixels` `[batch, 3, image_size, image_size]`; outputs `feature` `[batch, feature_width]`, `cls_attention`
/// `[batch, grid²]` (last layer, mean over heads) and `last_hidden_state` `[batch, 1 + grid², width]` (behind the final
/// LayerNorm; for CLIP, whose final LayerNorm belongs to the pooled token, before it).
///
/// # Errors
/// [`ExportError`] where the image size does not fit the patch or the weights do not fit a file.
pub fn export(
    backbone: &Backbone,
    image_size: usize,
    operators: Operators,
) -> Result<Vec<u8>, ExportError> {
    let config = &backbone.config;
    let patch_size = config.patch_size;
    let grid = config.grid(image_size).ok_or(ExportError::ImageSize {
        image_size,
        patch_size,
        nearest: ((image_size + patch_size / 2) / patch_size).max(1) * patch_size,
    })?;
    let bytes = 4 * backbone.weights.parameter_count();
    if bytes > LARGEST_MODEL_BYTES {
        return Err(ExportError::TooLarge { bytes });
    }
    let exporter = Exporter {
        graph: Graph::default(),
        config,
        operators,
        grid,
    };
    Ok(exporter.export(backbone, image_size))
}

struct Exporter<'b> {
    graph: Graph,
    config: &'b BackboneConfig,
    operators: Operators,
    grid: usize,
}

impl Exporter<'_> {
    fn export(mut self, backbone: &Backbone, image_size: usize) -> Vec<u8> {
        let config = self.config;
        let (width, patches) = (config.width, self.grid * self.grid);
        let weights = &backbone.weights;
        let pixels = self.graph.input(
            "pixels",
            &[
                Axis::Free("batch"),
                Axis::Fixed(3),
                Axis::Fixed(image_size),
                Axis::Fixed(image_size),
            ],
        );
        let mut hidden = self.embed(backbone, &pixels);
        if let Some(norm) = &weights.pre_norm {
            hidden = self.layer_norm("pre_norm", norm, &hidden);
        }
        let (name, norm) = weights
            .layers
            .first()
            .map_or(("final_norm", &weights.final_norm), |layer| {
                ("layers.0.norm1", &layer.norm1)
            });
        let mut normed = self.layer_norm(name, norm, &hidden);
        let mut cls_attention = None;
        for (index, layer) in weights.layers.iter().enumerate() {
            let next = weights.layers.get(index + 1);
            let next_norm = match next {
                Some(next) => (format!("layers.{}.norm1", index + 1), &next.norm1),
                None => ("final_norm".to_owned(), &weights.final_norm),
            };
            (hidden, normed) = self.layer(index, layer, &hidden, &normed, next_norm);
            if next.is_none() {
                cls_attention = Some(self.cls_attention(index, layer));
            }
        }
        let feature = self.pool(&normed, weights.projection.as_ref());
        let last_hidden_state = match config.architecture {
            Architecture::Clip => hidden,
            Architecture::Vit | Architecture::Dinov2 => normed,
        };
        let batch = || Axis::Free("batch");
        self.graph.output(
            "feature",
            &feature,
            &[batch(), Axis::Fixed(config.feature_width())],
        );
        if let Some(cls_attention) = cls_attention {
            self.graph.output(
                "cls_attention",
                &cls_attention,
                &[batch(), Axis::Fixed(patches)],
            );
        }
        self.graph.output(
            "last_hidden_state",
            &last_hidden_state,
            &[batch(), Axis::Fixed(1 + patches), Axis::Fixed(width)],
        );
        self.graph
            .into_model("backbone", &[("backbone_digest", &backbone.digest)])
    }

    /// Patches, class token and position: `[batch, 1 + grid², width]`.
    fn embed(&mut self, backbone: &Backbone, pixels: &str) -> Value {
        let config = self.config;
        let (width, patch) = (config.width, config.patch_size);
        let weights = &backbone.weights;
        let position =
            interpolate_position_embedding(&weights.position, config.native_grid(), self.grid);
        let (cls_position, patch_position) = position.data().split_at(width);
        let cls: Vec<f32> = std::iter::zip(weights.cls_token.data(), cls_position)
            .map(|(token, position)| token + position)
            .collect();

        let graph = &mut self.graph;
        let kernel = graph.constant(
            "patch.weight",
            &[width, 3, patch, patch],
            weights.patch.weight.data(),
        );
        let mut inputs = vec![pixels.to_owned(), kernel];
        if let Some(bias) = &weights.patch.bias {
            inputs.push(graph.constant("patch.bias", &[width], bias.data()));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let side = patch as i64;
        let patches = graph.node_with(
            "patch",
            "",
            "Conv",
            &inputs,
            [
                ("kernel_shape", Attribute::Ints(vec![side, side])),
                ("strides", Attribute::Ints(vec![side, side])),
            ],
        );
        let flat_shape = graph.integers("patch.flat_shape", &[0, width as i64, -1]);
        let flat = graph.node("patch.flat", "Reshape", &[&patches, &flat_shape]);
        let tokens = graph.node_with(
            "patch.tokens",
            "",
            "Transpose",
            &[&flat],
            [("perm", Attribute::Ints(vec![0, 2, 1]))],
        );
        let patch_position = graph.constant(
            "patch.position",
            &[1, self.grid * self.grid, width],
            patch_position,
        );
        let placed = graph.node("patch.placed", "Add", &[&tokens, &patch_position]);
        // One class token an image: the batch is known only at run time.
        let shape = graph.node("pixels.shape", "Shape", &[pixels]);
        let zero = graph.integers("zero", &[0]);
        let batch = graph.node("pixels.batch", "Gather", &[&shape, &zero]);
        let rest = graph.integers("cls.rest", &[1, width as i64]);
        let cls_shape = graph.node_with(
            "cls.shape",
            "",
            "Concat",
            &[&batch, &rest],
            [("axis", Attribute::Int(0))],
        );
        let cls = graph.constant("cls.placed", &[1, 1, width], &cls);
        let cls = graph.node("cls.tokens", "Expand", &[&cls, &cls_shape]);
        graph.node_with(
            "tokens",
            "",
            "Concat",
            &[&cls, &placed],
            [("axis", Attribute::Int(1))],
        )
    }

    /// One layer. Takes the hidden state and its `norm1`; gives the new hidden state and its `next_norm`.
    fn layer(
        &mut self,
        index: usize,
        layer: &LayerWeights,
        hidden: &str,
        normed: &str,
        (next_name, next_norm): (String, &Affine),
    ) -> (Value, Value) {
        let name = |part: &str| format!("layers.{index}.{part}");
        let context = match self.operators {
            Operators::OnnxRuntime => self.fused_attention(index, layer, normed),
            Operators::Standard => {
                let query = self.linear(&name("query"), &layer.query, normed);
                let key = self.linear(&name("key"), &layer.key, normed);
                let value = self.linear(&name("value"), &layer.value, normed);
                self.attention(&name("attention"), &query, &key, &value)
            }
        };
        let scale = layer.scale1.as_ref();
        let attended = self.product(&name("output"), &layer.output, scale, &context);
        let bias = self.bias(&name("output"), &layer.output, scale);
        let (hidden, normed) = self.residual(
            &name("residual1"),
            [hidden, &attended],
            bias,
            &name("norm2"),
            &layer.norm2,
        );
        let inner = self.linear(&name("mlp_in"), &layer.mlp_in, &normed);
        let active = self.activation(&name("activation"), &inner);
        let scale = layer.scale2.as_ref();
        let outer = self.product(&name("mlp_out"), &layer.mlp_out, scale, &active);
        let bias = self.bias(&name("mlp_out"), &layer.mlp_out, scale);
        self.residual(
            &name("residual2"),
            [&hidden, &outer],
            bias,
            &next_name,
            next_norm,
        )
    }

    /// `sum = a + b + bias` and its LayerNorm.
    fn residual(
        &mut self,
        name: &str,
        [a, b]: [&str; 2],
        bias: Option<Value>,
        norm_name: &str,
        norm: &Affine,
    ) -> (Value, Value) {
        if self.operators == Operators::Standard {
            let mut sum = b.to_owned();
            if let Some(bias) = bias {
                sum = self
                    .graph
                    .node(&format!("{name}.biased"), "Add", &[&sum, &bias]);
            }
            let sum = self.graph.node(name, "Add", &[a, &sum]);
            let normed = self.layer_norm(norm_name, norm, &sum);
            return (sum, normed);
        }
        let [weight, shift] = self.affine(norm_name, norm);
        let mut inputs = vec![a, b, &weight, &shift];
        if let Some(bias) = &bias {
            inputs.push(bias);
        }
        // Outputs two and three are the mean and the inverse deviation, which only training reads.
        self.graph.push(
            &[norm_name, "", "", name],
            MICROSOFT,
            "SkipLayerNormalization",
            &inputs,
            [("epsilon", Attribute::Float(self.config.layer_norm_epsilon))],
        );
        (name.to_owned(), norm_name.to_owned())
    }

    /// Attention with the projections' biases added inside.
    fn fused_attention(&mut self, index: usize, layer: &LayerWeights, normed: &str) -> Value {
        let name = |part: &str| format!("layers.{index}.{part}");
        let query = self.product(&name("query"), &layer.query, None, normed);
        let key = self.product(&name("key"), &layer.key, None, normed);
        let value = self.product(&name("value"), &layer.value, None, normed);
        let width = self.config.width;
        let biases = [&layer.query, &layer.key, &layer.value].map(|linear| linear.bias.as_ref());
        let mut inputs = vec![query.as_str(), key.as_str(), value.as_str()];
        let bias;
        if biases.iter().any(Option::is_some) {
            let mut joined = vec![0.0; 3 * width];
            for (part, bias) in joined.chunks_exact_mut(width).zip(biases) {
                if let Some(bias) = bias {
                    part.copy_from_slice(bias.data());
                }
            }
            bias = self
                .graph
                .constant(&name("attention.bias"), &[3 * width], &joined);
            inputs.push(&bias);
        }
        self.graph.node_with(
            &name("attention"),
            MICROSOFT,
            "MultiHeadAttention",
            &inputs,
            [("num_heads", Attribute::Int(self.config.heads as i64))],
        )
    }

    /// `x·weightᵀ + bias`
    fn linear(&mut self, name: &str, linear: &Linear, x: &str) -> Value {
        let product = self.product(name, linear, None, x);
        match self.bias(name, linear, None) {
            None => product,
            Some(bias) => self.graph.node(name, "Add", &[&product, &bias]),
        }
    }

    /// `scale ⊙ (x·weightᵀ)`, with the scale folded into the constant.
    fn product(&mut self, name: &str, linear: &Linear, scale: Option<&Tensor>, x: &str) -> Value {
        let (out, inputs) = (linear.weight.shape()[0], linear.weight.shape()[1]);
        let scale = |row: usize| scale.map_or(1.0, |scale| scale.data()[row]);
        let mut transposed = vec![0.0f32; out * inputs];
        for (row, values) in linear.weight.data().chunks_exact(inputs).enumerate() {
            for (column, value) in values.iter().enumerate() {
                transposed[column * out + row] = value * scale(row);
            }
        }
        let weight = self
            .graph
            .constant(&format!("{name}.weight"), &[inputs, out], &transposed);
        self.graph
            .node(&format!("{name}.product"), "MatMul", &[x, &weight])
    }

    /// `scale ⊙ bias`
    fn bias(&mut self, name: &str, linear: &Linear, scale: Option<&Tensor>) -> Option<Value> {
        let mut bias = linear.bias.clone()?;
        if let Some(scale) = scale {
            for (value, scale) in bias.data_mut().iter_mut().zip(scale.data()) {
                *value *= scale;
            }
        }
        Some(
            self.graph
                .constant(&format!("{name}.bias"), bias.shape(), bias.data()),
        )
    }

    fn layer_norm(&mut self, name: &str, norm: &Affine, x: &str) -> Value {
        let [weight, bias] = self.affine(name, norm);
        self.graph.node_with(
            name,
            "",
            "LayerNormalization",
            &[x, &weight, &bias],
            [
                ("axis", Attribute::Int(-1)),
                ("epsilon", Attribute::Float(self.config.layer_norm_epsilon)),
            ],
        )
    }

    fn affine(&mut self, name: &str, norm: &Affine) -> [Value; 2] {
        [("weight", &norm.weight), ("bias", &norm.bias)].map(|(part, values)| {
            self.graph
                .constant(&format!("{name}.{part}"), values.shape(), values.data())
        })
    }

    fn activation(&mut self, name: &str, x: &str) -> Value {
        match (self.config.activation, self.operators) {
            (Activation::Gelu, _) => self.graph.node(name, "Gelu", &[x]),
            (Activation::QuickGelu, Operators::OnnxRuntime) => self.graph.node_with(
                name,
                MICROSOFT,
                "QuickGelu",
                &[x],
                [("alpha", Attribute::Float(1.702))],
            ),
            (Activation::QuickGelu, Operators::Standard) => {
                let factor = self
                    .graph
                    .constant(&format!("{name}.factor"), &[], &[1.702]);
                let scaled = self
                    .graph
                    .node(&format!("{name}.scaled"), "Mul", &[x, &factor]);
                let gate = self
                    .graph
                    .node(&format!("{name}.gate"), "Sigmoid", &[&scaled]);
                self.graph.node(name, "Mul", &[x, &gate])
            }
        }
    }

    /// `[batch, tokens, width]` -> `[batch, heads, tokens, head_width]`
    fn split_heads(&mut self, name: &str, x: &str, perm: [i64; 4]) -> Value {
        let shape = self.graph.integers(
            &format!("{name}.split_shape"),
            &[
                0,
                0,
                self.config.heads as i64,
                self.config.head_width() as i64,
            ],
        );
        let split = self
            .graph
            .node(&format!("{name}.split"), "Reshape", &[x, &shape]);
        self.graph.node_with(
            &format!("{name}.heads"),
            "",
            "Transpose",
            &[&split],
            [("perm", Attribute::Ints(perm.to_vec()))],
        )
    }

    /// `softmax(q·kᵀ/√head_width)` for heads already split.
    fn attention_weights(&mut self, name: &str, query: &str, key: &str) -> Value {
        let scores = self
            .graph
            .node(&format!("{name}.scores"), "MatMul", &[query, key]);
        let factor = 1.0 / (self.config.head_width() as f32).sqrt();
        let factor = self
            .graph
            .constant(&format!("{name}.factor"), &[], &[factor]);
        let scaled = self
            .graph
            .node(&format!("{name}.scaled"), "Mul", &[&scores, &factor]);
        self.graph.node_with(
            &format!("{name}.weights"),
            "",
            "Softmax",
            &[&scaled],
            [("axis", Attribute::Int(-1))],
        )
    }

    fn attention(&mut self, name: &str, query: &str, key: &str, value: &str) -> Value {
        let query = self.split_heads(&format!("{name}.query"), query, [0, 2, 1, 3]);
        let key = self.split_heads(&format!("{name}.key"), key, [0, 2, 3, 1]);
        let value = self.split_heads(&format!("{name}.value"), value, [0, 2, 1, 3]);
        let weights = self.attention_weights(name, &query, &key);
        let context = self
            .graph
            .node(&format!("{name}.context"), "MatMul", &[&weights, &value]);
        let joined = self.graph.node_with(
            &format!("{name}.joined"),
            "",
            "Transpose",
            &[&context],
            [("perm", Attribute::Ints(vec![0, 2, 1, 3]))],
        );
        let shape = self
            .graph
            .integers(&format!("{name}.shape"), &[0, 0, self.config.width as i64]);
        self.graph.node(name, "Reshape", &[&joined, &shape])
    }

    /// The class token's row of layer `index`'s attention over the patches, mean over heads: `[batch, grid²]`.
    fn cls_attention(&mut self, index: usize, layer: &LayerWeights) -> Value {
        // Without biases: that of the key adds the same to every score of a row, which softmax does not see.
        let query = format!("layers.{index}.query.product");
        let key = format!("layers.{index}.key.product");
        let mut cls_query = self.tokens("cls_attention.query", &query, 0, 1);
        if let Some(bias) = self.bias("cls_attention.query", &layer.query, None) {
            cls_query = self
                .graph
                .node("cls_attention.query", "Add", &[&cls_query, &bias]);
        }
        let query = self.split_heads("cls_attention.query", &cls_query, [0, 2, 1, 3]);
        let key = self.split_heads("cls_attention.key", &key, [0, 2, 3, 1]);
        let weights = self.attention_weights("cls_attention", &query, &key);
        let axes = self.graph.integers("cls_attention.axes", &[1, 2]);
        let mean = self.graph.node_with(
            "cls_attention.mean",
            "",
            "ReduceMean",
            &[&weights, &axes],
            [("keepdims", Attribute::Int(0))],
        );
        let patches = (self.grid * self.grid) as i64;
        let start = self.graph.integers("cls_attention.start", &[1]);
        let end = self.graph.integers("cls_attention.end", &[1 + patches]);
        let axis = self.graph.integers("cls_attention.axis", &[1]);
        self.graph.node(
            "cls_attention.patches",
            "Slice",
            &[&mean, &start, &end, &axis],
        )
    }

    /// Tokens `start..end` of `[batch, tokens, width]`.
    fn tokens(&mut self, name: &str, x: &str, start: usize, end: usize) -> Value {
        let first = self
            .graph
            .integers(&format!("{name}.first_token"), &[start as i64]);
        let past = self
            .graph
            .integers(&format!("{name}.past_token"), &[end as i64]);
        let axis = self.graph.integers(&format!("{name}.token_axis"), &[1]);
        self.graph.node(
            &format!("{name}.tokens"),
            "Slice",
            &[x, &first, &past, &axis],
        )
    }

    fn pool(&mut self, normed: &str, projection: Option<&Tensor>) -> Value {
        let cls = |this: &mut Self| {
            let token = this.tokens("pool.cls", normed, 0, 1);
            let axis = this.graph.integers("pool.cls.axis", &[1]);
            this.graph.node("pool.cls", "Squeeze", &[&token, &axis])
        };
        let mean = |this: &mut Self| {
            let patches = this.tokens("pool.mean", normed, 1, 1 + this.grid * this.grid);
            let axes = this.graph.integers("pool.mean.axes", &[1]);
            this.graph.node_with(
                "pool.mean",
                "",
                "ReduceMean",
                &[&patches, &axes],
                [("keepdims", Attribute::Int(0))],
            )
        };
        let pooled = match self.config.pooling {
            Pooling::Cls => cls(self),
            Pooling::Mean => mean(self),
            Pooling::ClsMean => {
                let (cls, mean) = (cls(self), mean(self));
                self.graph.node_with(
                    "pool",
                    "",
                    "Concat",
                    &[&cls, &mean],
                    [("axis", Attribute::Int(1))],
                )
            }
        };
        match projection {
            None => pooled,
            Some(weight) => {
                let linear = Linear {
                    weight: weight.clone(),
                    bias: None,
                };
                self.product("projection", &linear, None, &pooled)
            }
        }
    }
}
