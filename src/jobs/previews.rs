//! Pictures of what a running job makes, as they are now. In memory only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A picture of what a running job makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// What the picture shows.
    pub label: String,
    /// Grows with each change of this picture.
    pub version: u64,
    /// Encoded.
    pub png: Arc<Vec<u8>>,
}

/// Pictures by their index.
#[derive(Debug, Default)]
pub(super) struct Previews {
    by_index: Mutex<BTreeMap<usize, Preview>>,
}

impl Previews {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<usize, Preview>> {
        self.by_index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, index: usize, label: &str, png: Vec<u8>) {
        let mut by_index = self.locked();
        let version = by_index.get(&index).map_or(1, |before| before.version + 1);
        let preview = Preview {
            label: label.to_owned(),
            version,
            png: Arc::new(png),
        };
        by_index.insert(index, preview);
    }

    pub fn all(&self) -> Vec<(usize, Preview)> {
        let by_index = self.locked();
        by_index
            .iter()
            .map(|(index, preview)| (*index, preview.clone()))
            .collect()
    }
}
