//! Disk space: what the data folder takes, and getting back what nothing refers to.

use super::blobs::Freed;
use super::error::StoreError;
use super::folder::folder_size_bytes;
use super::{Store, referenced_blobs};
use serde::Serialize;
use std::ffi::OsString;

/// What the data folder takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskUse {
    /// With its write-ahead log.
    pub database_bytes: u64,
    /// Files of adapters; a file that several adapters share counts once.
    pub blobs: u64,
    /// Size of those files together.
    pub blob_bytes: u64,
    /// The part of `blob_bytes` that [`Store::gc`] would free.
    pub unreferenced_bytes: u64,
    /// Files that can be made again.
    pub cache_bytes: u64,
    /// Copies of the database from before migrations.
    pub backup_bytes: u64,
}

impl Store {
    /// Measures the data folder.
    ///
    /// # Errors
    /// [`StoreError`] of folder and database.
    pub async fn disk_use(&self) -> Result<DiskUse, StoreError> {
        let store = self.clone();
        let referenced = referenced_blobs(&self.inner.database).await?;
        tokio::task::spawn_blocking(move || {
            let folder = &store.inner.folder;
            let sizes = store.inner.blobs.sizes_bytes()?;
            let database_bytes = ["", "-wal", "-shm"]
                .iter()
                .map(|suffix| {
                    let mut path = OsString::from(folder.database());
                    path.push(suffix);
                    // The log comes and goes.
                    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
                })
                .sum();
            Ok(DiskUse {
                database_bytes,
                blobs: sizes.len() as u64,
                blob_bytes: sizes.iter().map(|(_, bytes)| bytes).sum(),
                unreferenced_bytes: sizes
                    .iter()
                    .filter(|(digest, _)| !referenced.contains(digest))
                    .map(|(_, bytes)| bytes)
                    .sum(),
                cache_bytes: folder_size_bytes(&folder.cache())?,
                backup_bytes: folder_size_bytes(&folder.backups())?,
            })
        })
        .await?
    }

    /// Removes every file that no row refers to. Waits for running imports and holds up new ones.
    ///
    /// # Errors
    /// [`StoreError`] of folder and database.
    pub async fn gc(&self) -> Result<Freed, StoreError> {
        self.inner.database.writer()?;
        self.run_to_completion(|store| async move {
            let _gate = store.inner.blob_gate.write().await;
            let mut referenced = referenced_blobs(&store.inner.database).await?;
            referenced.extend(store.inner.staged.all());
            let blobs = store.inner.blobs.clone();
            tokio::task::spawn_blocking(move || blobs.sweep(&referenced)).await?
        })
        .await
    }
}
