//! Pools between `recycle`, which makes them, and the store, which keeps them: what is stored, and what is shown of it.

use super::JobError;
use recycle::inversion::Quality;
use recycle::pool::{self, Pool, PoolError, PoolManifest, preview_file};
use serde::{Deserialize, Serialize};
use store::{PoolRecord, Store, StoreError};
use thiserror::Error;
use utoipa::ToSchema;

pub use recycle::pool::IMAGES as IMAGES_FILE;

/// What is in a pool and how well it came out, as its `summary` in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolSummary {
    /// Side in pixels.
    pub image_size: usize,
    /// Images of the pool.
    pub images: usize,
    /// On the images as they are stored. A bare cross-entropy near 0 means that they teach nothing.
    #[serde(flatten)]
    pub quality: Quality,
    /// Patches of each image that are kept; null where all are.
    pub kept_tokens_per_image: Option<usize>,
    /// Patches along a side.
    pub grid: usize,
    /// Optimiser steps that were done.
    pub steps_done: u64,
    /// Whether that is fewer than the recipe names.
    pub stopped_early: bool,
}

impl PoolSummary {
    /// What a pool with this manifest is summed up as.
    pub fn of(manifest: &PoolManifest) -> Self {
        // The class token is always kept, and no patch.
        let patches = manifest.kept_tokens_per_image.saturating_sub(1);
        Self {
            image_size: manifest.image_size,
            images: manifest.images,
            quality: manifest.quality.clone(),
            kept_tokens_per_image: (patches < manifest.grid * manifest.grid).then_some(patches),
            grid: manifest.grid,
            steps_done: manifest.steps_done,
            stopped_early: manifest.stopped_early,
        }
    }
}

/// The files of `pool` by name, as the store takes them.
pub(super) fn stored_files(pool: &Pool) -> Result<Vec<(String, Vec<u8>)>, JobError> {
    let files = pool
        .to_files()
        .map_err(|error| JobError::failure("pool", error.to_string()))?;
    Ok(files
        .into_iter()
        .map(|file| (file.path, file.bytes))
        .collect())
}

/// Why something of a stored pool cannot be shown.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum PoolFileError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the pool has no picture {0}")]
    NoImage(usize),
    #[error("the pool is damaged: {0}")]
    Damaged(#[from] PoolError),
}

/// Picture `index` of `pool` as PNG.
///
/// # Errors
/// [`PoolFileError`]
pub async fn pool_image(
    store: &Store,
    pool: &PoolRecord,
    index: usize,
) -> Result<Vec<u8>, PoolFileError> {
    match store.read_pool_file(pool, &preview_file(index)).await {
        Err(StoreError::UnknownPoolFile { .. }) => Err(PoolFileError::NoImage(index)),
        read => Ok(read?),
    }
}

/// The patches of each picture that are kept, counted row by row from the top left.
///
/// # Errors
/// [`PoolFileError`]
pub async fn pool_kept_patches(
    store: &Store,
    pool: &PoolRecord,
) -> Result<Vec<Vec<u32>>, PoolFileError> {
    let bytes = store.read_pool_file(pool, pool::KEPT_TOKENS).await?;
    Ok(pool::read_kept_patches(&bytes)?)
}
