//! What an alias is called.

use super::parse;
use crate::{Digest, Name};
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::fmt;

/// What can point at an adapter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AliasKey {
    /// `adapter@alias`; points at a version of `adapter`.
    Alias {
        /// Name of the adapter, without a version.
        adapter: Name,
        /// The word after `@`.
        alias: Name,
    },
    /// The adapter that the backbone with this digest uses where none is named.
    BackboneDefault(Digest),
}

/// The one alias that a backbone has.
const DEFAULT: &str = "default";

impl AliasKey {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Alias { .. } => "adapter",
            Self::BackboneDefault(_) => "backbone",
        }
    }

    pub(super) fn owner(&self) -> &str {
        match self {
            Self::Alias { adapter, .. } => adapter.as_str(),
            Self::BackboneDefault(digest) => digest.as_str(),
        }
    }

    pub(super) fn alias(&self) -> &str {
        match self {
            Self::Alias { alias, .. } => alias.as_str(),
            Self::BackboneDefault(_) => DEFAULT,
        }
    }

    pub(super) fn from_columns(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        match row.try_get("kind")? {
            "adapter" => Ok(Self::Alias {
                adapter: parse(row.try_get("owner")?)?,
                alias: parse(row.try_get("alias")?)?,
            }),
            "backbone" => Ok(Self::BackboneDefault(parse(row.try_get("owner")?)?)),
            other => Err(sqlx::Error::Decode(
                format!("an alias has the unknown kind \"{other}\"").into(),
            )),
        }
    }
}

impl fmt::Display for AliasKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias { adapter, alias } => write!(formatter, "{adapter}@{alias}"),
            Self::BackboneDefault(digest) => {
                write!(
                    formatter,
                    "the default of backbone {}",
                    &digest.as_str()[..12]
                )
            }
        }
    }
}
