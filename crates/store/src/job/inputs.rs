//! What jobs are given: named bytes, kept as blobs until they are no longer needed.

use crate::{Digest, Store, StoreError, parse, parse_digests};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use std::collections::HashSet;
use uuid::Uuid;

/// Something that a job is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInput {
    /// What it is for; belongs to the kind of the job.
    pub role: String,
    /// As whoever sent it called it.
    pub name: String,
    /// The whole content.
    pub bytes: Vec<u8>,
}

/// Something that a job was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobInput {
    /// What it is for; belongs to the kind of the job.
    pub role: String,
    /// As whoever sent it called it.
    pub name: String,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Of its content.
    pub size_bytes: u64,
}

impl FromRow<'_, SqliteRow> for JobInput {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let size_bytes: i64 = row.try_get("size_bytes")?;
        Ok(Self {
            role: row.try_get("role")?,
            name: row.try_get("name")?,
            digest: parse(row.try_get("blob_digest")?)?,
            size_bytes: size_bytes.unsigned_abs(),
        })
    }
}

impl Store {
    /// What the job `id` was given, in order; nothing once it was released.
    ///
    /// # Errors
    /// [`StoreError`] of the database; an unknown job was given nothing.
    pub async fn job_inputs(&self, id: Uuid) -> Result<Vec<JobInput>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT role, name, blob_digest, size_bytes FROM job_inputs WHERE job_id = ? ORDER BY position",
        )
        .bind(id.to_string())
        .fetch_all(self.inner.database.readers())
        .await?)
    }

    /// The bytes of an input, verified against its digest.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`], [`StoreError::BlobDamaged`].
    pub async fn read_job_input(&self, input: &JobInput) -> Result<Vec<u8>, StoreError> {
        self.read_blob(&input.digest).await
    }
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    id: Uuid,
    inputs: &[JobInput],
) -> Result<(), StoreError> {
    for (position, input) in (0_i64..).zip(inputs) {
        sqlx::query(
            "INSERT INTO job_inputs (job_id, position, role, name, blob_digest, size_bytes) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(position)
        .bind(&input.role)
        .bind(&input.name)
        .bind(input.digest.as_str())
        .bind(input.size_bytes.cast_signed())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Lets go of what the job was given, and gives the blobs that may now be without use.
pub(super) async fn release(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<HashSet<Digest>, StoreError> {
    let released: Vec<String> =
        sqlx::query_scalar("DELETE FROM job_inputs WHERE job_id = ? RETURNING blob_digest")
            .bind(id.to_string())
            .fetch_all(&mut *connection)
            .await?;
    if !released.is_empty() {
        sqlx::query("UPDATE jobs SET inputs_released = 1 WHERE id = ?")
            .bind(id.to_string())
            .execute(connection)
            .await?;
    }
    Ok(parse_digests(&released)?)
}
