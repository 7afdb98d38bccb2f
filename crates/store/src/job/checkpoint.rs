//! Checkpoints: `jobs/<id>/checkpoint`, what a job needs to resume after an interruption. The one before stays until the next is
//! whole, and each carries a digest, so that a torn one is never taken.
//! All methods block and belong on a thread that may.

use crate::blobs::write_synced;
use crate::folder::{create_folders, sync_folder};
use crate::{Store, StoreError};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// First bytes of a checkpoint; the last is the version of this layout: these, SHA-256 of the rest, the rest.
const MAGIC: &[u8; 8] = b"LRCHECK\x01";
const DIGEST_BYTES: usize = 32;

impl Store {
    fn job_folder(&self, id: Uuid) -> PathBuf {
        self.inner.folder.jobs().join(id.to_string())
    }

    /// Keeps `state` as the newest checkpoint of the job `id`. When this returns it survives a loss of power; when it fails, the
    /// one before is still there.
    ///
    /// # Errors
    /// [`StoreError`] of the folder.
    pub fn save_checkpoint(&self, id: Uuid, state: &[u8]) -> Result<(), StoreError> {
        self.inner.database.writer()?;
        let folder = self.job_folder(id);
        create_folders(&folder)?;
        let mut bytes = Vec::with_capacity(MAGIC.len() + DIGEST_BYTES + state.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&Sha256::digest(state));
        bytes.extend_from_slice(state);
        let (path, temporary) = (newest(&folder), folder.join("checkpoint.tmp"));
        let written = write_synced(&temporary, &bytes).and_then(|()| {
            match fs::rename(&path, previous(&folder)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::rename(&temporary, &path)
        });
        if let Err(error) = written {
            // Best effort: the reason of the failure matters more.
            let _ = fs::remove_file(&temporary);
            return Err(StoreError::io("write", &path, error));
        }
        sync_folder(&folder)
    }

    /// The newest checkpoint of the job `id` that is whole.
    ///
    /// # Errors
    /// [`StoreError`] of the folder.
    pub fn load_checkpoint(&self, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let folder = self.job_folder(id);
        for path in [newest(&folder), previous(&folder)] {
            match fs::read(&path) {
                Ok(bytes) => match unwrap(bytes) {
                    Some(state) => return Ok(Some(state)),
                    None => {
                        tracing::warn!(path = %path.display(), "a checkpoint is damaged and is skipped");
                    }
                },
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("read", &path, error)),
            }
        }
        Ok(None)
    }

    /// Removes what the job `id` left on disk.
    pub(crate) fn remove_job_files(&self, id: Uuid) -> Result<(), StoreError> {
        remove_folder(&self.job_folder(id))
    }
}

/// Removes the files of all jobs but these.
pub(crate) fn sweep(
    jobs: &Path,
    unfinished: &std::collections::HashSet<Uuid>,
) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("read", jobs, error);
    let entries = match fs::read_dir(jobs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<Uuid>().ok());
        // Anything else is not ours and is left alone.
        if id.is_some_and(|id| !unfinished.contains(&id)) {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("remove", path, error)),
    }
}

fn newest(folder: &Path) -> PathBuf {
    folder.join("checkpoint")
}

fn previous(folder: &Path) -> PathBuf {
    folder.join("checkpoint.previous")
}

/// The state in a checkpoint file; `None` where it is torn or of another layout.
fn unwrap(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(MAGIC.as_slice())?;
    let (digest, state) = rest.split_at_checked(DIGEST_BYTES)?;
    if Sha256::digest(state).as_slice() != digest {
        return None;
    }
    bytes.drain(..MAGIC.len() + DIGEST_BYTES);
    Some(bytes)
}
