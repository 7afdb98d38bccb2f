//! Whether the data folder can be written and has room.

use super::error::StoreError;
use super::{Store, now_ms};
use std::io::Write;

impl Store {
    /// Writes a row.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn probe_database(&self) -> Result<(), StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        sqlx::query("INSERT OR REPLACE INTO health_probe (id, made_ms) VALUES (1, ?)")
            .bind(now_ms())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Writes a file, syncs it and removes it.
    ///
    /// # Errors
    /// [`StoreError`] of the folder.
    pub async fn probe_folder(&self) -> Result<(), StoreError> {
        let folder = self.inner.folder.jobs();
        let probe = move || {
            let error = |error| StoreError::io("write", &folder, error);
            std::fs::create_dir_all(&folder).map_err(error)?;
            let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(error)?;
            file.write_all(b"health").map_err(error)?;
            file.as_file().sync_all().map_err(error)
        };
        tokio::task::spawn_blocking(probe).await?
    }

    /// Bytes that are free on the disk of the data folder; `None` where that is not known.
    ///
    /// # Errors
    /// [`StoreError`] of the folder.
    pub async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        let folder = self.inner.folder.blobs();
        let measure = move || free_bytes(&folder);
        tokio::task::spawn_blocking(measure).await?
    }

    /// How long the oldest waiting job has waited, in milliseconds; `None` where none waits.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn oldest_queued_ms(&self) -> Result<Option<i64>, StoreError> {
        let made_ms: Option<i64> =
            sqlx::query_scalar("SELECT min(created_ms) FROM jobs WHERE state = 'queued'")
                .fetch_one(self.inner.database.readers())
                .await?;
        Ok(made_ms.map(|made_ms| now_ms().saturating_sub(made_ms)))
    }
}

#[cfg(unix)]
fn free_bytes(folder: &std::path::Path) -> Result<Option<u64>, StoreError> {
    let found = rustix::fs::statvfs(folder)
        .map_err(|error| StoreError::io("measure", folder, error.into()))?;
    Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
}

#[cfg(not(unix))]
fn free_bytes(_: &std::path::Path) -> Result<Option<u64>, StoreError> {
    Ok(None)
}
