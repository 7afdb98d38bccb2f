//! The linear maps of a transformer layer, by name.

use super::BackboneConfig;
use serde::{Deserialize, Serialize};

/// A linear map of a transformer layer that can carry a LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Queries of the attention.
    Query,
    /// Keys of the attention.
    Key,
    /// Values of the attention.
    Value,
    /// From the heads back to the residual stream.
    Output,
    /// First map of the MLP, before the activation.
    MlpIn,
    /// Second map of the MLP, after the activation.
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

    /// `(outputs, inputs)` of this linear map.
    pub fn widths(self, config: &BackboneConfig) -> (usize, usize) {
        match self {
            Self::Query | Self::Key | Self::Value | Self::Output => (config.width, config.width),
            Self::MlpIn => (config.mlp_width, config.width),
            Self::MlpOut => (config.width, config.mlp_width),
        }
    }

    /// As in reports, model cards, JSON and names of ONNX values.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::Output => "output",
            Self::MlpIn => "mlp_in",
            Self::MlpOut => "mlp_out",
        }
    }
}
