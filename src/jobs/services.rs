//! What jobs may use of the program besides their own recipe.

use crate::app::registry::{Registry, RegistryError};
use crate::backbone::Backbone;
use crate::store::{Digest, Store};
use std::sync::Arc;

/// Clones share everything.
#[derive(Clone)]
pub struct Services {
    registry: Registry,
    /// The backbone that the program serves, if it has one open: its weights need not be in memory twice.
    open_backbone: Option<Arc<Backbone>>,
}

impl Services {
    pub fn new(registry: Registry, open_backbone: Option<Arc<Backbone>>) -> Self {
        Self {
            registry,
            open_backbone,
        }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn store(&self) -> &Store {
        self.registry.store()
    }

    /// The backbone with this digest and all its weights.
    ///
    /// # Errors
    /// [`RegistryError`] where it is unknown or cannot be read.
    pub async fn backbone(&self, digest: &Digest) -> Result<Arc<Backbone>, RegistryError> {
        match &self.open_backbone {
            Some(open) if open.digest == digest.as_str() => Ok(Arc::clone(open)),
            _ => self.registry.backbone(digest).await.map(Arc::new),
        }
    }
}
