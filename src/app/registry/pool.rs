//! Stored pools of synthetic images, read back.

use super::{Registry, RegistryError};
use model::adapter::NamedFile;
use recycle::pool::{Pool, is_preview};
use store::{AdapterRecord, PoolRecord, StoreError};

impl Registry {
    /// The pools of `adapter`, newest first.
    ///
    /// # Errors
    /// [`RegistryError`] of the store.
    pub async fn pools_of(
        &self,
        adapter: &AdapterRecord,
    ) -> Result<Vec<PoolRecord>, RegistryError> {
        let mut pools = self.store().list_pools(Some(&adapter.digest)).await?;
        pools.retain(|pool| pool.backbone_digest == adapter.backbone_digest);
        Ok(pools)
    }

    /// Reads a pool from its files, without the previews.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] where a file is damaged or missing.
    pub async fn read_pool(&self, record: &PoolRecord) -> Result<Pool, RegistryError> {
        let mut files = Vec::new();
        for file in record.files.iter().filter(|file| !is_preview(&file.name)) {
            let bytes = self.store().read_pool_file(record, &file.name).await?;
            files.push(NamedFile::new(file.name.clone(), bytes));
        }
        let read = tokio::task::spawn_blocking(move || Pool::from_files(&files)).await;
        read.map_err(StoreError::from)?.map_err(|error| {
            RegistryError::Damaged(format!(
                "the pool {} cannot be read: {error}; delete it and make it again",
                record.id
            ))
        })
    }
}
