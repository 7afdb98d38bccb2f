//! Features that outlive one evaluation: other tasks from the same pictures need no second pass.

use crate::adapter::Adapter;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `features[class][image]`
pub(super) type ByClass = Vec<Vec<Vec<f32>>>;

/// Features of one set of pictures; clones share them. Evaluations of other pictures must not be given the same.
#[derive(Debug, Clone, Default)]
pub struct KnownFeatures(Arc<Mutex<HashMap<String, Arc<ByClass>>>>);

impl KnownFeatures {
    /// With `adapter`, or with the bare backbone.
    pub(super) fn find(&self, adapter: Option<&Adapter>) -> Option<Arc<ByClass>> {
        self.features().get(&key(adapter)).cloned()
    }

    pub(super) fn add(&self, adapter: Option<&Adapter>, features: Arc<ByClass>) {
        self.features().insert(key(adapter), features);
    }

    fn features(&self) -> MutexGuard<'_, HashMap<String, Arc<ByClass>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(adapter: Option<&Adapter>) -> String {
    adapter.map(Adapter::digest).unwrap_or_default()
}
