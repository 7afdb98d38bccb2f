//! Deleting a classifier for good, with everything that belongs to it.

use super::error::ClassifierError;
use super::step::check_revision;
use crate::features::forget_pictures;
use crate::{Digest, Freed, Store, parse_digests};
use std::collections::HashSet;
use uuid::Uuid;

impl Store {
    /// Deletes a classifier with its classes, pictures, history and batches, at once and for good. Works on a full disk.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn delete_classifier(
        &self,
        id: Uuid,
        expected: Option<u64>,
    ) -> Result<Freed, ClassifierError> {
        self.run_to_completion(move |store| async move {
            let delete = || store.delete_classifier_rows(id, expected);
            store.delete_and_free(delete).await
        })
        .await
    }

    async fn delete_classifier_rows(
        &self,
        id: Uuid,
        expected: Option<u64>,
    ) -> Result<HashSet<Digest>, ClassifierError> {
        let mut transaction = self.inner.database.begin().await?;
        check_revision(&mut transaction, id, expected).await?;
        let blobs: Vec<String> = sqlx::query_scalar(
            "SELECT original_digest FROM classifier_pictures WHERE classifier_id = ?1 AND original_digest IS NOT NULL
             UNION SELECT thumbnail_digest FROM classifier_pictures WHERE classifier_id = ?1
             UNION SELECT original_digest FROM batch_rows JOIN batches ON batches.id = batch_id
                WHERE classifier_id = ?1 AND original_digest IS NOT NULL
             UNION SELECT thumbnail_digest FROM batch_rows JOIN batches ON batches.id = batch_id
                WHERE classifier_id = ?1 AND thumbnail_digest IS NOT NULL",
        )
        .bind(id.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        let pictures: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT picture_digest FROM classifier_pictures WHERE classifier_id = ?",
        )
        .bind(id.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM classifiers WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        forget_pictures(&mut transaction, &serde_json::json!(pictures).to_string()).await?;
        transaction.commit().await?;
        Ok(parse_digests(&blobs)?)
    }
}
