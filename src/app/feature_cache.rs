//! Features of pictures that were encoded before, so that examples which come again with every request cost one pass.

use lru::LruCache;
use recycle::head::copies::CopySpec;
use std::num::NonZeroUsize;
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

/// Values that are kept: 128 MiB of them.
const MOST_VALUES: usize = 32 << 20;

/// The least recently used are dropped first. Of one backbone and one image size.
#[derive(Debug)]
pub struct FeatureCache(Mutex<LruCache<FeatureKey, Arc<[f32]>>>);

impl FeatureCache {
    /// For features of `width` values.
    pub fn new(width: usize) -> Self {
        let most = MOST_VALUES / width.max(1);
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(LruCache::new(most)))
    }

    pub fn find(&self, key: &FeatureKey) -> Option<Arc<[f32]>> {
        self.features().get(key).cloned()
    }

    pub fn add(&self, key: FeatureKey, feature: &[f32]) {
        self.features().put(key, feature.into());
    }

    fn features(&self) -> MutexGuard<'_, LruCache<FeatureKey, Arc<[f32]>>> {
        // A panic between two calls leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
