//! What can go wrong with the data folder, its database and its blobs, in sentences that say what to do next.

use super::Digest;
use super::alias_key::AliasKey;
use super::job::state::JobState;
use super::name::Name;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use uuid::Uuid;

#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum StoreError {
    #[error(
        "the data folder {folder} is in use by another process{holder}; stop that process, or choose another folder with --data-dir",
        folder = folder.display(),
        holder = holder.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    InUse {
        folder: PathBuf,
        /// Process id that the holder wrote into the lock file.
        holder: Option<u32>,
    },
    #[error(
        "this process opened the data folder for reading only; open it with exclusive access to change it"
    )]
    SharedAccess,
    #[error(
        "{path} holds no LoRA Recycle data; check --data-dir, or make it with `lora-recycle serve`",
        path = folder.display()
    )]
    NoDatabase { folder: PathBuf },

    #[error(
        "{path} is a file where a folder is needed; move it away, or choose another folder with --data-dir",
        path = path.display()
    )]
    NotAFolder { path: PathBuf },
    #[error(
        "{path} is a folder where a file is needed; move it away",
        path = path.display()
    )]
    NotAFile { path: PathBuf },
    #[error(
        "no permission to {action} {path}; give this user the right to it (chown or chmod), or choose another folder with --data-dir",
        path = path.display()
    )]
    PermissionDenied { action: &'static str, path: PathBuf },
    #[error(
        "the disk (or quota) that holds {path} is full; free some space and try again",
        path = path.display()
    )]
    DiskFull { path: PathBuf },
    #[error(
        "{queued} jobs wait already, or what they are given takes all the room for that; cancel some, or wait until some have ended"
    )]
    QueueFull { queued: i64 },
    #[error(
        "{path} is on a read-only file system; mount it writable, or choose another folder with --data-dir",
        path = path.display()
    )]
    ReadOnlyFileSystem { path: PathBuf },
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    #[error(
        "{path} is a database of another program; move it away, or choose another folder with --data-dir",
        path = path.display()
    )]
    ForeignDatabase { path: PathBuf },
    #[error(
        "{path} was written by a newer version of LoRA Recycle (schema {found}, this program knows {known}); install the newer version, or go back to a copy from the folder backups",
        path = path.display()
    )]
    NewerDatabase {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error(
        "{path} was written by an older version of LoRA Recycle (schema {found}, needed {known}); start `lora-recycle serve` once to bring it up to date",
        path = path.display()
    )]
    OlderDatabase {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error(
        "{path} was made by another build of LoRA Recycle: its schema {version} is not the one of this program; use the build that made it",
        path = path.display()
    )]
    AlteredMigration { path: PathBuf, version: i64 },
    #[error(
        "{path} could not be brought up to date and was left as it was: {source}{copy}",
        path = path.display(),
        copy = backup.as_ref().map(|copy| format!("; a copy from before is {}", copy.display())).unwrap_or_default()
    )]
    Migration {
        path: PathBuf,
        backup: Option<PathBuf>,
        source: Box<sqlx::migrate::MigrateError>,
    },
    #[error(
        "the database {path} is damaged ({detail}); stop, keep a copy of the file, and put back a backup (folder backups) or repair it with `sqlite3 {path} .recover`",
        path = path.display()
    )]
    CorruptDatabase { path: PathBuf, detail: String },
    #[error(
        "{path} is missing or empty, but {blobs} adapter files (blobs) are still in the data folder; put the database back, or move the folder blobs away to start over",
        path = path.display()
    )]
    LostDatabase { path: PathBuf, blobs: u64 },
    #[error(
        "the database stayed locked by another program; close whatever has it open and try again"
    )]
    DatabaseBusy,
    #[error("the database failed: {0}")]
    Database(#[source] sqlx::Error),
    #[error("work on the data folder ended unexpectedly: {0}")]
    Interrupted(#[from] tokio::task::JoinError),

    #[error(
        "the file {path} (blob {digest}) is missing; import the adapter again, or put the file back from a backup",
        path = path.display()
    )]
    BlobMissing { digest: Digest, path: PathBuf },
    #[error(
        "the file {path} (blob {digest}) is damaged: its content has the digest {found}; import the adapter again, or put the file back from a backup",
        path = path.display()
    )]
    BlobDamaged {
        digest: Digest,
        path: PathBuf,
        found: Digest,
    },

    #[error("there is no adapter \"{reference}\"{}", did_you_mean(near))]
    UnknownAdapter {
        reference: String,
        /// Existing references that look alike, nearest first.
        near: Vec<String>,
    },
    #[error("there is no backbone \"{reference}\"{}", did_you_mean(near))]
    UnknownBackbone {
        reference: String,
        near: Vec<String>,
    },
    #[error("the adapter {adapter} has no file \"{file}\"{}", did_you_mean(near))]
    UnknownFile {
        adapter: String,
        file: String,
        near: Vec<String>,
    },
    #[error("{0} is not set")]
    UnknownAlias(AliasKey),

    #[error("the name \"{name}\" already belongs to the backbone {digest}; choose another name")]
    BackboneNameTaken { name: Name, digest: Digest },
    #[error("this backbone is already there under the name \"{name}\" ({digest})")]
    BackboneExists { name: Name, digest: Digest },
    #[error(
        "the backbone \"{name}\" is still used by {adapters} adapters and {classifiers} classifiers; delete them first"
    )]
    BackboneInUse {
        name: Name,
        adapters: u64,
        classifiers: u64,
    },
    #[error(
        "the adapter {adapter} is still used: {}; move or remove these first",
        aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    AdapterInUse {
        adapter: String,
        aliases: Vec<AliasKey>,
    },
    #[error("{key} cannot point at {adapter}: {reason}")]
    AliasMismatch {
        key: AliasKey,
        adapter: String,
        reason: &'static str,
    },
    #[error("{0} has no move left that could be taken back")]
    NothingToRollBack(AliasKey),
    #[error("{key} cannot go back to {adapter}: that adapter was deleted; move it to another one")]
    RollBackTargetDeleted { key: AliasKey, adapter: String },
    #[error("there is no job {0}")]
    UnknownJob(Uuid),
    #[error("the job {id} cannot be {action}: it is {state}")]
    JobState {
        id: Uuid,
        state: JobState,
        /// As in "it cannot be `action`".
        action: &'static str,
    },
    #[error(
        "the job {0} cannot be tried again: the pictures it was given have been deleted; submit it again"
    )]
    JobInputsGone(Uuid),
    #[error("the job {0} cannot be tried again: another job does the same work already")]
    JobReplaced(Uuid),
    #[error(
        "the job {id} cannot be tried again: it waits for \"{title}\" ({by}), which is {state}; try that one again first"
    )]
    JobBlocked {
        id: Uuid,
        by: Uuid,
        title: String,
        state: JobState,
    },
    #[error("there is no pool {0}")]
    UnknownPool(Uuid),
    #[error("the pool {pool} has no file \"{file}\"")]
    UnknownPoolFile { pool: Uuid, file: String },

    #[error("an adapter or pool needs at least one file")]
    NoFiles,
    #[error(
        "\"{0}\" cannot be the name of an adapter file: a plain file name without folders of at most 255 bytes is needed"
    )]
    BadFileName(String),
    #[error("the file \"{0}\" is there twice")]
    DuplicateFile(String),
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = near.iter().map(|name| format!("\"{name}\"")).collect();
    format!("; did you mean {}?", quoted.join(" or "))
}

/// An error that may mean that the disk is full.
pub(crate) trait MayBeFullDisk {
    /// Whether it does.
    fn is_full_disk(&self) -> bool;
}

impl MayBeFullDisk for StoreError {
    fn is_full_disk(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}

impl StoreError {
    /// The error of a file operation; `action` is a verb, as in "cannot `action` `path`".
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { action, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnlyFileSystem { path },
            io::ErrorKind::NotADirectory => Self::NotAFolder { path },
            io::ErrorKind::IsADirectory => Self::NotAFile { path },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// The error of a query on the database at `path`.
    pub(super) fn database(path: &Path, error: sqlx::Error) -> Self {
        let path = path.to_path_buf();
        // The one connection that writes is in use by a change that waits for another program.
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::DatabaseBusy;
        }
        let code = result_code(&error);
        if code == Some(SQLITE_IOERR_SHMSIZE) {
            return Self::DiskFull { path };
        }
        match code.map(|code| code & 0xff) {
            Some(SQLITE_BUSY | SQLITE_LOCKED) => Self::DatabaseBusy,
            Some(SQLITE_FULL) => Self::DiskFull { path },
            Some(SQLITE_READONLY) => Self::ReadOnlyFileSystem { path },
            Some(SQLITE_PERM) => Self::PermissionDenied {
                action: "open",
                path,
            },
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Self::CorruptDatabase {
                path,
                detail: error
                    .as_database_error()
                    .map_or_else(|| error.to_string(), |inner| inner.message().to_owned()),
            },
            // A value that no version of this program writes.
            None if matches!(
                error,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)
            ) =>
            {
                Self::CorruptDatabase {
                    path,
                    detail: error.to_string(),
                }
            }
            _ => Self::Database(error),
        }
    }
}

/// For queries, where the reader of the message knows the folder.
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::database(Path::new(super::DATABASE_FILE), error)
    }
}

// Primary result codes of SQLite, https://www.sqlite.org/rescode.html
const SQLITE_PERM: i32 = 3;
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_READONLY: i32 = 8;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_NOTADB: i32 = 26;
/// An extended one: no room for the index of the write-ahead log.
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

/// SQLite's extended result code; its low byte is the primary one.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Whether `error` is a breach of the uniqueness of `column` ("table.column"). SQLite names no constraint, so the column
/// in its message has to tell.
pub(super) fn is_unique_violation(error: &sqlx::Error, column: &str) -> bool {
    error.as_database_error().is_some_and(|inner| {
        inner.is_unique_violation() && inner.message().split([' ', ',']).any(|word| word == column)
    })
}

pub(super) fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|inner| inner.is_foreign_key_violation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_error_has_its_own_sentence() {
        let sentence = |kind: io::ErrorKind| {
            StoreError::io("write", Path::new("/data/x"), io::Error::from(kind)).to_string()
        };
        for (kind, words) in [
            (
                io::ErrorKind::PermissionDenied,
                "no permission to write /data/x",
            ),
            (io::ErrorKind::StorageFull, "/data/x is full"),
            (io::ErrorKind::QuotaExceeded, "/data/x is full"),
            (io::ErrorKind::ReadOnlyFilesystem, "read-only file system"),
            (
                io::ErrorKind::NotADirectory,
                "file where a folder is needed",
            ),
            (io::ErrorKind::IsADirectory, "folder where a file is needed"),
            (io::ErrorKind::NotFound, "cannot write /data/x"),
        ] {
            assert!(sentence(kind).contains(words), "{}", sentence(kind));
        }
    }

    #[test]
    fn near_names_are_offered_and_an_empty_list_is_not() {
        let unknown = |near: &[&str]| {
            StoreError::UnknownAdapter {
                reference: "mta".to_owned(),
                near: near.iter().map(|&name| name.to_owned()).collect(),
            }
            .to_string()
        };
        assert_eq!(unknown(&[]), "there is no adapter \"mta\"");
        assert_eq!(
            unknown(&["meta", "metal"]),
            "there is no adapter \"mta\"; did you mean \"meta\" or \"metal\"?"
        );
    }
}
