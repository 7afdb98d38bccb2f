//! What the tests of several crates share: reference values, tiny backbones, broken adapters, small pools, opened data folders.
//! Panics where something is missing, as a test does.

pub mod broken_adapters;
pub mod fixtures;
#[cfg(feature = "recycle")]
pub mod pools;
pub mod reference;
#[cfg(feature = "store")]
pub mod store;

use std::path::{Path, PathBuf};

/// A path inside the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}
