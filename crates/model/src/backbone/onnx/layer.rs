//! One transformer layer as ONNX nodes: attention, MLP, residuals, LayerNorm, low-rank changes and the class token's attention.

use super::export::{Exporter, Operators, SLOT_INPUT, lora_inputs};
use super::graph::{Attribute, Axis, MICROSOFT, Value};
use crate::backbone::Target;
use crate::backbone::config::Activation;
use crate::backbone::weights::{LayerNorm, LayerWeights, Linear};
use crate::tensor::Tensor;

impl Exporter<'_> {
    /// One layer. Takes the hidden state and its `norm1`; gives the new hidden state and its `next_norm`.
    pub(super) fn layer(
        &mut self,
        index: usize,
        layer: &LayerWeights,
        hidden: &str,
        normed: &str,
        (next_name, next_norm): (String, &LayerNorm),
    ) -> (Value, Value) {
        let name = |part: &str| format!("layers.{index}.{part}");
        let context = match self.operators {
            Operators::OnnxRuntime => self.fused_attention(index, layer, normed),
            Operators::Standard => {
                let query = self.linear(index, Target::Query, &layer.query, normed);
                let key = self.linear(index, Target::Key, &layer.key, normed);
                let value = self.linear(index, Target::Value, &layer.value, normed);
                self.attention(&name("attention"), &query, &key, &value)
            }
        };
        let scale = layer.scale1.as_ref();
        let attended = self.adapted_product(index, Target::Output, &layer.output, scale, &context);
        let bias = self.bias(&name("output"), &layer.output, scale);
        let (hidden, normed) = self.residual(
            &name("residual1"),
            [hidden, &attended],
            bias,
            &name("norm2"),
            &layer.norm2,
        );
        let inner = self.linear(index, Target::MlpIn, &layer.mlp_in, &normed);
        let active = self.activation(&name("activation"), &inner);
        let scale = layer.scale2.as_ref();
        let outer = self.adapted_product(index, Target::MlpOut, &layer.mlp_out, scale, &active);
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
        norm: &LayerNorm,
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
        let query = self.adapted_product(index, Target::Query, &layer.query, None, normed);
        let key = self.adapted_product(index, Target::Key, &layer.key, None, normed);
        let value = self.adapted_product(index, Target::Value, &layer.value, None, normed);
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

    /// `x·weightᵀ + bias` with its low-rank change.
    fn linear(&mut self, index: usize, target: Target, linear: &Linear, x: &str) -> Value {
        let product = self.adapted_product(index, target, linear, None, x);
        let name = &format!("layers.{index}.{}", target.name());
        match self.bias(name, linear, None) {
            None => product,
            Some(bias) => self.graph.node(name, "Add", &[&product, &bias]),
        }
    }

    /// `scale ⊙ (x·weightᵀ + x·Aᵀ·Bᵀ)` of a linear map in layer `index`, with the LoRA matrices of each image's slot.
    fn adapted_product(
        &mut self,
        index: usize,
        target: Target,
        linear: &Linear,
        scale: Option<&Tensor>,
        x: &str,
    ) -> Value {
        let name = format!("layers.{index}.{}", target.name());
        let product = self.product(&name, linear, scale, x);
        if !self.adapted.contains(&target) {
            return product;
        }
        let (out, inputs) = (linear.weight.shape()[0], linear.weight.shape()[1]);
        let [a, b] = lora_inputs(index, target);
        let (slots, rank) = (|| Axis::Free("slots"), || Axis::Free("rank"));
        self.graph
            .input(&a, &[slots(), Axis::Fixed(inputs), rank()]);
        self.graph.input(&b, &[slots(), rank(), Axis::Fixed(out)]);
        let [a, b] = [a, b].map(|matrix| {
            self.graph
                .node(&format!("{matrix}.own"), "Gather", &[&matrix, SLOT_INPUT])
        });
        let narrow = self
            .graph
            .node(&format!("{name}.lora_narrow"), "MatMul", &[x, &a]);
        let mut change = self
            .graph
            .node(&format!("{name}.lora_change"), "MatMul", &[&narrow, &b]);
        if let Some(scale) = scale {
            let scale = self
                .graph
                .constant(&format!("{name}.lora_scale"), &[out], scale.data());
            change = self
                .graph
                .node(&format!("{name}.lora_scaled"), "Mul", &[&change, &scale]);
        }
        self.graph
            .node(&adapted_name(index, target), "Add", &[&product, &change])
    }

    /// What [`Self::adapted_product`] called its result.
    fn projected(&self, index: usize, target: Target) -> Value {
        if self.adapted.contains(&target) {
            adapted_name(index, target)
        } else {
            format!("layers.{index}.{}.product", target.name())
        }
    }

    /// `scale ⊙ (x·weightᵀ)`, with the scale folded into the constant.
    pub(super) fn product(
        &mut self,
        name: &str,
        linear: &Linear,
        scale: Option<&Tensor>,
        x: &str,
    ) -> Value {
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

    pub(super) fn layer_norm(&mut self, name: &str, norm: &LayerNorm, x: &str) -> Value {
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

    fn affine(&mut self, name: &str, norm: &LayerNorm) -> [Value; 2] {
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
    pub(super) fn cls_attention(&mut self, index: usize, layer: &LayerWeights) -> Value {
        // Without biases: that of the key adds the same to every score of a row, which softmax does not see.
        let query = self.projected(index, Target::Query);
        let key = self.projected(index, Target::Key);
        let mut cls_query = self.tokens("cls_attention.query", &query, 0, 1);
        if let Some(bias) = self.bias("cls_attention.query", &layer.query, None) {
            cls_query = self
                .graph
                .node("cls_attention.query", "Add", &[&cls_query, &bias]);
        }
        let query = self.split_heads("cls_attention.query", &cls_query, [0, 2, 1, 3]);
        let key = self.split_heads("cls_attention.key", &key, [0, 2, 3, 1]);
        let weights = self.attention_weights("cls_attention", &query, &key);
        let (heads, tokens) = (self.config.heads, 1 + self.grid * self.grid);
        let shape = [0, heads as i64, tokens as i64];
        let shape = self.graph.integers("cls_attention.row_shape", &shape);
        let rows = self
            .graph
            .node("cls_attention.rows", "Reshape", &[&weights, &shape]);
        let mean = self.mean(
            "cls_attention.mean",
            &vec![1.0 / heads as f32; heads],
            &rows,
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
}

fn adapted_name(index: usize, target: Target) -> Value {
    format!("layers.{index}.{}.adapted", target.name())
}
