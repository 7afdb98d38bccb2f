//! An adapter as the interface shows it.

use crate::web::api::BackboneIdentity;
use serde::Serialize;
use std::collections::BTreeSet;
use store::{AdapterFile, AdapterHead, AdapterRecord, Digest, Lineage, Name};
use utoipa::ToSchema;
use uuid::Uuid;

/// One version of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct Adapter {
    pub id: Uuid,
    pub name: Name,
    pub version: u32,
    /// `name:version`
    #[schema(example = "meta:3")]
    pub label: String,
    /// SHA-256 over the list of its files, lower-case hexadecimal.
    pub digest: Digest,
    pub backbone: BackboneIdentity,
    /// The largest over all linear maps.
    pub rank: u32,
    #[schema(example = "query, value in 12 layers")]
    pub targets: String,
    /// The classifier that came with it, if any.
    pub head: Option<AdapterHead>,
    pub tags: BTreeSet<Name>,
    pub notes: String,
    pub lineage: Lineage,
    pub files: Vec<AdapterFile>,
    pub size_bytes: u64,
    /// Aliases that point at it, as in `name@alias`.
    pub aliases: Vec<Name>,
    /// Whether its backbone uses it where no adapter is named.
    pub is_default: bool,
    /// Milliseconds since 1970 (UTC).
    pub created_ms: i64,
    pub last_used_ms: Option<i64>,
}

impl From<AdapterRecord> for Adapter {
    fn from(record: AdapterRecord) -> Self {
        Self {
            label: record.label(),
            size_bytes: record.size_bytes(),
            id: record.id,
            name: record.name,
            version: record.version,
            digest: record.digest,
            backbone: BackboneIdentity {
                name: record.backbone.into(),
                digest: record.backbone_digest.into(),
            },
            rank: record.rank,
            targets: record.targets,
            head: record.head,
            tags: record.tags,
            notes: record.notes,
            lineage: record.lineage,
            files: record.files,
            aliases: record.aliases,
            is_default: record.is_default,
            created_ms: record.created_ms,
            last_used_ms: record.last_used_ms,
        }
    }
}
