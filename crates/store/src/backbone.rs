//! Rows of backbones: name, identity and where the weights come from.

use super::Digest;
use super::error::{StoreError, is_foreign_key_violation, is_unique_violation};
use super::name::{Name, near};
use super::{Store, now_ms, parse};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

/// A backbone that the app knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackboneRecord {
    /// Over its tensors; names it wherever it lies.
    pub digest: Digest,
    /// What it is called here.
    pub name: Name,
    /// Where the weights come from, as stated when it was added.
    pub source: String,
    /// When it was registered, in milliseconds since 1970 (UTC).
    pub created_ms: i64,
}

impl FromRow<'_, SqliteRow> for BackboneRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            digest: parse(row.try_get("digest")?)?,
            name: parse(row.try_get("name")?)?,
            source: row.try_get("source")?,
            created_ms: row.try_get("created_ms")?,
        })
    }
}

impl Store {
    /// Adds a backbone. Adding the same one under the same name again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::BackboneNameTaken`], [`StoreError::BackboneExists`].
    pub async fn add_backbone(
        &self,
        name: &Name,
        digest: &Digest,
        source: &str,
    ) -> Result<BackboneRecord, StoreError> {
        let inserted = sqlx::query_as(
            "INSERT INTO backbones (digest, name, source, created_ms) VALUES (?, ?, ?, ?) RETURNING *",
        )
        .bind(digest.as_str())
        .bind(name.as_str())
        .bind(source)
        .bind(now_ms())
        .fetch_one(self.inner.database.writer()?)
        .await;
        let error = match inserted {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        if is_unique_violation(&error, "backbones.digest") {
            let present = self.backbone_by_digest(digest).await?;
            return if present.name == *name {
                Ok(present)
            } else {
                Err(StoreError::BackboneExists {
                    name: present.name,
                    digest: present.digest,
                })
            };
        }
        if is_unique_violation(&error, "backbones.name") {
            // The same digest under the same name breaks both rules, and SQLite names only one.
            let present = self.backbone(name).await?;
            return if present.digest == *digest {
                Ok(present)
            } else {
                Err(StoreError::BackboneNameTaken {
                    name: present.name,
                    digest: present.digest,
                })
            };
        }
        Err(error.into())
    }

    /// All backbones in order of their names.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn list_backbones(&self) -> Result<Vec<BackboneRecord>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM backbones ORDER BY name")
            .fetch_all(self.inner.database.readers())
            .await?)
    }

    /// # Errors
    /// [`StoreError::UnknownBackbone`] with near names.
    pub async fn backbone(&self, name: &Name) -> Result<BackboneRecord, StoreError> {
        let found = sqlx::query_as("SELECT * FROM backbones WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(self.inner.database.readers())
            .await?;
        match found {
            Some(record) => Ok(record),
            None => {
                let names = self.list_backbones().await?;
                Err(StoreError::UnknownBackbone {
                    reference: name.to_string(),
                    near: near(
                        name.as_str(),
                        names.into_iter().map(|record| record.name.to_string()),
                    ),
                })
            }
        }
    }

    /// # Errors
    /// [`StoreError::UnknownBackbone`].
    pub async fn backbone_by_digest(&self, digest: &Digest) -> Result<BackboneRecord, StoreError> {
        sqlx::query_as("SELECT * FROM backbones WHERE digest = ?")
            .bind(digest.as_str())
            .fetch_optional(self.inner.database.readers())
            .await?
            .ok_or_else(|| StoreError::UnknownBackbone {
                reference: digest.to_string(),
                near: Vec::new(),
            })
    }

    /// Forgets a backbone; its weights, wherever they are, stay.
    ///
    /// # Errors
    /// [`StoreError::UnknownBackbone`], [`StoreError::BackboneInUse`].
    pub async fn delete_backbone(&self, name: &Name) -> Result<(), StoreError> {
        let deleted = sqlx::query("DELETE FROM backbones WHERE name = ?")
            .bind(name.as_str())
            .execute(self.inner.database.writer()?)
            .await;
        match deleted {
            Ok(done) if done.rows_affected() == 0 => self.backbone(name).await.map(|_| ()),
            Ok(_) => Ok(()),
            Err(error) if is_foreign_key_violation(&error) => {
                let (adapters, classifiers): (i64, i64) = sqlx::query_as(
                    "SELECT (SELECT count(*) FROM adapters WHERE backbone_digest = backbones.digest),
                        (SELECT count(*) FROM classifiers WHERE backbone_digest = backbones.digest) FROM backbones WHERE name = ?",
                )
                .bind(name.as_str())
                .fetch_one(self.inner.database.readers())
                .await?;
                Err(StoreError::BackboneInUse {
                    name: name.clone(),
                    adapters: adapters.unsigned_abs(),
                    classifiers: classifiers.unsigned_abs(),
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}
