//! What happened to a classifier: reading it, undoing and redoing it, and forgetting it.

use super::change::ChangeRecord;
use super::error::ClassifierError;
use super::step::{Changed, Direction, Step, check_revision, forget_old};
use crate::{Freed, Store};
use std::collections::HashSet;
use uuid::Uuid;

impl Store {
    /// What happened to the classifier, newest first: everything that can be undone or redone, and some of what was before.
    ///
    /// # Errors
    /// [`ClassifierError`] of the database; an unknown classifier has no changes.
    pub async fn classifier_changes(&self, id: Uuid) -> Result<Vec<ChangeRecord>, ClassifierError> {
        Ok(sqlx::query_as(
            "SELECT * FROM classifier_changes WHERE classifier_id = ? ORDER BY revision DESC",
        )
        .bind(id.to_string())
        .fetch_all(self.inner.database.readers())
        .await?)
    }

    /// Takes back the last change that is not taken back yet. That is a change, too; called again and again it walks back through
    /// the last [`MOST_UNDO`](crate::MOST_UNDO) changes.
    ///
    /// # Errors
    /// [`ClassifierError::NothingToUndo`], [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn undo_classifier(
        &self,
        id: Uuid,
        expected: Option<u64>,
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        self.replay(id, expected, by, Direction::Back).await
    }

    /// Makes the change again that was taken back last. After any other change there is nothing to redo.
    ///
    /// # Errors
    /// [`ClassifierError::NothingToRedo`], [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn redo_classifier(
        &self,
        id: Uuid,
        expected: Option<u64>,
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        self.replay(id, expected, by, Direction::Forward).await
    }

    async fn replay(
        &self,
        id: Uuid,
        expected: Option<u64>,
        by: &str,
        direction: Direction,
    ) -> Result<Changed, ClassifierError> {
        let by = by.to_owned();
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, &by).await?;
            let (sql, nothing) = match direction {
                Direction::Back => (
                    "SELECT * FROM classifier_changes WHERE classifier_id = ? AND state = 'done'
                     ORDER BY revision DESC LIMIT 1",
                    ClassifierError::NothingToUndo,
                ),
                Direction::Forward => (
                    "SELECT * FROM classifier_changes WHERE classifier_id = ? AND state = 'undone'
                     ORDER BY revision LIMIT 1",
                    ClassifierError::NothingToRedo,
                ),
            };
            let found: Option<ChangeRecord> = sqlx::query_as(sql)
                .bind(&step.id)
                .fetch_optional(&mut *step.transaction)
                .await?;
            let done = found.ok_or(nothing)?;
            let revision = done.revision.cast_signed();
            let settled = step.replay(revision, done.change, direction).await?;
            Ok(store.settle(settled).await)
        })
        .await
    }

    /// Deletes for good what was deleted from the classifier. Nothing before can be undone then. Works on a full disk.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn forget_deleted(
        &self,
        id: Uuid,
        expected: Option<u64>,
    ) -> Result<Freed, ClassifierError> {
        self.run_to_completion(move |store| async move {
            store.delete_and_free(|| store.forget(id, expected)).await
        })
        .await
    }

    async fn forget(
        &self,
        id: Uuid,
        expected: Option<u64>,
    ) -> Result<HashSet<crate::Digest>, ClassifierError> {
        let mut transaction = self.inner.database.begin().await?;
        let revision = check_revision(&mut transaction, id, expected).await?;
        sqlx::query("UPDATE classifier_changes SET state = 'closed' WHERE classifier_id = ?")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let released = forget_old(&mut transaction, &id.to_string(), revision, 0).await?;
        transaction.commit().await?;
        Ok(released)
    }
}
