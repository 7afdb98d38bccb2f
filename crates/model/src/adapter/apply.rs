//! What an adapter does to a backbone's weights: the change of one linear map, and a copy of the weights with all changes added.

use super::{Adapter, LowRankPair, Site, Target};
use crate::backbone::{BackboneConfig, LayerWeights, Linear, Weights};
use crate::tensor::Tensor;
use thiserror::Error;

/// An adapter that was made for another backbone.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum ShapeMismatch {
    #[error("the adapter changes {site}, the backbone has {layers} layers")]
    NoLayer { site: Site, layers: usize },
    #[error(
        "the adapter's change of {site} is [{outputs}, {inputs}], the backbone's weight is [{expected_outputs}, {expected_inputs}]"
    )]
    Pair {
        site: Site,
        outputs: usize,
        inputs: usize,
        expected_outputs: usize,
        expected_inputs: usize,
    },
    #[error("the adapter's head reads {found} values, the backbone gives {expected}")]
    Head { found: usize, expected: usize },
}

impl LowRankPair {
    /// Columns of `A`.
    pub fn inputs(&self) -> usize {
        self.a.shape()[1]
    }

    /// Rows of `B`.
    pub fn outputs(&self) -> usize {
        self.b.shape()[0]
    }

    /// `scale·B·A`, `[out, in]`, summed in `f64`.
    pub fn delta(&self) -> Tensor {
        let (outputs, inputs, rank) = (self.outputs(), self.inputs(), self.rank());
        let mut values = Vec::with_capacity(outputs * inputs);
        let mut row = vec![0f64; inputs];
        for b_row in self.b.data().chunks_exact(rank) {
            row.fill(0.0);
            for (&b, a_row) in b_row.iter().zip(self.a.data().chunks_exact(inputs)) {
                for (sum, &a) in row.iter_mut().zip(a_row) {
                    *sum += f64::from(b) * f64::from(a);
                }
            }
            values.extend(row.iter().map(|&sum| (sum * f64::from(self.scale)) as f32));
        }
        debug_assert_eq!(values.len(), outputs * inputs);
        Tensor::new([outputs, inputs], values).unwrap_or_default()
    }
}

impl Adapter {
    /// The change `scale·B·A` of the weight at `site`, `[out, in]`, or `None` where the adapter has no low-rank pair there.
    pub fn delta(&self, site: Site) -> Option<Tensor> {
        self.pairs.get(&site).map(LowRankPair::delta)
    }

    /// Whether all low-rank pairs and the head have the shapes of a backbone with this `config`.
    ///
    /// # Errors
    /// The first [`ShapeMismatch`].
    pub fn check_shapes(&self, config: &BackboneConfig) -> Result<(), ShapeMismatch> {
        for (&site, pair) in &self.pairs {
            if site.layer >= config.layers {
                return Err(ShapeMismatch::NoLayer {
                    site,
                    layers: config.layers,
                });
            }
            let (expected_outputs, expected_inputs) = site.target.widths(config);
            let (outputs, inputs) = (pair.outputs(), pair.inputs());
            if (outputs, inputs) != (expected_outputs, expected_inputs) {
                return Err(ShapeMismatch::Pair {
                    site,
                    outputs,
                    inputs,
                    expected_outputs,
                    expected_inputs,
                });
            }
        }
        if let Some(head) = &self.head {
            let (found, expected) = (head.weight.shape()[1], head.input.width(config));
            if found != expected {
                return Err(ShapeMismatch::Head { found, expected });
            }
        }
        Ok(())
    }

    /// A copy of `weights` with every change added, for use without an adapter. The head is not part of it.
    ///
    /// # Errors
    /// [`ShapeMismatch`] where the adapter is for another backbone.
    pub fn merged_into(
        &self,
        weights: &Weights,
        config: &BackboneConfig,
    ) -> Result<Weights, ShapeMismatch> {
        self.check_shapes(config)?;
        let mut merged = weights.clone();
        for (site, pair) in &self.pairs {
            let delta = pair.delta();
            let linear = linear_mut(&mut merged.layers[site.layer], site.target);
            for (weight, change) in linear.weight.data_mut().iter_mut().zip(delta.data()) {
                *weight += change;
            }
        }
        Ok(merged)
    }
}

fn linear_mut(layer: &mut LayerWeights, target: Target) -> &mut Linear {
    match target {
        Target::Query => &mut layer.query,
        Target::Key => &mut layer.key,
        Target::Value => &mut layer.value,
        Target::Output => &mut layer.output,
        Target::MlpIn => &mut layer.mlp_in,
        Target::MlpOut => &mut layer.mlp_out,
    }
}
