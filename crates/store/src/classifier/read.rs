//! Reading and finding classifiers, and what they take on disk.

use super::error::ClassifierError;
use super::record::{ClassifierRecord, Privacy};
use super::title::Title;
use crate::{Store, parse};
use serde::Serialize;
use sqlx::SqliteConnection;
use uuid::Uuid;

/// A query for whole [`ClassifierRecord`]s; `$tail` comes after the FROM clause.
macro_rules! select_classifiers {
    ($tail:literal) => {
        concat!(
            "SELECT classifiers.*, backbones.name AS backbone,
                (SELECT count(*) FROM classifier_classes WHERE classifier_id = classifiers.id AND position IS NOT NULL) AS classes,
                (SELECT count(*) FROM classifier_pictures WHERE classifier_id = classifiers.id AND class_id IS NOT NULL) AS pictures,
                (SELECT coalesce(sum(stored_bytes), 0) FROM classifier_pictures
                    WHERE classifier_id = classifiers.id AND class_id IS NOT NULL) AS stored_bytes
             FROM classifiers JOIN backbones ON backbones.digest = backbone_digest ",
            $tail
        )
    };
}

/// Which classifiers a list shows; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct ClassifierFilter {
    /// Only those of this name, without regard to case.
    pub name: Option<String>,
    /// Only classifiers older than this one: the last of the page before.
    pub before: Option<Uuid>,
    /// Most classifiers of the list; without it all.
    pub limit: Option<u32>,
}

/// What a classifier takes on disk, in bytes. A file that two pictures share counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClassifierUse {
    /// Of pictures in classes, with their thumbnails.
    pub pictures_bytes: i64,
    /// Of deleted pictures that can be given back.
    pub deleted_bytes: i64,
    /// Of kept features.
    pub features_bytes: i64,
    /// Of pictures and thumbnails of its batches.
    pub batches_bytes: i64,
}

impl Store {
    /// The classifier `id`.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`].
    pub async fn classifier(&self, id: Uuid) -> Result<ClassifierRecord, ClassifierError> {
        sqlx::query_as(select_classifiers!("WHERE classifiers.id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.inner.database.readers())
            .await?
            .ok_or(ClassifierError::UnknownClassifier(id))
    }

    /// Classifiers that pass `filter`, newest first.
    ///
    /// # Errors
    /// [`ClassifierError`] of the database, or of the name.
    pub async fn list_classifiers(
        &self,
        filter: &ClassifierFilter,
    ) -> Result<Vec<ClassifierRecord>, ClassifierError> {
        let name = filter.name.as_deref();
        let title = name
            .map(|name| Title::new("classifier", name))
            .transpose()?;
        Ok(sqlx::query_as(select_classifiers!(
            "WHERE (?1 IS NULL OR name_key = ?1) AND (?2 IS NULL OR classifiers.id < ?2)
             ORDER BY classifiers.id DESC LIMIT ?3"
        ))
        .bind(title.map(|title| title.key))
        .bind(filter.before.map(|id| id.to_string()))
        // A negative limit is none.
        .bind(filter.limit.map_or(-1, i64::from))
        .fetch_all(self.inner.database.readers())
        .await?)
    }

    /// What the classifier `id` takes on disk.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`].
    pub async fn classifier_use(&self, id: Uuid) -> Result<ClassifierUse, ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        exists(&mut connection, id).await?;
        Ok(sqlx::query_as(
            "SELECT
                (SELECT coalesce(sum(stored_bytes), 0) FROM classifier_pictures WHERE classifier_id = ?1 AND class_id IS NOT NULL)
                    AS pictures_bytes,
                (SELECT coalesce(sum(stored_bytes), 0) FROM classifier_pictures WHERE classifier_id = ?1 AND class_id IS NULL)
                    AS deleted_bytes,
                (SELECT coalesce(sum(length(value)), 0) FROM classifier_features WHERE classifier_id = ?1) AS features_bytes,
                (SELECT coalesce(sum(stored_bytes), 0) FROM batch_rows JOIN batches ON batches.id = batch_id
                    WHERE classifier_id = ?1) AS batches_bytes",
        )
        .bind(id.to_string())
        .fetch_one(&mut *connection)
        .await?)
    }

    /// Notes when classifiers last answered, in milliseconds since 1970. For a server: collect and call now and then, as each
    /// call waits for the disk. Those deleted meanwhile are skipped.
    ///
    /// # Errors
    /// [`ClassifierError`] of the database.
    pub async fn mark_classifiers_used(&self, used: &[(Uuid, i64)]) -> Result<(), ClassifierError> {
        let mut transaction = self.inner.database.begin().await?;
        for (id, used_ms) in used {
            sqlx::query(
                "UPDATE classifiers SET last_used_ms = max(coalesce(last_used_ms, 0), ?) WHERE id = ?",
            )
            .bind(used_ms)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// An error where there is no classifier `id`.
pub(crate) async fn exists(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<(), ClassifierError> {
    privacy(connection, id).await.map(|_| ())
}

/// What the classifier `id` keeps of its pictures; that never changes.
pub(super) async fn privacy(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<Privacy, ClassifierError> {
    let text: Option<String> = sqlx::query_scalar("SELECT privacy FROM classifiers WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(parse(&text.ok_or(ClassifierError::UnknownClassifier(id))?)?)
}
