//! The weights of a vision transformer in one layout for all families.

use crate::tensor::Tensor;

/// `y = x·weightᵀ + bias`; `weight` is `[out, in]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

/// LayerNorm's scale and shift, each `[width]`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// The scale.
    pub weight: Tensor,
    /// The shift.
    pub bias: Tensor,
}

/// One transformer layer: `h = x + s1·attention(norm1(x))`, `y = h + s2·mlp(norm2(h))`.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// Before attention.
    pub norm1: LayerNorm,
    /// `[width, width]`
    pub query: Linear,
    /// `[width, width]`
    pub key: Linear,
    /// `[width, width]`
    pub value: Linear,
    /// `[width, width]`, from the heads back to the residual stream.
    pub output: Linear,
    /// LayerScale `s1` after attention, `[width]` (DINOv2).
    pub scale1: Option<Tensor>,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// `[mlp_width, width]`
    pub mlp_in: Linear,
    /// `[width, mlp_width]`
    pub mlp_out: Linear,
    /// LayerScale `s2` after the MLP, `[width]` (DINOv2).
    pub scale2: Option<Tensor>,
}

/// Called with `(name, shape, values)` of a tensor.
pub type Visitor<'a> = &'a mut dyn FnMut(&str, &[usize], &[f32]);

/// All weights of a backbone.
#[derive(Debug, Clone)]
pub struct Weights {
    /// `weight` is `[width, 3·patch·patch]`, columns in the order channel, row, column.
    pub patch: Linear,
    /// `[width]`
    pub cls_token: Tensor,
    /// `[1 + grid², width]`, row 0 for the class token, at the native grid.
    pub position: Tensor,
    /// LayerNorm before the layers (CLIP).
    pub pre_norm: Option<LayerNorm>,
    /// In order.
    pub layers: Vec<LayerWeights>,
    /// LayerNorm after the layers; CLIP applies it to the pooled token only, which is the same for one token.
    pub final_norm: LayerNorm,
    /// `[projection_width, pooled_width]` (CLIP).
    pub projection: Option<Tensor>,
}

impl Weights {
    /// Calls `visit(name, shape, values)` for every tensor in one fixed order, with names that do not depend on the family.
    pub fn visit(&self, visit: Visitor<'_>) {
        linear("patch", &self.patch, visit);
        tensor("cls_token", &self.cls_token, visit);
        tensor("position", &self.position, visit);
        if let Some(norm) = &self.pre_norm {
            affine("pre_norm", norm, visit);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("layers.{index}.{part}");
            affine(&name("norm1"), &layer.norm1, visit);
            linear(&name("query"), &layer.query, visit);
            linear(&name("key"), &layer.key, visit);
            linear(&name("value"), &layer.value, visit);
            linear(&name("output"), &layer.output, visit);
            if let Some(scale) = &layer.scale1 {
                tensor(&name("scale1"), scale, visit);
            }
            affine(&name("norm2"), &layer.norm2, visit);
            linear(&name("mlp_in"), &layer.mlp_in, visit);
            linear(&name("mlp_out"), &layer.mlp_out, visit);
            if let Some(scale) = &layer.scale2 {
                tensor(&name("scale2"), scale, visit);
            }
        }
        affine("final_norm", &self.final_norm, visit);
        if let Some(projection) = &self.projection {
            tensor("projection", projection, visit);
        }
    }

    /// Number of values over all tensors.
    pub fn parameter_count(&self) -> usize {
        let mut count = 0;
        self.visit(&mut |_, _, values| count += values.len());
        count
    }
}

fn tensor(name: &str, tensor: &Tensor, visit: Visitor<'_>) {
    visit(name, tensor.shape(), tensor.data());
}

fn linear(name: &str, linear: &Linear, visit: Visitor<'_>) {
    tensor(&format!("{name}.weight"), &linear.weight, visit);
    if let Some(bias) = &linear.bias {
        tensor(&format!("{name}.bias"), bias, visit);
    }
}

fn affine(name: &str, affine: &LayerNorm, visit: Visitor<'_>) {
    tensor(&format!("{name}.weight"), &affine.weight, visit);
    tensor(&format!("{name}.bias"), &affine.bias, visit);
}
