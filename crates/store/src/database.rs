//! Opening the SQLite file: settings, migrations with a copy of the file before, and refusal of what does not fit.

use super::error::StoreError;
use super::folder::{Access, DataFolder, create_folders, sync_folder};
use super::now_ms;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The schema of this program.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// SQLite lets many read beside one writer; more readers than this only wait for the disk.
const READERS: u32 = 4;
/// Only another program can hold the file that long; our writers queue in the pool.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// SQLite's `user_version` of a database from its creation until what it begins with is in it. A process that dies in between leaves it.
const NEW: i64 = 1;

/// Connections to the open database.
#[derive(Debug)]
pub(super) struct Database {
    /// Opened read-only, so that no query can write past the writer.
    readers: SqlitePool,
    /// One connection: writers queue here in order instead of polling SQLite's lock. None with shared access.
    writer: Option<SqlitePool>,
}

impl Database {
    pub async fn open(
        folder: &DataFolder,
        access: Access,
        migrations: &Migrator,
    ) -> Result<Self, StoreError> {
        let path = folder.database();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = match access {
            Access::Exclusive => {
                probe(&path)?;
                let options = options
                    .clone()
                    .journal_mode(SqliteJournalMode::Wal)
                    // In WAL mode only FULL waits for the disk at each commit; NORMAL may lose acknowledged ones.
                    .synchronous(SqliteSynchronous::Full);
                let writer = connect(&path, options, 1).await?;
                migrate(folder, &writer, migrations).await?;
                sync_folder(folder.path())?;
                Some(writer)
            }
            Access::Shared => None,
        };
        let options = options.read_only(true);
        let readers = match access {
            Access::Exclusive => connect(&path, options, READERS).await?,
            Access::Shared => read_beside(&path, options, migrations).await?,
        };
        Ok(Self { readers, writer })
    }

    /// Whether what a new folder begins with is not in it yet.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&self.readers)
            .await?;
        Ok(version == NEW)
    }

    /// Notes that what a new folder begins with is in it.
    pub async fn note_begun(&self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA user_version = 0")
            .execute(self.writer()?)
            .await?;
        Ok(())
    }

    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub fn writer(&self) -> Result<&SqlitePool, StoreError> {
        self.writer.as_ref().ok_or(StoreError::SharedAccess)
    }

    /// Begins a transaction that may write; nobody else writes until it ends.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        // IMMEDIATE: a transaction that read first and wants to write later could fail then.
        const BEGIN: &str = "BEGIN IMMEDIATE";
        let writer = self.writer()?;
        match writer.begin_with(BEGIN).await {
            // On a full disk SQLite itself rolls back. sqlx's rollback then fails, and it takes the connection for being
            // inside a transaction forever: only a new connection helps.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                writer.acquire().await?.close().await?;
                Ok(writer.begin_with(BEGIN).await?)
            }
            begun => Ok(begun?),
        }
    }

    /// Waits for running queries and folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }
}

/// Connections for reading only, beside the writer.
async fn read_beside(
    path: &Path,
    options: SqliteConnectOptions,
    migrations: &Migrator,
) -> Result<SqlitePool, StoreError> {
    let open = async |options: SqliteConnectOptions| {
        let readers = connect(path, options, READERS).await?;
        refuse_other_schema(path, &readers, migrations).await?;
        Ok(readers)
    };
    match open(options.clone()).await {
        // Even to read, SQLite must write its index of the log beside the file. Without a log there is nothing that it would miss.
        Err(StoreError::Database(_) | StoreError::ReadOnlyFileSystem { .. }) if !has_log(path) => {
            open(options.immutable(true)).await
        }
        opened => opened,
    }
}

/// Whether some of the database is in its write-ahead log only.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// Opens the file as SQLite will, because the operating system's error says more than SQLite's.
fn probe(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map(drop)
        .map_err(|error| StoreError::io("open", path, error))
}

async fn connect(
    path: &Path,
    options: SqliteConnectOptions,
    connections: u32,
) -> Result<SqlitePool, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        // A local file does not go away: no tests before use, no renewal.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options)
        .await
        .map_err(|error| StoreError::database(path, error))
}

/// What the file holds before anything is changed.
enum Found {
    Empty,
    /// A database of some other program.
    Foreign,
    /// The newest applied migration, 0 for none.
    Schema(i64),
}

async fn inspect(path: &Path, pool: &SqlitePool) -> Result<Found, StoreError> {
    let fault = |error| StoreError::database(path, error);
    let (tables, ours): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE name = '_sqlx_migrations') FROM sqlite_schema WHERE type = 'table'",
    )
    .fetch_one(pool)
    .await
    .map_err(fault)?;
    if tables == 0 {
        return Ok(Found::Empty);
    }
    if ours == 0 {
        return Ok(Found::Foreign);
    }
    let newest: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
            .fetch_one(pool)
            .await
            .map_err(fault)?;
    Ok(Found::Schema(newest))
}

fn newest_known(migrations: &Migrator) -> i64 {
    migrations
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

async fn migrate(
    folder: &DataFolder,
    pool: &SqlitePool,
    migrations: &Migrator,
) -> Result<(), StoreError> {
    let path = folder.database();
    let known = newest_known(migrations);
    let found = inspect(&path, pool).await?;
    let is_older = match found {
        Found::Empty => true,
        Found::Schema(found) => found < known,
        Found::Foreign => false,
    };
    let backup = match found {
        Found::Empty => {
            refuse_lost_database(folder)?;
            sqlx::query("PRAGMA user_version = 1")
                .execute(pool)
                .await
                .map_err(|error| StoreError::database(&path, error))?;
            None
        }
        Found::Foreign => return Err(StoreError::ForeignDatabase { path }),
        Found::Schema(found) if found > known => {
            return Err(StoreError::NewerDatabase { path, found, known });
        }
        Found::Schema(found) => {
            check_integrity(&path, pool).await?;
            if 0 < found && found < known {
                Some(back_up(folder, pool, found).await?)
            } else {
                None
            }
        }
    };
    migrations.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMismatch(version) | MigrateError::VersionMissing(version) => {
            StoreError::AlteredMigration {
                path: path.clone(),
                version,
            }
        }
        source => StoreError::Migration {
            path: path.clone(),
            backup,
            source: Box::new(source),
        },
    })?;
    if is_older {
        // The log of a new schema is large, and it stays until it is folded into the file: on a disk that is full by then there would
        // be no room for that. Nothing is lost where it does not work now.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(pool)
            .await;
    }
    Ok(())
}

/// A new database would make every blob an orphan and so remove it: refused where blobs are left.
fn refuse_lost_database(folder: &DataFolder) -> Result<(), StoreError> {
    let blobs = super::blobs::Blobs::new(folder.blobs())
        .sizes_bytes()?
        .len() as u64;
    if blobs == 0 {
        Ok(())
    } else {
        Err(StoreError::LostDatabase {
            path: folder.database(),
            blobs,
        })
    }
}

async fn refuse_other_schema(
    path: &Path,
    pool: &SqlitePool,
    migrations: &Migrator,
) -> Result<(), StoreError> {
    let known = newest_known(migrations);
    let path = path.to_path_buf();
    match inspect(&path, pool).await? {
        Found::Foreign => Err(StoreError::ForeignDatabase { path }),
        Found::Empty => Err(StoreError::OlderDatabase {
            path,
            found: 0,
            known,
        }),
        Found::Schema(found) if found > known => {
            Err(StoreError::NewerDatabase { path, found, known })
        }
        Found::Schema(found) if found < known => {
            Err(StoreError::OlderDatabase { path, found, known })
        }
        Found::Schema(_) => Ok(()),
    }
}

async fn check_integrity(path: &Path, pool: &SqlitePool) -> Result<(), StoreError> {
    let detail: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(pool)
        .await
        .map_err(|error| StoreError::database(path, error))?;
    if detail == "ok" {
        Ok(())
    } else {
        Err(StoreError::CorruptDatabase {
            path: path.to_path_buf(),
            detail,
        })
    }
}

/// Copies the database to `backups/`; the copy is complete and on disk when it has its final name.
async fn back_up(
    folder: &DataFolder,
    pool: &SqlitePool,
    schema: i64,
) -> Result<PathBuf, StoreError> {
    let backups = folder.backups();
    create_folders(&backups)?;
    let copy = backups.join(format!("lora-recycle-schema-{schema}-{}.sqlite", now_ms()));
    let unfinished = copy.with_extension("unfinished");
    let finish = || {
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &copy)
    };
    let written = match sqlx::query("VACUUM INTO ?")
        .bind(unfinished.to_string_lossy().into_owned())
        .execute(pool)
        .await
    {
        Ok(_) => finish().map_err(|error| StoreError::io("write", &copy, error)),
        Err(error) => Err(StoreError::database(&copy, error)),
    };
    if let Err(error) = written {
        // Best effort: the reason of the failure matters more.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    sync_folder(&backups)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, Name, Settings, Store};
    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType};

    /// The migrations of this program and one more.
    fn newer(sql: &'static str) -> Migrator {
        let mut all: Vec<Migration> = MIGRATIONS.iter().cloned().collect();
        let version = newest_known(&MIGRATIONS) + 1;
        all.push(Migration::new(
            version,
            "newer".into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        ));
        Migrator::with_migrations(all)
    }

    /// A data folder with one backbone, and the schema of `migrations`.
    async fn data_folder(migrations: &Migrator) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open_at(
            folder.path(),
            Access::Exclusive,
            Settings::default(),
            migrations,
        )
        .await
        .expect("open");
        let name: Name = "tiny".parse().expect("name");
        store
            .add_backbone(&name, &Digest::of(b"x"), "embedded")
            .await
            .expect("backbone");
        store.close().await;
        folder
    }

    /// A database as the program of the second schema made it.
    async fn second_schema() -> (tempfile::TempDir, SqlitePool) {
        let folder = tempfile::tempdir().expect("folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join(crate::DATABASE_FILE))
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.expect("create");
        let second = MIGRATIONS.iter().filter(|one| one.version <= 2).cloned();
        let second = Migrator::with_migrations(second.collect::<Vec<_>>());
        second.run(&pool).await.expect("schema");
        (folder, pool)
    }

    fn backups(folder: &Path) -> Vec<PathBuf> {
        match fs::read_dir(folder.join("backups")) {
            Ok(entries) => entries.map(|entry| entry.expect("entry").path()).collect(),
            Err(_) => Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_copy_is_made_before_a_new_migration_and_only_then() {
        let folder = data_folder(&MIGRATIONS).await;
        let migrations = newer(
            "DROP TABLE aliases; DELETE FROM backbones; CREATE TABLE extra (x INTEGER) STRICT;",
        );
        for _ in 0..2 {
            let store = Store::open_at(
                folder.path(),
                Access::Exclusive,
                Settings::default(),
                &migrations,
            )
            .await
            .expect("open");
            assert_eq!(store.list_backbones().await.expect("list"), []);
            store.close().await;
            assert_eq!(backups(folder.path()).len(), 1);
        }
        // The copy is a whole database of the schema before.
        let restored = tempfile::tempdir().expect("folder");
        let copy = &backups(folder.path())[0];
        fs::copy(copy, restored.path().join(crate::DATABASE_FILE)).expect("copy");
        let store = Store::open(restored.path(), Access::Exclusive)
            .await
            .expect("restored");
        assert_eq!(store.list_backbones().await.expect("list").len(), 1);
        assert_eq!(backups(restored.path()), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn a_migration_that_fails_leaves_the_database_as_it_was_and_names_the_copy() {
        let folder = data_folder(&MIGRATIONS).await;
        let broken = newer("DELETE FROM backbones; CREATE TABLE backbones (x INTEGER) STRICT;");
        let error = Store::open_at(
            folder.path(),
            Access::Exclusive,
            Settings::default(),
            &broken,
        )
        .await
        .expect_err("broken");
        let copy = &backups(folder.path())[0];
        assert!(
            error.to_string().contains(&copy.display().to_string()),
            "{error}"
        );
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        assert_eq!(store.list_backbones().await.expect("list").len(), 1);
    }

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_refused_and_one_of_an_older_program_is_not_read() {
        let newer = newer("CREATE TABLE extra (x INTEGER) STRICT;");
        let (known, found) = (newest_known(&MIGRATIONS), newest_known(&newer));
        let folder = data_folder(&newer).await;
        for access in [Access::Exclusive, Access::Shared] {
            let error = Store::open(folder.path(), access).await.expect_err("newer");
            let sentence = error.to_string();
            assert!(
                matches!(error, StoreError::NewerDatabase { found: f, known: k, .. } if (f, k) == (found, known)),
                "{sentence}"
            );
            assert!(
                sentence.contains("newer version of LoRA Recycle"),
                "{sentence}"
            );
        }
        let folder = data_folder(&MIGRATIONS).await;
        let error = Store::open_at(folder.path(), Access::Shared, Settings::default(), &newer)
            .await
            .expect_err("older");
        assert!(matches!(error, StoreError::OlderDatabase { .. }), "{error}");
    }

    #[tokio::test]
    async fn databases_of_other_builds_and_programs_are_refused() {
        let one = newer("CREATE TABLE extra (x INTEGER) STRICT;");
        let other = newer("CREATE TABLE extra (y INTEGER) STRICT;");
        let folder = data_folder(&one).await;
        let error = Store::open_at(
            folder.path(),
            Access::Exclusive,
            Settings::default(),
            &other,
        )
        .await
        .expect_err("altered");
        assert!(
            matches!(error, StoreError::AlteredMigration { version, .. } if version == newest_known(&one))
        );

        let folder = tempfile::tempdir().expect("folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join(crate::DATABASE_FILE))
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.expect("create");
        sqlx::query("CREATE TABLE songs (title TEXT)")
            .execute(&pool)
            .await
            .expect("table");
        pool.close().await;
        for access in [Access::Exclusive, Access::Shared] {
            let error = Store::open(folder.path(), access)
                .await
                .expect_err("foreign");
            assert!(
                matches!(error, StoreError::ForeignDatabase { .. }),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn jobs_of_the_second_schema_get_their_work_and_failed_inversions_their_mark() {
        let (folder, pool) = second_schema().await;
        let rows = [
            ("invert", r#"{"recipe": {"steps": 3}}"#, 0.4567),
            ("invert", r#"{"recipe": {"real": null}}"#, 0.9),
            ("invert", r#"{"recipe": {"real": "0f"}}"#, 0.4),
            ("tune", r#"{"recipe": {}}"#, 0.4),
        ];
        for (number, (kind, recipe, accuracy)) in rows.into_iter().enumerate() {
            let result = format!(r#"{{"adapter": "a:1", "teacher_accuracy": {accuracy}}}"#);
            sqlx::query(
                "INSERT INTO jobs (id, kind, title, recipe, priority, state, most_attempts, created_ms, started_ms, finished_ms, result)
                 VALUES (?, ?, 'old', ?, 0, 'succeeded', 3, 1000, 2000, 5500, ?)",
            )
            .bind(uuid::Uuid::from_u128(number as u128).to_string())
            .bind(kind)
            .bind(recipe)
            .bind(result)
            .execute(&pool)
            .await
            .expect("insert");
        }
        pool.close().await;

        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("up to date");
        let mut failures = Vec::new();
        for number in 0..rows.len() {
            let job = store.job(uuid::Uuid::from_u128(number as u128)).await;
            let job = job.expect("job");
            assert_eq!(job.worked_ms, 3500);
            failures.push(job.result.expect("result")["failure"]["message"].clone());
        }
        assert_eq!(
            failures[0],
            "the inversion of a:1 failed: the adapter recognises 45.6 % of its images, and must recognise at least 90 %"
        );
        assert!(failures[1..].iter().all(serde_json::Value::is_null));
    }

    #[tokio::test]
    async fn a_folder_is_new_until_somebody_notes_that_it_has_begun() {
        let folder = tempfile::tempdir().expect("folder");
        for _ in 0..2 {
            let store = Store::open(folder.path(), Access::Exclusive)
                .await
                .expect("open");
            assert!(store.is_new().await.expect("new"));
            store.close().await;
        }
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        store.note_begun().await.expect("note");
        store.close().await;
        let reader = Store::open(folder.path(), Access::Shared)
            .await
            .expect("read");
        assert!(!reader.is_new().await.expect("old"));
        // One of a program that knew no such note is not new.
        let (folder, pool) = second_schema().await;
        pool.close().await;
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("up to date");
        assert!(!store.is_new().await.expect("old"));
    }

    #[tokio::test]
    async fn commits_wait_for_the_disk_and_foreign_keys_hold() {
        let folder = data_folder(&MIGRATIONS).await;
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let writer = store.inner.database.writer().expect("writer");
        let setting = async |sql: &'static str| -> String {
            let row: (String,) = sqlx::query_as(sql).fetch_one(writer).await.expect(sql);
            row.0
        };
        assert_eq!(
            setting("SELECT journal_mode FROM pragma_journal_mode").await,
            "wal"
        );
        // 2 is FULL.
        assert_eq!(
            setting("SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous").await,
            "2"
        );
        assert_eq!(
            setting("SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys").await,
            "1"
        );
        let strict: (i64,) =
            sqlx::query_as("SELECT count(*) FROM pragma_table_list WHERE type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx_%'")
                .fetch_one(writer)
                .await
                .expect("tables");
        assert_eq!(strict.0, 0, "tables that are not STRICT");
    }
}
