//! Comparison of what the product computes with the reference values that a folder carries, tensor by tensor. What needs no
//! gradient goes through the encoder that serves; gradients, pruning, sparse tokens and inversion go through the engine.
//! Knows encoders, the engine, the method and adapters; knows no terminal and no HTTP.

mod adapter_folder;
mod batch_norm;
mod checks;
mod episode;
mod folder;
mod gradients;
mod inversion;
mod published;
mod serving;

pub use folder::verify_folder;

use crate::inference::EncodeError;
use engine::operation::OperationError;
use engine::resnet::ResNetError;
use model::adapter::FilesError;
use model::backbone::BackboneError;
use model::tensor_file::{TensorError, TensorFileError};
use recycle::inversion::InversionError;
use serde::Serialize;
use std::path::PathBuf;
use thiserror::Error;

/// One compared tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorCheck {
    /// Of the reference tensor.
    pub name: String,
    /// Largest absolute difference, divided by the reference's largest absolute value; infinite where the two cannot be
    /// compared.
    pub max_error: f32,
    /// Largest `max_error` that passes.
    pub tolerance: f32,
    /// Whether it passes.
    pub ok: bool,
    /// What is wrong, where something is: the worst value, or both shapes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Whether there was something to compare and all of it was within its tolerance.
    pub ok: bool,
    /// In the order in which they were compared.
    pub tensors: Vec<TensorCheck>,
    /// Reference tensors that the others were computed from.
    pub inputs: Vec<String>,
    /// Reference tensors that nothing was compared with.
    pub skipped: Vec<String>,
}

/// Why a comparison could not be made.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum VerifyError {
    #[error("{path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {source}", path = path.display())]
    File {
        path: PathBuf,
        source: TensorFileError,
    },
    #[error("{path}: {source}", path = path.display())]
    Tensor { path: PathBuf, source: TensorError },
    #[error("{path}: {reason}", path = path.display())]
    Content { path: PathBuf, reason: String },
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    #[error("{path}: {source}", path = path.display())]
    ResNet { path: PathBuf, source: ResNetError },
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A sub-folder is not an adapter for this backbone.
    #[error("{path}: {reasons}", path = path.display())]
    Adapter { path: PathBuf, reasons: String },
    #[error("{adapter}: its head reads what this backbone does not give")]
    Head { adapter: String },
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Operation(#[from] OperationError),
    #[error(transparent)]
    Inversion(#[from] InversionError),
}
