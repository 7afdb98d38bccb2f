//! What a LoRA adapter is: low-rank factors on a backbone's linear maps, with or without a classification head.
//! Knows the shapes of a backbone, nothing of how a pass is computed, of SQL or of HTTP.

use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A linear map of a transformer layer that can carry a LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Query,
    Key,
    Value,
    Output,
    MlpIn,
    MlpOut,
}

impl Target {
    /// All targets in the order of a layer's computation.
    pub const ALL: [Self; 6] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::MlpIn,
        Self::MlpOut,
    ];
}

/// Where a pair of factors sits; ordered by layer, then target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// 0-based.
    pub layer: usize,
    pub target: Target,
}

/// The change of one linear map: `W x + scale·B(A x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// `A`, `[rank, in]`
    pub a: Tensor,
    /// `B`, `[out, rank]`
    pub b: Tensor,
    /// `alpha / rank`, or `alpha / √rank` for rank-stabilised LoRA.
    pub scale: f32,
}

impl Factors {
    pub fn rank(&self) -> usize {
        self.a.shape()[0]
    }
}

/// A linear classifier on the feature: `logits = weight·feature + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// `[classes, inputs]`; `inputs` is the width of the head's input, see [`HeadInput`].
    pub weight: Tensor,
    /// `[classes]`
    pub bias: Option<Tensor>,
    pub input: HeadInput,
    /// One label a class, empty where the source names none.
    pub labels: Vec<String>,
}

/// What a head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadInput {
    /// The backbone's feature, with its own pooling and projection.
    Feature,
    /// The class token behind the final LayerNorm.
    Cls,
    /// The class token followed by the mean of the patch tokens (`Dinov2ForImageClassification`).
    ClsMean,
}

/// A LoRA adapter: factors by site, and the head that was tuned with them if there is one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adapter {
    pub factors: BTreeMap<Site, Factors>,
    pub head: Option<Head>,
}

impl Adapter {
    /// The largest rank over all sites, 0 for an adapter without factors.
    pub fn largest_rank(&self) -> usize {
        self.factors.values().map(Factors::rank).max().unwrap_or(0)
    }
}
