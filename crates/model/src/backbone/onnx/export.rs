//! Writes a backbone's forward pass as an ONNX graph.

use super::graph::{Attribute, Axis, Graph, Value};
use crate::backbone::config::{Architecture, Pooling};
use crate::backbone::position::interpolate_position_embedding;
use crate::backbone::weights::Linear;
use crate::backbone::{Backbone, BackboneConfig, Resample, Target};
use crate::tensor::Tensor;
use thiserror::Error;

/// Changes with every change of the graphs written here, so that cached files of an older program are not used.
pub const GRAPH_VERSION: u32 = 2;

/// Names of the graph's inputs for the LoRA matrices of `target` in `layer`: `A` transposed `[slots, in, rank]`, and `B` transposed
/// with the scale in it, `[slots, rank, out]`.
pub fn lora_inputs(layer: usize, target: Target) -> [String; 2] {
    ["a", "b"].map(|matrix| format!("layers.{layer}.{}.lora_{matrix}", target.name()))
}

/// Input of the graph that says for each image in which slot its adapter is, `[batch]`.
pub const SLOT_INPUT: &str = "adapter_slot";

/// Which operators the graph may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operators {
    /// ONNX Runtime's fused attention and QuickGELU beside the standard ones.
    OnnxRuntime,
    /// Standard ONNX only, for other runtimes and for ONNX Runtime on CUDA without cuDNN.
    Standard,
}

/// Why a backbone cannot be written as ONNX.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum OnnxError {
    #[error(
        "image size {image_size} px is not a multiple of the patch size {patch_size} px; the nearest that is: {nearest}"
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
    #[error(
        "the backbone's preprocessing does not make pictures of one size, which a graph needs; serve it with --image-size"
    )]
    NoImageSize,
    #[error(
        "the backbone's preprocessing resizes with the filter {0:?}, which ONNX does not have; it has bilinear and bicubic"
    )]
    Resample(Resample),
}

/// Largest serialised protobuf message, less room for the nodes.
const LARGEST_MODEL_BYTES: usize = i32::MAX as usize - (16 << 20);

/// Writes the forward pass at `image_size` as an ONNX model.
///
/// Input `pixels` `[batch, 3, image_size, image_size]`; outputs `feature` `[batch, feature_width]`, `cls_attention`
/// `[batch, grid²]` (last layer, mean over heads) and `last_hidden_state` `[batch, 1 + grid², width]` (after the final
/// LayerNorm; for CLIP, whose final LayerNorm belongs to the pooled token, before it).
///
/// # Errors
/// [`OnnxError`] where the image size does not fit the patch or the weights do not fit a file.
pub fn export(
    backbone: &Backbone,
    image_size: usize,
    operators: Operators,
) -> Result<Vec<u8>, OnnxError> {
    export_with_adapters(backbone, image_size, operators, &[])
}

/// As [`export`], with low-rank changes of the linear maps `adapted` in every layer: the graph takes the LoRA matrices of many adapters stacked by
/// slot ([`lora_inputs`]) and gathers those of each image by [`SLOT_INPUT`], so that one batch mixes adapters.
/// Slots and rank are free axes.
///
/// # Errors
/// As [`export`].
pub fn export_with_adapters(
    backbone: &Backbone,
    image_size: usize,
    operators: Operators,
    adapted: &[Target],
) -> Result<Vec<u8>, OnnxError> {
    let grid = checked_grid(backbone, image_size)?;
    let exporter = Exporter {
        graph: Graph::default(),
        config: &backbone.config,
        operators,
        adapted,
        grid,
    };
    Ok(exporter.export(backbone, image_size))
}

/// Patches along one side of an image.
///
/// # Errors
/// [`OnnxError`] where the image size does not fit the patch or the weights do not fit a file.
pub(super) fn checked_grid(backbone: &Backbone, image_size: usize) -> Result<usize, OnnxError> {
    let config = &backbone.config;
    let patch_size = config.patch_size;
    let grid = config.grid(image_size).ok_or(OnnxError::ImageSize {
        image_size,
        patch_size,
        nearest: ((image_size + patch_size / 2) / patch_size).max(1) * patch_size,
    })?;
    let bytes = 4 * backbone.weights.parameter_count();
    if bytes > LARGEST_MODEL_BYTES {
        return Err(OnnxError::TooLarge { bytes });
    }
    Ok(grid)
}

pub(super) struct Exporter<'b> {
    pub(super) graph: Graph,
    pub(super) config: &'b BackboneConfig,
    pub(super) operators: Operators,
    pub(super) adapted: &'b [Target],
    /// Patches along one side.
    pub(super) grid: usize,
}

/// Values that the last layer leaves.
pub(super) struct Outputs {
    pub(super) feature: Value,
    cls_attention: Option<Value>,
    last_hidden_state: Value,
}

impl Exporter<'_> {
    fn export(mut self, backbone: &Backbone, image_size: usize) -> Vec<u8> {
        let config = self.config;
        let (width, patches) = (config.width, self.grid * self.grid);
        let pixels = self.graph.input(
            "pixels",
            &[
                Axis::Free("batch"),
                Axis::Fixed(3),
                Axis::Fixed(image_size),
                Axis::Fixed(image_size),
            ],
        );
        if !self.adapted.is_empty() {
            self.graph.integer_input(SLOT_INPUT, &[Axis::Free("batch")]);
        }
        let Outputs {
            feature,
            cls_attention,
            last_hidden_state,
        } = self.forward(backbone, &pixels);
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

    /// All layers over `pixels` `[batch, 3, image size, image size]`.
    pub(super) fn forward(&mut self, backbone: &Backbone, pixels: &str) -> Outputs {
        let config = self.config;
        let weights = &backbone.weights;
        let mut hidden = self.embed(backbone, pixels);
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
        Outputs {
            feature,
            cls_attention,
            last_hidden_state,
        }
    }

    /// Patches, class token and position: `[batch, 1 + grid², width]`. The patches go through a product: a convolution, and a shape that is
    /// computed to repeat the class token, are what ONNX Runtime cannot do on CUDA without cuDNN or the CPU.
    fn embed(&mut self, backbone: &Backbone, pixels: &str) -> Value {
        let config = self.config;
        let (width, patch, grid) = (config.width, config.patch_size, self.grid);
        let weights = &backbone.weights;
        let values = 3 * patch * patch;
        let ints = |sides: &[usize]| sides.iter().map(|&side| side as i64).collect::<Vec<_>>();
        let graph = &mut self.graph;
        let sides = graph.integers("patch.sides", &ints(&[0, 3, grid, patch, grid, patch]));
        let split = graph.node("patch.split", "Reshape", &[pixels, &sides]);
        let gathered = graph.node_with(
            "patch.gathered",
            "",
            "Transpose",
            &[&split],
            [("perm", Attribute::Ints(vec![0, 2, 4, 1, 3, 5]))],
        );
        let rows = graph.integers("patch.row_shape", &ints(&[0, grid * grid, values]));
        let rows = graph.node("patch.rows", "Reshape", &[&gathered, &rows]);
        let patches = self.product("patch", &weights.patch, None, &rows);
        // A row of zeros in front, to which the class token is added.
        let graph = &mut self.graph;
        let room = graph.integers("tokens.room", &[0, 1, 0, 0, 0, 0]);
        let tokens = graph.node("tokens.padded", "Pad", &[&patches, &room]);
        let mut added =
            interpolate_position_embedding(&weights.position, config.native_grid(), grid);
        for (row, token) in added.data_mut().chunks_exact_mut(width).enumerate() {
            let own = match row {
                0 => Some(&weights.cls_token),
                _ => weights.patch.bias.as_ref(),
            };
            let own = own.map_or(&[][..], Tensor::data);
            for (value, own) in std::iter::zip(token, own) {
                *value += own;
            }
        }
        let added = graph.constant("tokens.added", &[1, 1 + grid * grid, width], added.data());
        graph.node("tokens", "Add", &[&tokens, &added])
    }

    /// Tokens `start..end` of `[batch, tokens, width]`.
    pub(super) fn tokens(&mut self, name: &str, x: &str, start: usize, end: usize) -> Value {
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
            let patches = this.grid * this.grid;
            let mut weights = vec![1.0 / patches as f32; 1 + patches];
            weights[0] = 0.0;
            this.mean("pool.mean", &weights, normed)
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

    /// `Σ_i weights_i·x[:, i, :]` of `x` `[batch, rows, width]`: `[batch, width]`. A product, since ONNX Runtime's means on CUDA need cuDNN.
    pub(super) fn mean(&mut self, name: &str, weights: &[f32], x: &str) -> Value {
        let weights = self
            .graph
            .constant(&format!("{name}.weights"), &[1, weights.len()], weights);
        let row = self
            .graph
            .node(&format!("{name}.row"), "MatMul", &[&weights, x]);
        let axis = self.graph.integers(&format!("{name}.axis"), &[1]);
        self.graph.node(name, "Squeeze", &[&row, &axis])
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::ModelProto;
    use super::*;
    use crate::backbone::load_folder;
    use prost::Message;
    use std::collections::BTreeSet;
    use test_support::project;

    /// What onnxruntime-gpu 1.31.1 computes on CUDA without cuDNN, in these versions of the operators. A convolution, a mean and the fused
    /// attention need cuDNN; what is computed from a shape goes to the CPU.
    const ON_CUDA: [&str; 15] = [
        "Add",
        "Concat",
        "Gather",
        "Gelu",
        "Identity",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "Pad",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Squeeze",
        "Transpose",
    ];

    #[test]
    fn the_standard_graph_has_only_operators_that_cuda_computes_without_cudnn() {
        let golden = |name: &str| load_folder(&project("tests/golden").join(name)).unwrap();
        let mut pooled = golden("dinov2-tiny");
        pooled.config.pooling = Pooling::ClsMean;
        let mut used = BTreeSet::new();
        for backbone in [golden("vit-tiny"), golden("clip-tiny"), pooled] {
            let size = backbone.image_size();
            let model = export_with_adapters(&backbone, size, Operators::Standard, &Target::ALL);
            let model = ModelProto::decode(&*model.unwrap()).unwrap();
            for node in model.graph.unwrap().node {
                assert_eq!(node.domain, "", "{}", node.name);
                used.insert(node.op_type);
            }
        }
        assert_eq!(used, ON_CUDA.map(str::to_owned).into());
    }
}
