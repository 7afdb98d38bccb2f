//! The rows of batches: adding them in chunks and listing them with filters.

use super::read;
use crate::classifier::{ClassifierError, Title};
use crate::{Digest, Store, parse, parse_json};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use std::collections::HashSet;
use uuid::Uuid;

/// A likely class of a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchLabel {
    /// Of the class; it may be gone by now.
    pub class: Uuid,
    /// As the class was called.
    pub name: String,
    /// From 0 to 1.
    pub probability: f64,
}

/// What came of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It was sorted.
    Sorted {
        /// The class it goes to, and after it the next likeliest ones.
        best: BatchLabel,
        /// Most likely first, without the best one.
        others: Vec<BatchLabel>,
        /// From 0 to 1.
        confidence: f64,
        /// How far it is from everything that the classifier knows; `None` where that was not measured.
        novelty: Option<f64>,
        /// None of the classes.
        rejected: bool,
    },
    /// It could not be used.
    Unusable(
        /// Why; belongs to whoever wrote it.
        serde_json::Value,
    ),
}

/// A row to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBatchRow {
    /// From 0 within the batch.
    pub position: u32,
    /// As whoever sent the picture called it.
    pub name: String,
    /// Its bytes as they were sent, where they are to be kept.
    pub original: Option<Vec<u8>>,
    /// A small version of it.
    pub thumbnail: Option<Vec<u8>>,
    /// What came of it.
    pub verdict: Verdict,
}

/// Whether a picture of a batch could be sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum BatchStatus {
    /// It has an answer.
    Sorted,
    /// It has a fault.
    Unusable,
}

/// A row of a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchRow {
    /// From 0 within the batch.
    pub position: u32,
    /// As whoever sent the picture called it.
    pub name: String,
    /// SHA-256 of its bytes as they were sent, where they are kept.
    pub original: Option<Digest>,
    /// SHA-256 of its thumbnail.
    pub thumbnail: Option<Digest>,
    /// Whether it could be sorted.
    pub status: BatchStatus,
    /// Likeliest class first; empty for what could not be sorted.
    pub labels: Vec<BatchLabel>,
    /// From 0 to 1.
    pub confidence: Option<f64>,
    /// How far it is from everything that the classifier knows.
    pub novelty: Option<f64>,
    /// None of the classes.
    pub rejected: bool,
    /// Why it could not be sorted; belongs to whoever wrote it.
    pub fault: Option<serde_json::Value>,
}

impl FromRow<'_, SqliteRow> for BatchRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let optional = |column: &str| row.try_get::<Option<&str>, _>(column);
        let fault: Option<serde_json::Value> = optional("fault")?.map(parse_json).transpose()?;
        Ok(Self {
            position: row.try_get("position")?,
            name: row.try_get("name")?,
            original: optional("original_digest")?.map(parse).transpose()?,
            thumbnail: optional("thumbnail_digest")?.map(parse).transpose()?,
            status: if fault.is_some() {
                BatchStatus::Unusable
            } else {
                BatchStatus::Sorted
            },
            labels: parse_json(row.try_get("labels")?)?,
            confidence: row.try_get("confidence")?,
            novelty: row.try_get("novelty")?,
            rejected: row.try_get("rejected")?,
            fault,
        })
    }
}

/// Where a picture of a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RowClass {
    /// To this class.
    Class(Uuid),
    /// None of the classes.
    NoneOfThese,
    /// It could not be sorted.
    Unusable,
}

/// Which rows a list shows; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct BatchFilter {
    /// Only what went here.
    pub class: Option<RowClass>,
    /// Only rows that are at least this confident, from 0 to 1; none that could not be sorted.
    pub least_confidence: Option<f64>,
    /// Only rows that are less confident than this, from 0 to 1; none that could not be sorted.
    pub below_confidence: Option<f64>,
    /// Only rows that are at least this far from everything that the classifier knows; none where that was not measured.
    pub least_novelty: Option<f64>,
    /// Only rows that are less far than this; none where that was not measured.
    pub below_novelty: Option<f64>,
    /// Only rows after this position: the last of the page before.
    pub after: Option<u32>,
    /// Most rows of the list; without it all.
    pub limit: Option<u32>,
}

/// A row whose files are described.
struct Described {
    row: NewBatchRow,
    title: Title,
    original: Option<Digest>,
    thumbnail: Option<Digest>,
    stored_bytes: usize,
}

impl Store {
    /// Adds rows in one transaction. One whose position is there already takes its place.
    ///
    /// # Errors
    /// [`ClassifierError::NoSuchPosition`] or of a name; [`ClassifierError::UnknownBatch`]. Nothing is added then.
    pub async fn add_batch_rows(
        &self,
        batch: Uuid,
        rows: Vec<NewBatchRow>,
    ) -> Result<(), ClassifierError> {
        self.inner.database.writer()?;
        let titled: Vec<(Title, NewBatchRow)> = rows
            .into_iter()
            .map(|row| Ok((Title::new("picture", &row.name)?, row)))
            .collect::<Result<_, ClassifierError>>()?;
        self.run_to_completion(move |store| async move {
            let (described, blobs) = tokio::task::spawn_blocking(move || describe(titled)).await?;
            let replaced = store
                .store_blobs(blobs, || store.insert_batch_rows(batch, &described))
                .await?;
            store.free_or_warn(replaced).await;
            Ok(())
        })
        .await
    }

    /// The blobs of rows that were replaced.
    async fn insert_batch_rows(
        &self,
        batch: Uuid,
        rows: &[Described],
    ) -> Result<HashSet<Digest>, ClassifierError> {
        let mut transaction = self.inner.database.begin().await?;
        let pictures = read(&mut transaction, batch).await?.pictures;
        let mut released = HashSet::new();
        for row in rows {
            let position = row.row.position;
            if position >= pictures {
                return Err(ClassifierError::NoSuchPosition { position, pictures });
            }
            let old: Option<(Option<String>, Option<String>)> = sqlx::query_as(
                "DELETE FROM batch_rows WHERE batch_id = ? AND position = ? RETURNING original_digest, thumbnail_digest",
            )
            .bind(batch.to_string())
            .bind(position)
            .fetch_optional(&mut *transaction)
            .await?;
            if let Some((original, thumbnail)) = old {
                for digest in [original, thumbnail].into_iter().flatten() {
                    released.insert(parse(&digest)?);
                }
            }
            insert(&mut transaction, batch, row).await?;
        }
        transaction.commit().await?;
        Ok(released)
    }

    /// Rows of a batch that pass `filter`, in order.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownBatch`].
    pub async fn batch_rows(
        &self,
        batch: Uuid,
        filter: &BatchFilter,
    ) -> Result<Vec<BatchRow>, ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        read(&mut connection, batch).await?;
        let (rejected, status, class) = match filter.class {
            None => (None, None, None),
            Some(RowClass::Class(class)) => (Some(false), None, Some(class.to_string())),
            Some(RowClass::NoneOfThese) => (Some(true), None, None),
            Some(RowClass::Unusable) => (None, Some("unusable"), None),
        };
        Ok(sqlx::query_as(
            "SELECT * FROM batch_rows WHERE batch_id = ?1 AND position > ?2
               AND (?3 IS NULL OR rejected = ?3) AND (?4 IS NULL OR status = ?4) AND (?5 IS NULL OR class_id = ?5)
               AND (?6 IS NULL OR confidence >= ?6) AND (?7 IS NULL OR confidence < ?7)
               AND (?8 IS NULL OR novelty >= ?8) AND (?9 IS NULL OR novelty < ?9)
             ORDER BY position LIMIT ?10",
        )
        .bind(batch.to_string())
        .bind(filter.after.map_or(-1, i64::from))
        .bind(rejected)
        .bind(status)
        .bind(class)
        .bind(filter.least_confidence)
        .bind(filter.below_confidence)
        .bind(filter.least_novelty)
        .bind(filter.below_novelty)
        // A negative limit is none.
        .bind(filter.limit.map_or(-1, i64::from))
        .fetch_all(&mut *connection)
        .await?)
    }

    /// The positions that have a row, in order: where a job that goes on need not begin again.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownBatch`].
    pub async fn batch_positions(&self, batch: Uuid) -> Result<Vec<u32>, ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        read(&mut connection, batch).await?;
        Ok(sqlx::query_scalar(
            "SELECT position FROM batch_rows WHERE batch_id = ? ORDER BY position",
        )
        .bind(batch.to_string())
        .fetch_all(&mut *connection)
        .await?)
    }

    /// The bytes of a picture of a batch as they were sent, verified against its digest.
    ///
    /// # Errors
    /// [`ClassifierError::OriginalNotKept`]; [`StoreError::BlobMissing`](crate::StoreError::BlobMissing),
    /// [`StoreError::BlobDamaged`](crate::StoreError::BlobDamaged).
    pub async fn read_batch_picture(&self, row: &BatchRow) -> Result<Vec<u8>, ClassifierError> {
        match &row.original {
            Some(original) => Ok(self.read_blob(original).await?),
            None => Err(ClassifierError::OriginalNotKept(row.name.clone())),
        }
    }
}

/// Names every file by its content, and gives those that are to be stored.
fn describe(titled: Vec<(Title, NewBatchRow)>) -> (Vec<Described>, Vec<(Digest, Vec<u8>)>) {
    let (mut described, mut blobs) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (title, mut row) in titled {
        let mut stored_bytes = 0;
        let mut described_file = |bytes: Option<Vec<u8>>| {
            bytes.map(|bytes| {
                let digest = Digest::of(&bytes);
                stored_bytes += bytes.len();
                if seen.insert(digest.clone()) {
                    blobs.push((digest.clone(), bytes));
                }
                digest
            })
        };
        let original = described_file(row.original.take());
        let thumbnail = described_file(row.thumbnail.take());
        described.push(Described {
            row,
            title,
            original,
            thumbnail,
            stored_bytes,
        });
    }
    (described, blobs)
}

async fn insert(
    connection: &mut SqliteConnection,
    batch: Uuid,
    row: &Described,
) -> Result<(), ClassifierError> {
    let sql = "INSERT INTO batch_rows (batch_id, position, name, original_digest, thumbnail_digest, stored_bytes, status, class_id,
            class_name, labels, confidence, novelty, rejected, fault) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql)
        .bind(batch.to_string())
        .bind(row.row.position)
        .bind(&row.title.text)
        .bind(row.original.as_ref().map(Digest::as_str))
        .bind(row.thumbnail.as_ref().map(Digest::as_str))
        // What is in memory is far smaller than 2⁶³ bytes.
        .bind((row.stored_bytes as u64).cast_signed());
    match &row.row.verdict {
        Verdict::Sorted {
            best,
            others,
            confidence,
            novelty,
            rejected,
        } => {
            let labels: Vec<&BatchLabel> = std::iter::once(best).chain(others).collect();
            query
                .bind("sorted")
                .bind(best.class.to_string())
                .bind(&best.name)
                .bind(serde_json::json!(labels).to_string())
                .bind(confidence)
                .bind(novelty)
                .bind(rejected)
                .bind(None::<String>)
        }
        Verdict::Unusable(fault) => query
            .bind("unusable")
            .bind(None::<String>)
            .bind(None::<String>)
            .bind("[]")
            .bind(None::<f64>)
            .bind(None::<f64>)
            .bind(false)
            .bind(fault.to_string()),
    }
    .execute(connection)
    .await?;
    Ok(())
}
