//! Few-shot classification on features: class prototypes and nearest prototype.

use serde::{Deserialize, Serialize};

/// How far two features are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    SquaredEuclidean,
    /// `1 − cos`, on features scaled to length one.
    Cosine,
}

/// One class of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Score {
    pub label: String,
    /// From 0 to 1; over all classes of an answer they sum to 1.
    pub probability: f32,
    /// Distance of the image to the class's prototype.
    pub distance: f32,
}

/// A support image near to the classified one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Neighbour {
    pub image: String,
    pub label: String,
    pub distance: f32,
}
