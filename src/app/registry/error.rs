//! Why the registry did not do what was asked.

use model::adapter::{BundleError, ExportError, FilesError, ImportReport, MergeError};
use model::backbone::{BackboneError, onnx};
use std::path::PathBuf;
use store::{Name, NameError, StoreError};
use thiserror::Error;

impl RegistryError {
    /// There is no adapter `reference`, nor any other.
    pub fn unknown_adapter(reference: &str) -> Self {
        Self::Store(StoreError::UnknownAdapter {
            reference: reference.to_owned(),
            near: Vec::new(),
        })
    }
}

/// Why the registry did not do what was asked.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum RegistryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The import report says what is wrong.
    #[error("the adapter is refused: {}", .0.errors.join("; "))]
    Refused(Box<ImportReport>),
    #[error(
        "the adapter {adapter} was made for the backbone {adapter_backbone} ({adapter_backbone_digest:.12}), this is {backbone} ({backbone_digest:.12})"
    )]
    OtherBackbone {
        adapter: String,
        adapter_backbone: String,
        adapter_backbone_digest: String,
        backbone: String,
        backbone_digest: String,
    },
    #[error("the backbone in {} cannot be read: {problem}", folder.display())]
    BackboneGone { folder: PathBuf, problem: String },
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    Onnx(#[from] onnx::OnnxError),
    /// A name that means something else where an adapter is named.
    #[error("the name \"{0}\" is reserved; choose another name for the adapter")]
    ReservedName(Name),
    #[error("{0}")]
    Damaged(String),
    #[error("there is no registry here")]
    Absent,
    /// A command that imagines a new data folder found no place for one.
    #[error("there is no room for temporary files: {0}")]
    Temporary(#[source] std::io::Error),
    #[error("the work stopped: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}
