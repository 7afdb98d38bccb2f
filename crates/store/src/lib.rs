//! The data folder: rows in SQLite and content-addressed files. All SQL of the project is here.
//! Takes and gives domain types, named bytes and JSON; knows nothing of tensors, file formats, HTTP or what a job does.
//!
//! What a method acknowledged survives a loss of power: blobs are on disk before the one transaction that refers to them,
//! and commits wait for the disk. What was not acknowledged leaves at most files that nothing refers to; the next start
//! removes them.

mod adapter;
mod alias;
mod alias_key;
mod backbone;
mod batch;
mod blobs;
mod classifier;
mod database;
mod error;
mod features;
mod folder;
mod health;
mod idempotency;
mod import;
mod job;
mod memory_pools;
mod name;
mod pool;
mod server_file;
mod space;
mod staging;

pub use adapter::{
    AdapterFile, AdapterFilter, AdapterHead, AdapterRecord, FileRole, Lineage, Parent,
};
pub use alias::{AliasMove, Attribution, PointedAdapter};
pub use alias_key::AliasKey;
pub use backbone::BackboneRecord;
pub use batch::{
    BatchFilter, BatchLabel, BatchRecord, BatchRow, BatchStatus, BatchSummary, ClassCount,
    NewBatch, NewBatchRow, RowClass, Verdict,
};
pub use blobs::Freed;
pub use classifier::{
    AdapterChoice, AddedClasses, AddedPicture, AddedPictures, Author, Change, ChangeRecord,
    ChangeState, Changed, ClassRecord, ClassifierError, ClassifierFilter, ClassifierPatch,
    ClassifierRecord, ClassifierResult, ClassifierUse, KnownPicture, LONGEST_HEAD_BYTES,
    LONGEST_TITLE, MOST_BATCH_PICTURES, MOST_CLASSES, MOST_PICTURES, MOST_UNDO, Names, NewClass,
    NewClassifier, NewPicture, PictureFilter, PictureRecord, Privacy, class_name_key,
};
pub use error::StoreError;
pub use features::{FeatureSpace, Variant};
pub use folder::Access;
pub use idempotency::Once;
pub use import::{NewAdapter, NewFile};
pub use job::{
    Claim, EventKind, Finish, JobEvent, JobFault, JobFilter, JobInput, JobKinds, JobRecord,
    JobState, JobStateError, LogLevel, NewInput, NewJob, Progress, Submitted,
};
pub use model::digest::{Digest, DigestError};
pub use name::{AdapterReference, LONGEST_NAME, Name, NameError, Selector};
pub use pool::{NewPool, PoolFile, PoolRecord, Retention, pool_key};
pub use server_file::ServerFile;
pub use space::DiskUse;
pub use staging::Staged;

use blobs::Blobs;
use database::{Database, MIGRATIONS};
use error::MayBeFullDisk;
use features::FeatureCache;
use folder::DataFolder;
use memory_pools::MemoryPools;
use sqlx::migrate::Migrator;
use staging::StagedFiles;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{RwLock, watch};
use uuid::Uuid;

/// Name of the database in the data folder.
pub const DATABASE_FILE: &str = "lora-recycle.sqlite";

/// The open data folder. Cheap to clone; the lock on the folder is freed with the last clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Before `folder`, so that connections close before the lock is freed.
    database: Database,
    blobs: Blobs,
    /// Held for reading from the first blob of an import to its commit, for writing while unreferenced blobs are removed:
    /// a blob that is written but not yet referred to must not be taken for an orphan.
    blob_gate: RwLock<()>,
    /// Sent to after each commit that changed a job.
    jobs_changed: watch::Sender<()>,
    memory_pools: MemoryPools,
    folder: DataFolder,
    /// Names this opening of the folder; nobody has it again.
    opening: Uuid,
    freed_at_start: Freed,
    feature_cache: FeatureCache,
    /// Files whose rows are still to come.
    staged: StagedFiles,
}

/// What a data folder is opened with.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Most bytes of features that can be computed again.
    pub feature_cache_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            feature_cache_bytes: 512 << 20,
        }
    }
}

impl Store {
    /// Opens the data folder at `path`. With exclusive access it is created where it is missing, the database is brought up
    /// to date (with a copy of the file before), and what a dead process left half done is removed.
    ///
    /// # Errors
    /// [`StoreError`]: the folder is in use, cannot be read or written, or its database does not fit this program.
    pub async fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        Self::open_with(path, access, Settings::default()).await
    }

    /// [`Self::open`] with other settings than the usual ones.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(
        path: &Path,
        access: Access,
        settings: Settings,
    ) -> Result<Self, StoreError> {
        Self::open_at(path, access, settings, &MIGRATIONS).await
    }

    async fn open_at(
        path: &Path,
        access: Access,
        settings: Settings,
        migrations: &Migrator,
    ) -> Result<Self, StoreError> {
        let path = path.to_path_buf();
        let folder = tokio::task::spawn_blocking(move || DataFolder::open(&path, access)).await??;
        let database = match Database::open(&folder, access, migrations).await {
            Err(StoreError::DiskFull { .. }) if folder.release_reserve() => {
                Database::open(&folder, access, migrations).await?
            }
            opened => opened?,
        };
        let blobs = Blobs::new(folder.blobs());
        let opening = Uuid::new_v4();
        if access == Access::Exclusive {
            match job::put_back_abandoned(&database, opening).await {
                Err(StoreError::DiskFull { .. }) if folder.release_reserve() => {
                    job::put_back_abandoned(&database, opening).await?;
                }
                done => done?,
            }
        }
        let freed_at_start = match access {
            Access::Exclusive => {
                let referenced = referenced_blobs(&database).await?;
                let unfinished = job::unfinished(&database).await?;
                let (blobs, jobs) = (blobs.clone(), folder.jobs());
                let sweep = move || {
                    job::checkpoint::sweep(&jobs, &unfinished)?;
                    blobs.sweep(&referenced)
                };
                let freed = tokio::task::spawn_blocking(sweep).await??;
                folder.keep_reserve();
                freed
            }
            Access::Shared => Freed::default(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                blobs,
                blob_gate: RwLock::new(()),
                jobs_changed: watch::Sender::new(()),
                memory_pools: MemoryPools::default(),
                folder,
                opening,
                freed_at_start,
                feature_cache: FeatureCache::new(settings.feature_cache_bytes),
                staged: StagedFiles::default(),
            }),
        })
    }

    /// Closes the database in order. Without it (a crash) nothing acknowledged is lost.
    pub async fn close(self) {
        self.inner.database.close().await;
    }

    /// Whether the folder is new: nobody has noted yet that what it begins with is in it ([`Self::note_begun`]).
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        self.inner.database.is_new().await
    }

    /// Notes that what a new folder begins with is in it.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn note_begun(&self) -> Result<(), StoreError> {
        self.inner.database.note_begun().await
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        self.inner.folder.path()
    }

    /// Where files that can be made again belong; created by the first writer.
    pub fn cache_folder(&self) -> PathBuf {
        self.inner.folder.cache()
    }

    /// What a dead process had left, removed when the folder was opened.
    pub fn freed_at_start(&self) -> Freed {
        self.inner.freed_at_start
    }

    /// Runs `work` to its end even when the caller goes away: half of an import or a clean-up must not race with others.
    async fn run_to_completion<T, E, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        tokio::spawn(work(self.clone()))
            .await
            .map_err(StoreError::from)?
    }
}

impl Store {
    /// Writes `blobs`, then lets `insert` add the rows that refer to them; where that fails, none of them is left.
    async fn store_blobs<T, E, F>(
        &self,
        blobs: Vec<(Digest, Vec<u8>)>,
        insert: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        E: From<StoreError>,
        F: Future<Output = Result<T, E>>,
    {
        let digests = blobs.iter().map(|(digest, _)| digest.clone()).collect();
        let gate = self.inner.blob_gate.read().await;
        let folder = self.inner.blobs.clone();
        let write = move || {
            blobs
                .iter()
                .try_for_each(|(digest, bytes)| folder.write(digest, bytes))
        };
        let stored = async {
            tokio::task::spawn_blocking(write)
                .await
                .map_err(StoreError::from)??;
            insert().await
        }
        .await;
        drop(gate);
        if stored.is_err()
            && let Err(left) = self.free(digests).await
        {
            tracing::warn!(error = %left, "files that could not be stored whole stay until the next start");
        }
        stored
    }

    /// Does `work`; on a full disk once more, with the space that is kept back for what must be possible there. Whoever is
    /// done with it calls `keep_reserve` of the folder.
    async fn with_reserve<T, E: MayBeFullDisk, F>(&self, work: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        match work().await {
            Err(error) if error.is_full_disk() && self.inner.folder.release_reserve() => {
                work().await
            }
            done => done,
        }
    }

    /// Deletes rows by `work`, which is possible on a full disk too, as it is what helps there; and then those of the blobs that it gives which no row refers to any more.
    async fn delete_and_free<E, F>(&self, work: impl Fn() -> F) -> Result<Freed, E>
    where
        E: MayBeFullDisk + From<StoreError>,
        F: Future<Output = Result<HashSet<Digest>, E>>,
    {
        let released = self.with_reserve(work).await?;
        let freed = self.free(released).await;
        self.inner.folder.keep_reserve();
        Ok(freed?)
    }

    /// Removes those of `digests` that no row refers to.
    async fn free(&self, digests: HashSet<Digest>) -> Result<Freed, StoreError> {
        if digests.is_empty() {
            return Ok(Freed::default());
        }
        let _gate = self.inner.blob_gate.write().await;
        let asked = serde_json::json!(digests).to_string();
        // Only these: the pictures of all classifiers are many.
        let referenced: Vec<String> = sqlx::query_scalar(
            "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM blob_references WHERE digest = value)",
        )
        .bind(asked)
        .fetch_all(self.inner.database.readers())
        .await?;
        let mut referenced = parse_digests(&referenced)?;
        referenced.extend(self.inner.staged.all());
        let blobs = self.inner.blobs.clone();
        tokio::task::spawn_blocking(move || blobs.remove_unreferenced(&digests, &referenced))
            .await?
    }

    /// The content of the blob `digest`, verified against it.
    async fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let (blobs, digest) = (self.inner.blobs.clone(), digest.clone());
        tokio::task::spawn_blocking(move || blobs.read(&digest)).await?
    }
}

/// Digests of all blobs that some row refers to.
async fn referenced_blobs(database: &Database) -> Result<HashSet<Digest>, StoreError> {
    let digests: Vec<String> = sqlx::query_scalar("SELECT DISTINCT digest FROM blob_references")
        .fetch_all(database.readers())
        .await?;
    Ok(parse_digests(&digests)?)
}

fn parse_digests(texts: &[String]) -> Result<HashSet<Digest>, sqlx::Error> {
    texts.iter().map(|digest| parse(digest)).collect()
}

/// Reads a stored text as `T`; a text that does not parse means a damaged database.
fn parse<T>(text: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|error: T::Err| sqlx::Error::Decode(Box::new(error)))
}

/// Reads a stored JSON text as `T`.
fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Milliseconds since 1970 (UTC).
fn now_ms() -> i64 {
    // A clock before 1970 or after the year 292 million gives the nearest time that can be stored.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
