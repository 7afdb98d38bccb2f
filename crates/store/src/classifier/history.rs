//! What happened to a classifier: reading it, undoing and redoing it, and forgetting it.

use super::change::ChangeRecord;
use super::error::ClassifierError;
use super::step::{
    Changed, Direction, Step, changes_of_next, check_revision, forget_old, together,
};
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

    /// What is undone next, and what is redone next; changes that are undone together are one.
    ///
    /// # Errors
    /// [`ClassifierError`] of the database; an unknown classifier has no changes.
    pub async fn undo_and_redo(
        &self,
        id: Uuid,
    ) -> Result<(Option<ChangeRecord>, Option<ChangeRecord>), ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        let id = id.to_string();
        let mut next = Vec::with_capacity(2);
        for direction in [Direction::Back, Direction::Forward] {
            let changes = changes_of_next(&mut connection, &id, direction).await?;
            next.push(together(&mut connection, &id, &changes).await?);
        }
        let redo = next.pop().flatten();
        Ok((next.pop().flatten(), redo))
    }

    /// Takes back the last change that is not taken back yet, with those before it that belong to the same group. That is a change, too; called again and again it walks back through
    /// the last [`MOST_UNDO`](crate::MOST_UNDO) of them.
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
            let step = Step::begin(&store, id, expected, by.as_str()).await?;
            let settled = step.replay(direction).await?;
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
