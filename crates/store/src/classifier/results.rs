//! What was computed from a classifier at one of its revisions: a fitted head, a check. It can be computed again.

use super::error::ClassifierError;
use super::read;
use crate::features::adapter_text;
use crate::{Digest, Store};
use uuid::Uuid;

/// Results that are kept of a classifier; where there would be more, those of the oldest revision go first.
const MOST_RESULTS: i64 = 32;

/// Something that was computed from a classifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassifierResult {
    /// What it was computed from. The classifier may be at a later one by now.
    pub revision: u64,
    /// Belongs to whoever wrote it.
    pub content: Vec<u8>,
}

impl Store {
    /// Keeps what was computed from the classifier at `revision` with this adapter (`None`: the bare backbone), in place of an
    /// earlier result of this kind. One of an older revision than what is kept changes nothing.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`].
    pub async fn keep_classifier_result(
        &self,
        id: Uuid,
        kind: &str,
        adapter: Option<&Digest>,
        result: &ClassifierResult,
    ) -> Result<(), ClassifierError> {
        let mut transaction = self.inner.database.begin().await?;
        read::exists(&mut transaction, id).await?;
        sqlx::query(
            "INSERT INTO classifier_results (classifier_id, kind, adapter_digest, revision, content) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (classifier_id, kind, adapter_digest) DO UPDATE
                SET revision = excluded.revision, content = excluded.content WHERE excluded.revision >= revision",
        )
        .bind(id.to_string())
        .bind(kind)
        .bind(adapter_text(adapter))
        .bind(i64::try_from(result.revision).unwrap_or(i64::MAX))
        .bind(&result.content)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "DELETE FROM classifier_results WHERE rowid IN (SELECT rowid FROM classifier_results WHERE classifier_id = ?1
                ORDER BY revision DESC, rowid DESC LIMIT -1 OFFSET ?2)",
        )
        .bind(id.to_string())
        .bind(MOST_RESULTS)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// The newest result of this kind with this adapter, of whatever revision.
    ///
    /// # Errors
    /// [`ClassifierError`] of the database; an unknown classifier has none.
    pub async fn classifier_result(
        &self,
        id: Uuid,
        kind: &str,
        adapter: Option<&Digest>,
    ) -> Result<Option<ClassifierResult>, ClassifierError> {
        let found: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT revision, content FROM classifier_results WHERE classifier_id = ? AND kind = ? AND adapter_digest = ?",
        )
        .bind(id.to_string())
        .bind(kind)
        .bind(adapter_text(adapter))
        .fetch_optional(self.inner.database.readers())
        .await?;
        Ok(found.map(|(revision, content)| ClassifierResult {
            revision: revision.unsigned_abs(),
            content,
        }))
    }
}
