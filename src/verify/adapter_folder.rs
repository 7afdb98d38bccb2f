//! A golden adapter as it was read.

use model::adapter::Adapter;
use std::path::PathBuf;
use std::sync::Arc;

/// A sub-folder with an adapter.
pub(super) struct AdapterFolder {
    pub name: String,
    pub path: PathBuf,
    pub adapter: Arc<Adapter>,
    /// `reference.safetensors` beside it; without one the folder's reference has its values.
    pub own_reference: Option<Vec<u8>>,
}

impl AdapterFolder {
    /// Stands before the names of its tensors.
    pub fn label(&self) -> String {
        format!("{}/", self.name)
    }
}
