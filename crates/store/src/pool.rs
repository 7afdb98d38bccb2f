//! Pools: the synthetic images of one adapter as named files, found again by what they were made from.
//! Knows nothing of what the files hold.

use super::Digest;
use super::blobs::Freed;
use super::error::{StoreError, is_unique_violation};
use super::import::check_file_name;
use super::{Store, now_ms, parse, parse_json};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use std::str::FromStr;
use thiserror::Error;
use uuid::Uuid;

/// How long a pool is kept: synthetic images can show what their adapter has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// Until somebody deletes it.
    #[default]
    Keep,
    /// Until it has been used for meta-training.
    AfterMetaTraining,
    /// Never written to the disk.
    MemoryOnly,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{0}\" is not a retention: keep, after_meta_training or memory_only")]
pub struct RetentionError(String);

impl Retention {
    /// As it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::AfterMetaTraining => "after_meta_training",
            Self::MemoryOnly => "memory_only",
        }
    }
}

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        [Self::Keep, Self::AfterMetaTraining, Self::MemoryOnly]
            .into_iter()
            .find(|retention| retention.as_str() == text)
            .ok_or_else(|| RetentionError(text.to_owned()))
    }
}

/// A pool to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPool {
    /// Of the adapter whose classes the images show.
    pub adapter_id: Uuid,
    /// `name:version`
    pub adapter_label: String,
    /// Of that adapter's files.
    pub adapter_digest: Digest,
    /// Of that adapter's backbone.
    pub backbone_digest: Digest,
    /// How the images were made; together with the digests it decides the key.
    pub recipe: serde_json::Value,
    /// What was made and how well; belongs to what made it.
    pub summary: serde_json::Value,
    /// How long it is kept.
    pub retention: Retention,
    /// Names and bytes.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A stored file of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolFile {
    /// A plain file name, unique within the pool.
    pub name: String,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Of its content.
    pub size_bytes: u64,
}

/// A stored pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolRecord {
    /// Of the pool.
    pub id: Uuid,
    /// Over adapter, backbone and recipe, see [`pool_key`].
    pub key: Digest,
    /// May be gone by now.
    pub adapter_id: Uuid,
    /// `name:version` at that time.
    pub adapter_label: String,
    /// Of the adapter whose classes the images show.
    pub adapter_digest: Digest,
    /// Of that adapter's backbone.
    pub backbone_digest: Digest,
    /// How the images were made.
    pub recipe: serde_json::Value,
    /// What was made and how well; belongs to whoever made it.
    pub summary: serde_json::Value,
    /// How long it is kept.
    pub retention: Retention,
    /// When it was stored, in milliseconds since 1970 (UTC).
    pub created_ms: i64,
    /// In the order of their names.
    pub files: Vec<PoolFile>,
}

impl FromRow<'_, SqliteRow> for PoolRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: parse(row.try_get("id")?)?,
            key: parse(row.try_get("key")?)?,
            adapter_id: parse(row.try_get("adapter_id")?)?,
            adapter_label: row.try_get("adapter_label")?,
            adapter_digest: parse(row.try_get("adapter_digest")?)?,
            backbone_digest: parse(row.try_get("backbone_digest")?)?,
            recipe: parse_json(row.try_get("recipe")?)?,
            summary: parse_json(row.try_get("summary")?)?,
            retention: parse(row.try_get("retention")?)?,
            created_ms: row.try_get("created_ms")?,
            files: parse_json(row.try_get("files")?)?,
        })
    }
}

/// A query for whole [`PoolRecord`]s; `$tail` comes after the FROM clause.
macro_rules! select_pools {
    ($tail:literal) => {
        concat!(
            "SELECT pools.*, (SELECT json_group_array(json_object('name', name, 'digest', blob_digest,
                'size_bytes', size_bytes) ORDER BY name) FROM pool_files WHERE pool_id = pools.id) AS files FROM pools ",
            $tail
        )
    };
}

/// Under which a pool of this adapter, backbone and recipe is found.
pub fn pool_key(adapter: &Digest, backbone: &Digest, recipe: &serde_json::Value) -> Digest {
    Digest::of(format!("{adapter}\n{backbone}\n{recipe}\n").as_bytes())
}

impl Store {
    /// Stores a pool, or gives the one that was made from the same adapter, backbone and recipe.
    ///
    /// # Errors
    /// [`StoreError::NoFiles`], [`StoreError::BadFileName`], [`StoreError::DuplicateFile`], or of folder and database.
    pub async fn create_pool(&self, new: NewPool) -> Result<PoolRecord, StoreError> {
        self.inner.database.writer()?;
        if new.files.is_empty() {
            return Err(StoreError::NoFiles);
        }
        for (name, _) in &new.files {
            check_file_name(name)?;
        }
        let key = pool_key(&new.adapter_digest, &new.backbone_digest, &new.recipe);
        if let Some(found) = self.find_pool(&key).await? {
            return Ok(found);
        }
        self.run_to_completion(|store| async move {
            let mut new = new;
            let contents = std::mem::take(&mut new.files);
            let in_memory = new.retention == Retention::MemoryOnly;
            let (files, blobs) = tokio::task::spawn_blocking(move || {
                let described = |(name, bytes): (String, Vec<u8>)| {
                    let digest = Digest::of(&bytes);
                    let file = PoolFile {
                        name,
                        digest: digest.clone(),
                        size_bytes: bytes.len() as u64,
                    };
                    (file, (digest, bytes))
                };
                contents
                    .into_iter()
                    .map(described)
                    .unzip::<_, _, Vec<PoolFile>, Vec<_>>()
            })
            .await?;
            if in_memory {
                return Ok(store.keep_in_memory(new, key, files, blobs));
            }
            let is_new = store
                .store_blobs(blobs, || store.insert_pool(&new, &key, &files))
                .await?;
            if !is_new {
                let unused = files.into_iter().map(|file| file.digest).collect();
                store.free(unused).await?;
            }
            store
                .find_pool(&key)
                .await?
                .ok_or(StoreError::Database(sqlx::Error::RowNotFound))
        })
        .await
    }

    fn keep_in_memory(
        &self,
        new: NewPool,
        key: Digest,
        files: Vec<PoolFile>,
        blobs: Vec<(Digest, Vec<u8>)>,
    ) -> PoolRecord {
        let names = files.iter().map(|file| file.name.clone());
        let contents = names.zip(blobs).map(|(name, (_, bytes))| (name, bytes));
        let contents = contents.collect();
        let record = PoolRecord {
            id: Uuid::now_v7(),
            key,
            adapter_id: new.adapter_id,
            adapter_label: new.adapter_label,
            adapter_digest: new.adapter_digest,
            backbone_digest: new.backbone_digest,
            recipe: new.recipe,
            summary: new.summary,
            retention: new.retention,
            created_ms: now_ms(),
            files,
        };
        self.inner.memory_pools.insert(record.clone(), contents);
        record
    }

    /// `false` where the pool was there already.
    async fn insert_pool(
        &self,
        new: &NewPool,
        key: &Digest,
        files: &[PoolFile],
    ) -> Result<bool, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let id = Uuid::now_v7().to_string();
        let done = sqlx::query(
            "INSERT INTO pools (id, key, adapter_id, adapter_label, adapter_digest, backbone_digest, recipe, summary,
                retention, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        )
        .bind(&id)
        .bind(key.as_str())
        .bind(new.adapter_id.to_string())
        .bind(&new.adapter_label)
        .bind(new.adapter_digest.as_str())
        .bind(new.backbone_digest.as_str())
        .bind(new.recipe.to_string())
        .bind(new.summary.to_string())
        .bind(new.retention.as_str())
        .bind(now_ms())
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            // Somebody else was faster with the same pool.
            return Ok(false);
        }
        for file in files {
            sqlx::query(
                "INSERT INTO pool_files (pool_id, name, blob_digest, size_bytes) VALUES (?, ?, ?, ?)",
            )
            .bind(&id)
            .bind(&file.name)
            .bind(file.digest.as_str())
            .bind(file.size_bytes.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(|error| match error {
                error if is_unique_violation(&error, "pool_files.name") => {
                    StoreError::DuplicateFile(file.name.clone())
                }
                error => error.into(),
            })?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// The pool with this [`pool_key`], if there is one.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn find_pool(&self, key: &Digest) -> Result<Option<PoolRecord>, StoreError> {
        if let Some(found) = self.inner.memory_pools.find(key) {
            return Ok(Some(found));
        }
        Ok(sqlx::query_as(select_pools!("WHERE key = ?"))
            .bind(key.as_str())
            .fetch_optional(self.inner.database.readers())
            .await?)
    }

    /// # Errors
    /// [`StoreError::UnknownPool`].
    pub async fn pool(&self, id: Uuid) -> Result<PoolRecord, StoreError> {
        if let Some(found) = self.inner.memory_pools.get(id) {
            return Ok(found);
        }
        sqlx::query_as(select_pools!("WHERE id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.inner.database.readers())
            .await?
            .ok_or(StoreError::UnknownPool(id))
    }

    /// All pools, newest first; those of one adapter where its digest is given.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn list_pools(
        &self,
        adapter_digest: Option<&Digest>,
    ) -> Result<Vec<PoolRecord>, StoreError> {
        let mut pools: Vec<PoolRecord> = sqlx::query_as(select_pools!(
            "WHERE (?1 IS NULL OR adapter_digest = ?1) ORDER BY id DESC"
        ))
        .bind(adapter_digest.map(Digest::as_str))
        .fetch_all(self.inner.database.readers())
        .await?;
        let in_memory = self.inner.memory_pools.all().into_iter();
        pools.extend(
            in_memory.filter(|pool| adapter_digest.is_none_or(|own| pool.adapter_digest == *own)),
        );
        pools.sort_by_key(|pool| std::cmp::Reverse(pool.id));
        Ok(pools)
    }

    /// The content of a file of `pool`, verified against its digest.
    ///
    /// # Errors
    /// [`StoreError::UnknownPoolFile`], [`StoreError::BlobMissing`], [`StoreError::BlobDamaged`].
    pub async fn read_pool_file(
        &self,
        pool: &PoolRecord,
        name: &str,
    ) -> Result<Vec<u8>, StoreError> {
        let file = pool
            .files
            .iter()
            .find(|file| file.name == name)
            .ok_or_else(|| StoreError::UnknownPoolFile {
                pool: pool.id,
                file: name.to_owned(),
            })?;
        if let Some(bytes) = self.inner.memory_pools.read(pool.id, name) {
            return Ok(bytes);
        }
        self.read_blob(&file.digest).await
    }

    /// Deletes a pool for good, with the files that nobody else uses. Works on a full disk.
    ///
    /// # Errors
    /// [`StoreError::UnknownPool`].
    pub async fn delete_pool(&self, id: Uuid) -> Result<Freed, StoreError> {
        if let Some(pool) = self.inner.memory_pools.remove(id) {
            tracing::debug!(%id, adapter = pool.adapter_label, "a pool in memory was dropped");
            return Ok(Freed::default());
        }
        self.run_to_completion(move |store| async move {
            let pool = store.pool(id).await?;
            let delete = async || {
                store.delete_pool_row(id).await?;
                let files = pool.files.iter();
                Ok(files.map(|file| file.digest.clone()).collect())
            };
            store.delete_and_free(delete).await
        })
        .await
    }

    async fn delete_pool_row(&self, id: Uuid) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM pools WHERE id = ?")
            .bind(id.to_string())
            .execute(self.inner.database.writer()?)
            .await?;
        Ok(())
    }
}
