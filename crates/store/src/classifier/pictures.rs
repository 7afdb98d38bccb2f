//! Pictures of classifiers: listing and reading them.

use super::error::ClassifierError;
use super::read;
use crate::{Digest, Store, parse};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

/// A picture in a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PictureRecord {
    /// Of this picture in this classifier. UUID v7: ids have the order in which pictures were added.
    pub id: Uuid,
    /// The class that shows it.
    pub class: Uuid,
    /// SHA-256 of its bytes as they were sent, kept or not.
    pub digest: Digest,
    /// Whether these bytes are kept.
    pub is_kept: bool,
    /// SHA-256 of its thumbnail.
    pub thumbnail: Digest,
    /// As whoever sent it called it.
    pub name: String,
    /// Of the bytes as they were sent, for example "image/jpeg".
    pub media_type: String,
    /// Of the bytes as they were sent.
    pub size_bytes: u64,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// When, in milliseconds since 1970 (UTC).
    pub added_ms: i64,
    /// Who added it.
    pub added_by: String,
}

impl FromRow<'_, SqliteRow> for PictureRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let size_bytes: i64 = row.try_get("size_bytes")?;
        Ok(Self {
            id: parse(row.try_get("id")?)?,
            class: parse(row.try_get("class_id")?)?,
            digest: parse(row.try_get("picture_digest")?)?,
            is_kept: row.try_get::<Option<&str>, _>("original_digest")?.is_some(),
            thumbnail: parse(row.try_get("thumbnail_digest")?)?,
            name: row.try_get("name")?,
            media_type: row.try_get("media_type")?,
            size_bytes: size_bytes.unsigned_abs(),
            width: row.try_get("width")?,
            height: row.try_get("height")?,
            added_ms: row.try_get("added_ms")?,
            added_by: row.try_get("added_by")?,
        })
    }
}

/// Which pictures a list shows; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct PictureFilter {
    /// Only those of this class.
    pub class: Option<Uuid>,
    /// Only pictures added after this one: the last of the page before.
    pub after: Option<Uuid>,
    /// Most pictures of the list; without it all.
    pub limit: Option<u32>,
}

impl Store {
    /// Pictures of a classifier that pass `filter`, in the order in which they were added.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`]; an unknown class has no pictures.
    pub async fn list_pictures(
        &self,
        id: Uuid,
        filter: &PictureFilter,
    ) -> Result<Vec<PictureRecord>, ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        read::exists(&mut connection, id).await?;
        // Two queries, so that each walks along an index and stops at its limit.
        let sql = match filter.class {
            Some(_) => {
                "SELECT * FROM classifier_pictures WHERE classifier_id = ?1 AND class_id = ?2 AND id > ?3 ORDER BY id LIMIT ?4"
            }
            None => {
                "SELECT * FROM classifier_pictures WHERE classifier_id = ?1 AND class_id IS NOT NULL AND id > ?3 ORDER BY id
                 LIMIT ?4"
            }
        };
        Ok(sqlx::query_as(sql)
            .bind(id.to_string())
            .bind(filter.class.map(|class| class.to_string()))
            .bind(filter.after.map_or_else(String::new, |id| id.to_string()))
            // A negative limit is none.
            .bind(filter.limit.map_or(-1, i64::from))
            .fetch_all(&mut *connection)
            .await?)
    }

    /// A picture of the classifier `id`.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownPicture`].
    pub async fn picture(&self, id: Uuid, picture: Uuid) -> Result<PictureRecord, ClassifierError> {
        sqlx::query_as(
            "SELECT * FROM classifier_pictures WHERE id = ? AND classifier_id = ? AND class_id IS NOT NULL",
        )
        .bind(picture.to_string())
        .bind(id.to_string())
        .fetch_optional(self.inner.database.readers())
        .await?
        .ok_or(ClassifierError::UnknownPicture(picture))
    }

    /// The bytes of a picture as they were sent, verified against its digest.
    ///
    /// # Errors
    /// [`ClassifierError::OriginalNotKept`]; [`StoreError::BlobMissing`](crate::StoreError::BlobMissing),
    /// [`StoreError::BlobDamaged`](crate::StoreError::BlobDamaged).
    pub async fn read_picture(&self, picture: &PictureRecord) -> Result<Vec<u8>, ClassifierError> {
        if !picture.is_kept {
            return Err(ClassifierError::OriginalNotKept(picture.name.clone()));
        }
        Ok(self.read_blob(&picture.digest).await?)
    }

    /// The bytes of a thumbnail by its digest ([`PictureRecord::thumbnail`], [`BatchRow::thumbnail`](crate::BatchRow::thumbnail)),
    /// verified against it.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`](crate::StoreError::BlobMissing), [`StoreError::BlobDamaged`](crate::StoreError::BlobDamaged).
    pub async fn read_thumbnail(&self, thumbnail: &Digest) -> Result<Vec<u8>, ClassifierError> {
        Ok(self.read_blob(thumbnail).await?)
    }
}
