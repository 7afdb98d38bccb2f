//! Content-addressed files: `blobs/ab/abcdef…`, named by the SHA-256 of what is in them.
//! Knows files and digests, nothing of rows. All methods block and belong on a blocking thread.

use super::Digest;
use super::error::StoreError;
use super::folder::{create_folders, sync_folder};
use serde::Serialize;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Temporary files start with this; a digest cannot.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// What a clean-up removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Freed {
    /// Files that nothing refers to any more.
    pub blobs: u64,
    /// Files that a process left half written when it died.
    pub temporary_files: u64,
    /// Size of both together.
    pub bytes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Blobs {
    root: PathBuf,
}

/// A file below the root.
enum Found {
    Blob(Digest, PathBuf),
    Temporary(PathBuf),
}

impl Blobs {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.shard(digest).join(digest.as_str())
    }

    fn shard(&self, digest: &Digest) -> PathBuf {
        self.root.join(&digest.as_str()[..2])
    }

    /// Stores `bytes`, whose digest is `digest`. When this returns they survive a loss of power.
    pub fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let shard = self.shard(digest);
        create_folders(&shard)?;
        let path = self.path(digest);
        // A damaged file of that name is replaced, so that importing again repairs it.
        if !matches!(fs::read(&path), Ok(present) if present == bytes) {
            let temporary = shard.join(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
            if let Err(error) = write_and_rename(&temporary, &path, bytes) {
                // Best effort: the reason of the failure matters more, and the next start removes what is left.
                let _ = fs::remove_file(&temporary);
                return Err(StoreError::io("write", &path, error));
            }
        }
        // Also for a file that was there: its writer may not have come to this point yet.
        sync_folder(&shard)
    }

    /// The content of `digest`, verified.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::BlobMissing {
                    digest: digest.clone(),
                    path,
                });
            }
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(StoreError::BlobDamaged {
                digest: digest.clone(),
                path,
                found,
            })
        }
    }

    /// Removes temporary files and every blob that is not in `referenced`. Nobody may be writing meanwhile.
    pub fn sweep(&self, referenced: &HashSet<Digest>) -> Result<Freed, StoreError> {
        let mut freed = Freed::default();
        for found in self.list()? {
            match found {
                Found::Blob(digest, path) if !referenced.contains(&digest) => {
                    freed.bytes += remove(&path)?;
                    freed.blobs += 1;
                }
                Found::Blob(..) => {}
                Found::Temporary(path) => {
                    freed.bytes += remove(&path)?;
                    freed.temporary_files += 1;
                }
            }
        }
        Ok(freed)
    }

    /// Removes those of `digests` that are there and not in `referenced`. Nobody may be writing meanwhile.
    pub fn remove_unreferenced(
        &self,
        digests: &HashSet<Digest>,
        referenced: &HashSet<Digest>,
    ) -> Result<Freed, StoreError> {
        let mut freed = Freed::default();
        for digest in digests.difference(referenced) {
            let path = self.path(digest);
            if path.exists() {
                freed.bytes += remove(&path)?;
                freed.blobs += 1;
            }
        }
        Ok(freed)
    }

    /// All blobs with their sizes in bytes.
    pub fn sizes_bytes(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut sizes = Vec::new();
        for found in self.list()? {
            if let Found::Blob(digest, path) = found {
                let metadata =
                    fs::metadata(&path).map_err(|error| StoreError::io("read", &path, error))?;
                sizes.push((digest, metadata.len()));
            }
        }
        Ok(sizes)
    }

    /// Blobs and temporary files. Anything else is not ours and is left alone.
    fn list(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for shard in entries(&self.root)? {
            if !shard.is_dir() {
                continue;
            }
            for path in entries(&shard)? {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                    continue;
                };
                if name.starts_with(TEMPORARY_PREFIX) {
                    found.push(Found::Temporary(path));
                } else if let Ok(digest) = name.parse::<Digest>()
                    && self.path(&digest) == path
                {
                    found.push(Found::Blob(digest, path));
                }
            }
        }
        Ok(found)
    }
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_synced(temporary, bytes)?;
    fs::rename(temporary, path)
}

/// Writes a file; when this returns its content (not yet its entry in the folder) survives a loss of power.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(path: &Path) -> Result<u64, StoreError> {
    let fault = |error| StoreError::io("remove", path, error);
    let bytes = fs::metadata(path).map_err(fault)?.len();
    fs::remove_file(path).map_err(fault)?;
    Ok(bytes)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let fault = |error| StoreError::io("read", folder, error);
    fs::read_dir(folder)
        .map_err(fault)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(fault))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let blobs = Blobs::new(folder.path().to_path_buf());
        (folder, blobs)
    }

    fn store(blobs: &Blobs, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        blobs.write(&digest, bytes).expect("write");
        digest
    }

    #[test]
    fn a_blob_lies_under_the_first_two_digits_of_its_digest_and_reads_back() {
        let (folder, blobs) = blobs();
        let digest = store(&blobs, b"hello");
        let text = digest.as_str();
        assert!(folder.path().join(&text[..2]).join(text).is_file());
        assert_eq!(blobs.read(&digest).expect("read"), b"hello");
        assert_eq!(
            entries(&folder.path().join(&text[..2]))
                .expect("list")
                .len(),
            1
        );
    }

    #[test]
    fn a_damaged_or_missing_blob_is_named_and_writing_it_again_mends_it() {
        let (_folder, blobs) = blobs();
        let digest = store(&blobs, b"hello");
        fs::write(blobs.path(&digest), b"hellp").expect("damage");
        let error = blobs.read(&digest).expect_err("damaged");
        assert!(
            matches!(&error, StoreError::BlobDamaged { digest: named, .. } if *named == digest)
        );
        store(&blobs, b"hello");
        assert_eq!(blobs.read(&digest).expect("repaired"), b"hello");
        fs::remove_file(blobs.path(&digest)).expect("remove");
        let error = blobs.read(&digest).expect_err("missing");
        assert!(matches!(error, StoreError::BlobMissing { digest: named, .. } if named == digest));
    }

    #[test]
    fn a_sweep_removes_orphans_and_temporary_files_and_leaves_what_is_not_ours() {
        let (folder, blobs) = blobs();
        let kept = store(&blobs, b"kept");
        let orphan = store(&blobs, b"orphan");
        let shard = blobs.shard(&kept);
        fs::write(shard.join(".tmp-1"), b"half").expect("temporary");
        fs::write(shard.join("notes.txt"), b"mine").expect("foreign");
        // A digest in the wrong sub-folder is not one of ours either.
        let misplaced = shard.join(Digest::of(b"elsewhere").as_str());
        fs::write(&misplaced, b"elsewhere").expect("misplaced");
        fs::write(folder.path().join("README"), b"mine").expect("foreign");
        let freed = blobs.sweep(&HashSet::from([kept.clone()])).expect("sweep");
        assert_eq!(
            freed,
            Freed {
                blobs: 1,
                temporary_files: 1,
                bytes: 10
            }
        );
        assert!(
            blobs.path(&kept).exists() && misplaced.exists() && shard.join("notes.txt").exists()
        );
        assert!(!blobs.path(&orphan).exists());
        assert_eq!(blobs.sizes_bytes().expect("sizes"), [(kept, 4)]);
    }
}
