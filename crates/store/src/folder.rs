//! The data folder: its layout, and the lock that keeps a second process out.
//! Knows paths and files, nothing of what is in them.

use super::DATABASE_FILE;
use super::error::StoreError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Space that is kept back, so that a full disk can still be cleaned up: a start or a deletion needs some for its log.
const RESERVE_BYTES: usize = 1 << 20;

/// What a process may do with the data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes; one process at a time.
    Exclusive,
    /// Reads only, takes no lock, and may run beside the process that has exclusive access. Deleted files may vanish under it.
    Shared,
}

/// An opened data folder. With exclusive access the lock is held until this is dropped.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    /// The operating system frees the lock of a process that dies, however it dies.
    lock: Option<File>,
}

impl DataFolder {
    /// Opens `path`; with exclusive access creates what is missing and takes the lock.
    pub fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        let lock = match access {
            Access::Exclusive => {
                create_folders(path)?;
                Some(lock(path)?)
            }
            Access::Shared => None,
        };
        let folder = Self {
            path: path.to_path_buf(),
            lock,
        };
        match access {
            Access::Exclusive => create_folders(&folder.blobs())?,
            Access::Shared if !folder.database().is_file() => {
                return Err(StoreError::NoDatabase {
                    folder: folder.path,
                });
            }
            Access::Shared => {}
        }
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    pub fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    pub fn backups(&self) -> PathBuf {
        self.path.join("backups")
    }

    /// What running jobs keep: one folder each.
    pub fn jobs(&self) -> PathBuf {
        self.path.join("jobs")
    }

    fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// Takes the reserve if it is not there and the disk has room for it.
    pub fn keep_reserve(&self) {
        let path = self.reserve();
        let is_present = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES as u64);
        if !is_present && let Err(error) = fs::write(&path, vec![0; RESERVE_BYTES]) {
            // Part of a reserve would only take the last space from others.
            let _ = fs::remove_file(&path);
            tracing::warn!(%error, path = %path.display(), "no space for the reserve that keeps a full disk usable");
        }
    }

    /// Gives the reserve back to the disk; `false` when there is none, or when it is not ours to give.
    pub fn release_reserve(&self) -> bool {
        self.lock.is_some() && fs::remove_file(self.reserve()).is_ok()
    }
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        // The id of the holder must survive a second process that only looks.
        .truncate(false)
        .open(&path)
        .map_err(|error| StoreError::io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let holder = match file.read_to_string(&mut text) {
                Ok(_) => text.trim().parse().ok(),
                Err(_) => None,
            };
            return Err(StoreError::InUse {
                folder: folder.to_path_buf(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path, error)),
    }
    // The lock is what counts; the id only helps the message, and a full disk must not stop a start.
    let _ = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Creates `path` with its parents; what was created survives a loss of power.
pub(super) fn create_folders(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folders(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {}
        // Somebody else was faster, or a file is in the way.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            if !path.is_dir() {
                return Err(StoreError::NotAFolder {
                    path: path.to_path_buf(),
                });
            }
        }
        Err(error) => return Err(StoreError::io("create", path, error)),
    }
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Makes the entries of `path` (new, renamed, removed) survive a loss of power.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    // Windows cannot open a folder as a file; NTFS journals its entries itself.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| StoreError::io("sync", path, error))
}

/// Bytes of all files below `path`; 0 where there is nothing.
pub(super) fn folder_size_bytes(path: &Path) -> Result<u64, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io("read", path, error)),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io("read", path, error))?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_size_bytes(&entry.path())?,
            Ok(metadata) => metadata.len(),
            // Removed since the folder was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StoreError::io("read", &entry.path(), error)),
        };
    }
    Ok(bytes)
}
