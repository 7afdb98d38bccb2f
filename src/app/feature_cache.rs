//! Features of pictures that were encoded before, so that examples which come again with every request cost one pass.

use lru::LruCache;
use recycle::head::copies::CopySpec;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a feature is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeatureKey {
    /// SHA-256 of the picture's file.
    pub picture: [u8; 32],
    /// Digest of the adapter; `None` for the bare backbone.
    pub adapter: Option<Arc<str>>,
    /// Which copy of the picture; `None` for itself.
    pub copy: Option<CopySpec>,
}

impl FeatureKey {
    /// That of a copy of this picture.
    pub fn of_copy(&self, spec: CopySpec) -> Self {
        Self {
            copy: Some(spec),
            ..self.clone()
        }
    }
}

/// Values that are kept: 128 MiB of them.
const MOST_VALUES: usize = 32 << 20;

/// The least recently used are dropped first. Of one backbone and one image size.
#[derive(Debug)]
pub struct FeatureCache {
    /// Grows with use; made with its bound it would take the memory of all keys at the start.
    features: Mutex<LruCache<FeatureKey, Vec<f32>>>,
    most: usize,
}

impl FeatureCache {
    /// For features of `width` values.
    pub fn new(width: usize) -> Self {
        Self {
            features: Mutex::new(LruCache::unbounded()),
            most: (MOST_VALUES / width.max(1)).max(1),
        }
    }

    pub fn find(&self, key: &FeatureKey) -> Option<Vec<f32>> {
        self.features().get(key).cloned()
    }

    pub fn add(&self, key: FeatureKey, feature: &[f32]) {
        let mut features = self.features();
        features.put(key, feature.to_vec());
        if features.len() > self.most {
            features.pop_lru();
        }
    }

    fn features(&self) -> MutexGuard<'_, LruCache<FeatureKey, Vec<f32>>> {
        // A panic between two calls leaves nothing half done.
        self.features.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
