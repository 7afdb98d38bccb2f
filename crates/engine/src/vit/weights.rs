//! A backbone's weights in a backend's memory.

use crate::backend::{Backend, Norm};
use model::backbone::{BackboneConfig, LayerNorm, Linear, Weights, interpolate_position_embedding};
use model::tensor::Tensor;
use std::collections::BTreeMap;

/// LayerNorm's parameters.
pub struct NormVectors<B: Backend> {
    weight: B::Vector,
    bias: B::Vector,
    epsilon: f32,
}

impl<B: Backend> NormVectors<B> {
    fn new(backend: &B, affine: &LayerNorm, epsilon: f32) -> Self {
        Self {
            weight: backend.vector(affine.weight.data()),
            bias: backend.vector(affine.bias.data()),
            epsilon,
        }
    }

    pub fn get(&self) -> Norm<'_, B::Vector> {
        Norm {
            weight: &self.weight,
            bias: &self.bias,
            epsilon: self.epsilon,
        }
    }
}

pub struct Layer<B: Backend> {
    pub norm1: NormVectors<B>,
    pub query: B::Weight,
    /// `[2·width, width]`: keys, then values
    pub key_value: B::Weight,
    pub query_bias: B::Vector,
    pub value_bias: B::Vector,
    pub output: B::Weight,
    pub output_bias: B::Vector,
    pub scale1: Option<B::Vector>,
    pub norm2: NormVectors<B>,
    pub mlp_in: B::Weight,
    pub mlp_in_bias: B::Vector,
    pub mlp_out: B::Weight,
    pub mlp_out_bias: B::Vector,
    pub scale2: Option<B::Vector>,
}

/// All weights of a backbone, and its position embedding at the grids that were asked for.
pub struct Network<B: Backend> {
    /// Of the backbone.
    pub config: BackboneConfig,
    /// `[width, 3·patch²]`
    pub patch: B::Weight,
    /// `[width]`; CLIP has none.
    pub patch_bias: Option<B::Vector>,
    /// `[width]`
    pub class_token: B::Vector,
    native_position: Tensor,
    positions: BTreeMap<usize, B::Vector>,
    /// Before the first layer; CLIP alone has it.
    pub pre_norm: Option<NormVectors<B>>,
    /// In order.
    pub layers: Vec<Layer<B>>,
    /// After the last layer.
    pub final_norm: NormVectors<B>,
    /// From the class token to the feature; CLIP alone has it.
    pub projection: Option<B::Weight>,
}

impl<B: Backend> Network<B> {
    /// Copies `weights` into the memory of `backend`.
    pub fn new(backend: &B, config: &BackboneConfig, weights: &Weights) -> Self {
        let config = config.clone();
        let (width, epsilon) = (config.width, config.layer_norm_epsilon);
        let vector = |tensor: &Tensor| backend.vector(tensor.data());
        let bias = |linear: &Linear| match &linear.bias {
            Some(bias) => vector(bias),
            None => backend.vector(&vec![0.0; linear.weight.shape()[0]]),
        };
        let weight =
            |linear: &Linear| backend.weight(&[linear.weight.data()], linear.weight.shape()[1]);
        let norm = |affine: &LayerNorm| NormVectors::new(backend, affine, epsilon);
        let layers = weights.layers.iter().map(|layer| Layer {
            norm1: norm(&layer.norm1),
            query: weight(&layer.query),
            key_value: backend.weight(&[layer.key.weight.data(), layer.value.weight.data()], width),
            query_bias: bias(&layer.query),
            value_bias: bias(&layer.value),
            output: weight(&layer.output),
            output_bias: bias(&layer.output),
            scale1: layer.scale1.as_ref().map(vector),
            norm2: norm(&layer.norm2),
            mlp_in: weight(&layer.mlp_in),
            mlp_in_bias: bias(&layer.mlp_in),
            mlp_out: weight(&layer.mlp_out),
            mlp_out_bias: bias(&layer.mlp_out),
            scale2: layer.scale2.as_ref().map(vector),
        });
        Self {
            patch: weight(&weights.patch),
            patch_bias: weights.patch.bias.as_ref().map(vector),
            class_token: vector(&weights.cls_token),
            native_position: weights.position.clone(),
            positions: BTreeMap::new(),
            pre_norm: weights.pre_norm.as_ref().map(norm),
            layers: layers.collect(),
            final_norm: norm(&weights.final_norm),
            projection: weights
                .projection
                .as_ref()
                .map(|p| backend.weight(&[p.data()], p.shape()[1])),
            config,
        }
    }

    /// Makes the position embedding for `grid` patches per side, once.
    pub fn prepare_grid(&mut self, backend: &B, grid: usize) {
        let native = self.config.native_grid();
        let position = &self.native_position;
        self.positions.entry(grid).or_insert_with(|| {
            backend.vector(interpolate_position_embedding(position, native, grid).data())
        });
    }

    /// The position embedding that [`Self::prepare_grid`] has made.
    ///
    /// # Panics
    /// When it has not.
    pub fn position(&self, grid: usize) -> &B::Vector {
        &self.positions[&grid]
    }
}
