//! How features were made of a picture, and their form in the database.

use crate::Digest;
use sqlx::SqliteConnection;
use std::fmt;

/// What of a picture was encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The picture as it is.
    Original,
    /// A changed copy.
    Copy {
        /// Which of the copies that these settings make.
        number: u32,
        /// Over all that decides how copies are changed.
        settings: Digest,
    },
}

impl fmt::Display for Variant {
    /// As it is stored.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Original => Ok(()),
            Self::Copy { number, settings } => write!(formatter, "{number}:{settings}"),
        }
    }
}

/// How features were made of a picture: everything that decides them but the picture.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeatureSpace {
    /// What of the picture was encoded.
    pub variant: Variant,
    /// Of the backbone.
    pub backbone: Digest,
    /// Of the adapter; `None` is the bare backbone.
    pub adapter: Option<Digest>,
    /// Side of what the backbone sees, in pixels; at least 1.
    pub image_size: u32,
    /// Version of the code that makes pixels from a picture.
    pub preprocessing: u32,
}

impl FeatureSpace {
    /// Its number, if it has one already.
    pub(crate) async fn find(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT number FROM feature_spaces WHERE variant = ? AND backbone_digest = ? AND adapter_digest = ?
               AND image_size = ? AND preprocessing = ?",
        )
        .bind(self.variant.to_string())
        .bind(self.backbone.as_str())
        .bind(adapter_text(self.adapter.as_ref()))
        .bind(self.image_size)
        .bind(self.preprocessing)
        .fetch_optional(connection)
        .await
    }

    /// Its number, a new one where it has none.
    pub(crate) async fn number(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<i64, sqlx::Error> {
        if let Some(number) = self.find(&mut *connection).await? {
            return Ok(number);
        }
        sqlx::query_scalar(
            "INSERT INTO feature_spaces (variant, backbone_digest, adapter_digest, image_size, preprocessing)
             VALUES (?, ?, ?, ?, ?) RETURNING number",
        )
        .bind(self.variant.to_string())
        .bind(self.backbone.as_str())
        .bind(adapter_text(self.adapter.as_ref()))
        .bind(self.image_size)
        .bind(self.preprocessing)
        .fetch_one(connection)
        .await
    }
}

/// As the columns hold an adapter: empty for the bare backbone.
pub(crate) fn adapter_text(adapter: Option<&Digest>) -> &str {
    adapter.map_or("", Digest::as_str)
}

/// Values as they are stored: `f32`, little-endian.
pub(crate) fn to_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// What [`to_bytes`] made. The schema lets no other lengths in.
pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values
        .iter()
        .map(|&value| f32::from_le_bytes(value))
        .collect()
}
