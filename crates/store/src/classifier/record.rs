//! What a classifier is.

use crate::{Digest, Name, parse, parse_json};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use std::str::FromStr;
use thiserror::Error;
use uuid::Uuid;

/// What is kept of the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Privacy {
    /// The pictures as they were sent, and thumbnails.
    #[default]
    Pictures,
    /// Thumbnails and features; never a picture as it was sent.
    Features,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{0}\" is not a privacy: pictures or features")]
pub struct PrivacyError(String);

impl Privacy {
    /// As it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pictures => "pictures",
            Self::Features => "features",
        }
    }
}

impl FromStr for Privacy {
    type Err = PrivacyError;

    fn from_str(text: &str) -> Result<Self, PrivacyError> {
        [Self::Pictures, Self::Features]
            .into_iter()
            .find(|privacy| privacy.as_str() == text)
            .ok_or_else(|| PrivacyError(text.to_owned()))
    }
}

/// Through which adapter a classifier sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AdapterChoice {
    /// The one that suits its pictures best; who computes decides.
    Auto,
    /// The bare backbone.
    None,
    /// This version for good; it may be gone by now.
    Pinned {
        /// Of the adapter.
        id: Uuid,
        /// `name:version`
        label: String,
        /// Of its files, as in [`AdapterRecord::digest`](crate::AdapterRecord::digest).
        digest: Digest,
    },
    /// What `adapter@alias` points at, whenever that moves.
    Alias {
        /// Name of the adapter, without a version.
        adapter: Name,
        /// The word after `@`.
        alias: Name,
    },
    /// The default of its backbone, whenever that moves.
    Default,
}

/// A classifier, without its classes and pictures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassifierRecord {
    /// UUID v7: ids have the order in which classifiers were made.
    pub id: Uuid,
    /// Several can have the same.
    pub name: String,
    /// What its backbone is called here.
    pub backbone: Name,
    /// Of the backbone that computes its features.
    pub backbone_digest: Digest,
    /// Through which adapter it sees.
    pub adapter: AdapterChoice,
    /// How it decides; belongs to whoever wrote it.
    pub head: serde_json::Value,
    /// What is kept of its pictures.
    pub privacy: Privacy,
    /// Rises by one with each change, from 1.
    pub revision: u64,
    /// How many it has.
    pub classes: u32,
    /// How many it has in all classes.
    pub pictures: u32,
    /// Of its pictures' files. A file that two of them share counts twice.
    pub stored_bytes: u64,
    /// Milliseconds since 1970 (UTC), as all times.
    pub created_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// When it changed last.
    pub changed_ms: i64,
    /// Who changed it last.
    pub changed_by: String,
    /// When it answered last; written now and then only.
    pub last_used_ms: Option<i64>,
}

impl FromRow<'_, SqliteRow> for ClassifierRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let number = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
        Ok(Self {
            id: parse(row.try_get("id")?)?,
            name: row.try_get("name")?,
            backbone: parse(row.try_get("backbone")?)?,
            backbone_digest: parse(row.try_get("backbone_digest")?)?,
            adapter: parse_json(row.try_get("adapter")?)?,
            head: parse_json(row.try_get("head")?)?,
            privacy: parse(row.try_get("privacy")?)?,
            revision: number("revision")?,
            classes: row.try_get("classes")?,
            pictures: row.try_get("pictures")?,
            stored_bytes: number("stored_bytes")?,
            created_ms: row.try_get("created_ms")?,
            created_by: row.try_get("created_by")?,
            changed_ms: row.try_get("changed_ms")?,
            changed_by: row.try_get("changed_by")?,
            last_used_ms: row.try_get("last_used_ms")?,
        })
    }
}
