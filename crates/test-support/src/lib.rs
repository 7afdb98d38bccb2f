//! What the tests of several crates share: reference values, tiny backbones, broken adapters, small pools, opened data folders.
//! Panics where something is missing, as a test does.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

pub mod broken_adapters;
#[cfg(feature = "engine")]
pub mod emulated_device;
pub mod emulator;
pub mod fixtures;
pub mod gradient_check;
#[cfg(feature = "recycle")]
pub mod pools;
pub mod reference;
#[cfg(feature = "store")]
pub mod store;

use std::path::{Path, PathBuf};

/// A path inside the project: the checkout that the tests were built from, or the folder that `LORA_RECYCLE_PROJECT` names where they run elsewhere.
pub fn project(path: &str) -> PathBuf {
    if let Some(project) = std::env::var_os("LORA_RECYCLE_PROJECT") {
        return Path::new(&project).join(path);
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    project.expect("a crate of the project").join(path)
}
