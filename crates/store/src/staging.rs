//! Files that are on disk before the rows that refer to them: many pictures that arrive one by one, and a job that is given all of them at once.
//! No clean-up takes them meanwhile; those that no row refers to in the end are removed, by the next start at the latest.

use crate::job::{JobInput, NewJob, Submitted};
use crate::{Digest, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often each file is staged.
#[derive(Debug, Default)]
pub(crate) struct StagedFiles(Mutex<HashMap<Digest, usize>>);

impl StagedFiles {
    fn counts(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        // A panic between two calls leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, digest: &Digest) {
        *self.counts().entry(digest.clone()).or_default() += 1;
    }

    /// The files of `digests` that nobody stages any more.
    fn release(&self, digests: HashSet<Digest>) -> HashSet<Digest> {
        let mut counts = self.counts();
        let released = digests.into_iter().filter(|digest| {
            let Some(count) = counts.get_mut(digest) else {
                return true;
            };
            *count -= 1;
            let is_free = *count == 0;
            if is_free {
                counts.remove(digest);
            }
            is_free
        });
        released.collect()
    }

    /// All that are staged.
    pub fn all(&self) -> HashSet<Digest> {
        self.counts().keys().cloned().collect()
    }
}

/// Files that wait for the rows that refer to them. When it is dropped, those that no row refers to are removed.
#[derive(Debug)]
pub struct Staged {
    store: Store,
    digests: HashSet<Digest>,
}

impl Staged {
    /// Writes a file and gives its digest. When this returns it survives a loss of power; the same content is written once.
    ///
    /// # Errors
    /// [`StoreError`] of the folder.
    pub async fn add(&mut self, bytes: Vec<u8>) -> Result<Digest, StoreError> {
        let described = move || (Digest::of(&bytes), bytes);
        let (digest, bytes) = tokio::task::spawn_blocking(described).await?;
        if !self.digests.insert(digest.clone()) {
            return Ok(digest);
        }
        self.store.inner.staged.add(&digest);
        let written = digest.clone();
        let write = |store: Store| async move {
            let _gate = store.inner.blob_gate.read().await;
            let blobs = store.inner.blobs.clone();
            tokio::task::spawn_blocking(move || blobs.write(&written, &bytes)).await?
        };
        self.store.run_to_completion(write).await?;
        Ok(digest)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let released = self
            .store
            .inner
            .staged
            .release(std::mem::take(&mut self.digests));
        // Without a runtime the program ends, and the next start removes them.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !released.is_empty()
        {
            let store = self.store.clone();
            runtime.spawn(async move { store.free_or_warn(released).await });
        }
    }
}

impl Store {
    /// A place for files whose rows come later.
    ///
    /// # Errors
    /// [`StoreError::SharedAccess`].
    pub fn stage(&self) -> Result<Staged, StoreError> {
        self.inner.database.writer()?;
        Ok(Staged {
            store: self.clone(),
            digests: HashSet::new(),
        })
    }

    /// Queues a job that is given `files`, which are in `staged`, and not `new.inputs`; or gives the job that does the same work already.
    ///
    /// # Errors
    /// As [`Self::submit_job`].
    pub async fn submit_staged_job(
        &self,
        new: NewJob,
        files: Vec<JobInput>,
        staged: Staged,
    ) -> Result<Submitted, StoreError> {
        self.inner.database.writer()?;
        self.run_to_completion(|store| async move {
            // To the end of the transaction.
            let _staged = staged;
            store.insert_job(&new, &files).await
        })
        .await
    }
}
