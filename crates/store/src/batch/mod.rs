//! Batches: many pictures that a classifier sorted, as rows that a job adds in chunks and that can be filtered and counted.
//! Knows nothing of how they are sorted.

mod rows;
mod summary;

pub use rows::{BatchFilter, BatchLabel, BatchRow, BatchStatus, NewBatchRow, RowClass, Verdict};
pub use summary::{BatchSummary, ClassCount};

use crate::classifier::{ClassifierError, MOST_BATCH_PICTURES, Title};
use crate::{Digest, Freed, Store, now_ms, parse, parse_digests};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use std::collections::HashSet;
use uuid::Uuid;

/// A batch to be made, without rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// Its id, where a request must not make it twice; else it gets a new one.
    pub id: Option<Uuid>,
    /// The classifier that sorts it.
    pub classifier: Uuid,
    /// The job that adds its rows.
    pub job: Uuid,
    /// For people, for example the name of a folder.
    pub name: String,
    /// Rows that it will have, 1 to [`MOST_BATCH_PICTURES`].
    pub pictures: u32,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchRecord {
    /// UUID v7: ids have the order in which batches were made.
    pub id: Uuid,
    /// The classifier that sorts it.
    pub classifier: Uuid,
    /// The job that adds its rows.
    pub job: Uuid,
    /// For people.
    pub name: String,
    /// Rows that it will have.
    pub pictures: u32,
    /// Rows that it has.
    pub done: u32,
    /// When, in milliseconds since 1970 (UTC).
    pub created_ms: i64,
    /// Who made it.
    pub created_by: String,
}

impl FromRow<'_, SqliteRow> for BatchRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: parse(row.try_get("id")?)?,
            classifier: parse(row.try_get("classifier_id")?)?,
            job: parse(row.try_get("job_id")?)?,
            name: row.try_get("name")?,
            pictures: row.try_get("pictures")?,
            done: row.try_get("done")?,
            created_ms: row.try_get("created_ms")?,
            created_by: row.try_get("created_by")?,
        })
    }
}

/// A query for whole [`BatchRecord`]s; `$tail` comes after the FROM clause.
macro_rules! select_batches {
    ($tail:literal) => {
        concat!(
            "SELECT batches.*, (SELECT count(*) FROM batch_rows WHERE batch_id = batches.id) AS done FROM batches ",
            $tail
        )
    };
}

impl Store {
    /// Makes a batch without rows, or gives the one that has this id already.
    ///
    /// # Errors
    /// [`ClassifierError::BadBatchSize`] or of the name; [`ClassifierError::UnknownClassifier`].
    pub async fn create_batch(
        &self,
        new: &NewBatch,
        by: &str,
    ) -> Result<BatchRecord, ClassifierError> {
        let title = Title::new("batch", &new.name)?;
        if new.pictures == 0 || new.pictures > MOST_BATCH_PICTURES {
            return Err(ClassifierError::BadBatchSize(new.pictures));
        }
        let id = new.id.unwrap_or_else(Uuid::now_v7);
        let mut transaction = self.inner.database.begin().await?;
        crate::classifier::exists(&mut transaction, new.classifier).await?;
        sqlx::query(
            "INSERT INTO batches (id, classifier_id, job_id, name, pictures, created_ms, created_by) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(new.classifier.to_string())
        .bind(new.job.to_string())
        .bind(&title.text)
        .bind(new.pictures)
        .bind(now_ms())
        .bind(by)
        .execute(&mut *transaction)
        .await?;
        let made = read(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// The batch `id`.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownBatch`].
    pub async fn batch(&self, id: Uuid) -> Result<BatchRecord, ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        read(&mut connection, id).await
    }

    /// Batches of a classifier, newest first, at most `limit`; only those older than `before`, the last of the page before.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`].
    pub async fn list_batches(
        &self,
        classifier: Uuid,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<BatchRecord>, ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        crate::classifier::exists(&mut connection, classifier).await?;
        Ok(sqlx::query_as(select_batches!(
            "WHERE classifier_id = ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3"
        ))
        .bind(classifier.to_string())
        .bind(before.map(|id| id.to_string()))
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?)
    }

    /// Deletes a batch for good, with the files that nobody else uses. Works on a full disk.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownBatch`].
    pub async fn delete_batch(&self, id: Uuid) -> Result<Freed, ClassifierError> {
        self.run_to_completion(move |store| async move {
            store.delete_and_free(|| store.delete_batch_rows(id)).await
        })
        .await
    }

    async fn delete_batch_rows(&self, id: Uuid) -> Result<HashSet<Digest>, ClassifierError> {
        let mut transaction = self.inner.database.begin().await?;
        let blobs: Vec<String> = sqlx::query_scalar(
            "SELECT original_digest FROM batch_rows WHERE batch_id = ?1 AND original_digest IS NOT NULL
             UNION SELECT thumbnail_digest FROM batch_rows WHERE batch_id = ?1 AND thumbnail_digest IS NOT NULL",
        )
        .bind(id.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        let done = sqlx::query("DELETE FROM batches WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            return Err(ClassifierError::UnknownBatch(id));
        }
        transaction.commit().await?;
        Ok(parse_digests(&blobs)?)
    }
}

async fn read(connection: &mut SqliteConnection, id: Uuid) -> Result<BatchRecord, ClassifierError> {
    sqlx::query_as(select_batches!("WHERE id = ?"))
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?
        .ok_or(ClassifierError::UnknownBatch(id))
}
