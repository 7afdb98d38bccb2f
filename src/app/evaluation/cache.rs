//! What outlives one evaluation: other tasks from the same pictures need no second pass, and other scales or tasks no second merge.

use model::adapter::{Adapter, Merging};
use recycle::evaluate::ClassFeatures;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Features of one set of pictures and merges of one pool; clones share them. Evaluations of others must not be given the same.
#[derive(Debug, Clone, Default)]
pub struct EvaluationCache {
    /// By the adapter's digest; the bare backbone's by "".
    features: Shared<String, ClassFeatures>,
    pub(super) merges: CachedMerges,
}

/// Merges of one pool with the scale 1, by method and rank.
pub(super) type CachedMerges = Shared<(Merging, Option<usize>), Adapter>;

impl EvaluationCache {
    /// With `adapter`, or with the bare backbone.
    pub(super) fn features(&self, adapter: Option<&Adapter>) -> Option<Arc<ClassFeatures>> {
        self.features.find(&key(adapter))
    }

    pub(super) fn add_features(&self, adapter: Option<&Adapter>, features: Arc<ClassFeatures>) {
        self.features.add(key(adapter), features);
    }
}

fn key(adapter: Option<&Adapter>) -> String {
    adapter.map(Adapter::digest).unwrap_or_default()
}

/// Values that clones share.
#[derive(Debug)]
pub(super) struct Shared<K, V>(Arc<Mutex<HashMap<K, Arc<V>>>>);

impl<K: Eq + Hash, V> Shared<K, V> {
    pub(super) fn find(&self, key: &K) -> Option<Arc<V>> {
        self.values().get(key).cloned()
    }

    pub(super) fn add(&self, key: K, value: Arc<V>) {
        self.values().insert(key, value);
    }

    fn values(&self) -> MutexGuard<'_, HashMap<K, Arc<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for Shared<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
