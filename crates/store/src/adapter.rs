//! Rows of adapters: reading, finding by reference, labels that may change, and deleting for good.

use super::Digest;
use super::alias_key::AliasKey;
use super::blobs::Freed;
use super::error::{StoreError, is_foreign_key_violation};
use super::name::{AdapterReference, Name, Selector, near};
use super::{Store, parse, parse_json};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What a file of an adapter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FileRole {
    /// Tensors.
    Weights,
    /// Says how to read the tensors.
    Config,
    /// Anything else, such as a model card.
    Other,
}

impl FileRole {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Config => "config",
            Self::Other => "other",
        }
    }
}

/// A stored file of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdapterFile {
    /// What it is for.
    pub role: FileRole,
    /// A plain file name, unique within the adapter.
    pub name: String,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Of its content.
    pub size_bytes: u64,
}

/// The head that an adapter was tuned with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdapterHead {
    /// Classes that the head tells apart.
    pub classes: u32,
    /// One label per class, empty where the source names none.
    pub labels: Vec<String>,
}

/// An adapter that another one was made from, as it was then; it may be gone by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Parent {
    /// Of the adapter.
    pub id: Uuid,
    /// `name:version`
    pub label: String,
    /// Of its files, as in [`AdapterRecord::digest`].
    pub digest: Digest,
}

/// How an adapter came to be; empty for an import.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lineage {
    /// In the order in which the recipe counts them.
    pub parents: Vec<Parent>,
    /// How the parents were put together; belongs to whoever wrote it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub recipe: Option<serde_json::Value>,
}

/// One version of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterRecord {
    /// Stays for as long as the version is there.
    pub id: Uuid,
    /// What its versions have in common.
    pub name: Name,
    /// From 1, without gaps but for deleted versions; never given twice.
    pub version: u32,
    /// SHA-256 over the lines `digest  file name` of the files in order of their names: `sha256sum * | sha256sum`.
    pub digest: Digest,
    /// What the backbone is called here.
    pub backbone: Name,
    /// Of the backbone that it changes.
    pub backbone_digest: Digest,
    /// The largest over all sites.
    pub rank: u32,
    /// For people, for example "query, value in 12 layers".
    pub targets: String,
    /// Present where it was tuned as a classifier.
    pub head: Option<AdapterHead>,
    /// Words to find it by.
    pub tags: BTreeSet<Name>,
    /// A text of people's own, often empty.
    pub notes: String,
    /// How it came to be.
    pub lineage: Lineage,
    /// In the order of their names.
    pub files: Vec<AdapterFile>,
    /// Aliases of its name that point at it, as in `name@alias`.
    pub aliases: Vec<Name>,
    /// Whether its backbone uses it where no adapter is named.
    pub is_default: bool,
    /// When it was stored, in milliseconds since 1970 (UTC).
    pub created_ms: i64,
    /// When it answered last; written now and then only.
    pub last_used_ms: Option<i64>,
}

impl AdapterRecord {
    /// `name:version`
    pub fn label(&self) -> String {
        format!("{}:{}", self.name, self.version)
    }

    /// Size of all files together, shared with other adapters or not.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// This adapter as the parent of another.
    pub fn as_parent(&self) -> Parent {
        Parent {
            id: self.id,
            label: self.label(),
            digest: self.digest.clone(),
        }
    }
}

impl FromRow<'_, SqliteRow> for AdapterRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let classes: Option<u32> = row.try_get("head_classes")?;
        let labels: Vec<String> = parse_json(row.try_get("labels")?)?;
        let recipe: Option<&str> = row.try_get("recipe")?;
        Ok(Self {
            id: parse(row.try_get("id")?)?,
            name: parse(row.try_get("name")?)?,
            version: row.try_get("version")?,
            digest: parse(row.try_get("digest")?)?,
            backbone: parse(row.try_get("backbone")?)?,
            backbone_digest: parse(row.try_get("backbone_digest")?)?,
            rank: row.try_get("rank")?,
            targets: row.try_get("targets")?,
            head: classes.map(|classes| AdapterHead { classes, labels }),
            tags: parse_json(row.try_get("tags")?)?,
            notes: row.try_get("notes")?,
            lineage: Lineage {
                parents: parse_json(row.try_get("parents")?)?,
                recipe: recipe.map(parse_json).transpose()?,
            },
            files: parse_json(row.try_get("files")?)?,
            aliases: parse_json(row.try_get("aliases")?)?,
            is_default: row.try_get("is_default")?,
            created_ms: row.try_get("created_ms")?,
            last_used_ms: row.try_get("last_used_ms")?,
        })
    }
}

/// A query for whole [`AdapterRecord`]s; `$tail` comes after the FROM clause. What belongs to an adapter many times comes as
/// JSON, so that one row is one record.
macro_rules! select_adapters {
    ($tail:literal) => {
        concat!(
            "SELECT adapters.id, adapters.name, version, adapters.digest, backbones.name AS backbone, backbone_digest, rank,
                targets, head_classes, labels, notes, recipe, adapters.created_ms, last_used_ms,
                (SELECT json_group_array(tag ORDER BY tag) FROM adapter_tags WHERE adapter_id = adapters.id) AS tags,
                (SELECT json_group_array(json_object('id', parent_id, 'label', parent_label, 'digest', parent_digest)
                    ORDER BY position) FROM adapter_parents WHERE adapter_id = adapters.id) AS parents,
                (SELECT json_group_array(json_object('role', role, 'name', name, 'digest', blob_digest,
                    'size_bytes', size_bytes) ORDER BY name) FROM adapter_files WHERE adapter_id = adapters.id) AS files,
                (SELECT json_group_array(alias ORDER BY alias) FROM aliases
                    WHERE adapter_id = adapters.id AND kind = 'adapter') AS aliases,
                EXISTS (SELECT 1 FROM aliases WHERE adapter_id = adapters.id AND kind = 'backbone') AS is_default
             FROM adapters JOIN backbones ON backbones.digest = backbone_digest ",
            $tail
        )
    };
}

/// Which adapters a list shows; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct AdapterFilter {
    /// Part of the name, the targets, the notes, a tag or a label, without regard to case (of ASCII letters).
    pub search: Option<String>,
    /// Only versions of this name.
    pub name: Option<Name>,
    /// Only those with this tag.
    pub tag: Option<Name>,
    /// Only those for this backbone.
    pub backbone_digest: Option<Digest>,
    /// Only adapters older than this one: the last of the page before.
    pub before: Option<Uuid>,
    /// Most adapters of the list; without it all.
    pub limit: Option<u32>,
}

impl Store {
    /// Adapters that pass `filter`, newest first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn list_adapters(
        &self,
        filter: &AdapterFilter,
    ) -> Result<Vec<AdapterRecord>, StoreError> {
        // Ids are UUIDs of version 7: their order is the order of creation.
        Ok(sqlx::query_as(select_adapters!(
            "WHERE (?1 IS NULL OR adapters.name = ?1)
               AND (?2 IS NULL OR backbone_digest = ?2)
               AND (?3 IS NULL OR adapters.id < ?3)
               AND (?4 IS NULL OR EXISTS (SELECT 1 FROM adapter_tags WHERE adapter_id = adapters.id AND tag = ?4))
               AND (?5 IS NULL OR instr(lower(adapters.name || char(10) || targets || char(10) || notes || char(10)
                    || labels), lower(?5))
                    OR EXISTS (SELECT 1 FROM adapter_tags WHERE adapter_id = adapters.id AND instr(lower(tag), lower(?5))))
             ORDER BY adapters.id DESC LIMIT ?6"
        ))
        .bind(filter.name.as_ref().map(Name::as_str))
        .bind(filter.backbone_digest.as_ref().map(Digest::as_str))
        .bind(filter.before.map(|id| id.to_string()))
        .bind(filter.tag.as_ref().map(Name::as_str))
        .bind(filter.search.as_deref())
        // A negative limit is none.
        .bind(filter.limit.map_or(-1, i64::from))
        .fetch_all(self.inner.database.readers())
        .await?)
    }

    /// The adapter that `reference` means.
    ///
    /// # Errors
    /// [`StoreError::UnknownAdapter`] with near names.
    pub async fn resolve(&self, reference: &AdapterReference) -> Result<AdapterRecord, StoreError> {
        let name = reference.name.as_str();
        let query = match &reference.selector {
            Selector::Newest => sqlx::query_as(select_adapters!(
                "WHERE adapters.name = ? ORDER BY version DESC LIMIT 1"
            ))
            .bind(name),
            Selector::Version(version) => {
                sqlx::query_as(select_adapters!("WHERE adapters.name = ? AND version = ?"))
                    .bind(name)
                    .bind(version)
            }
            Selector::Alias(alias) => sqlx::query_as(select_adapters!(
                "JOIN aliases ON aliases.adapter_id = adapters.id
                 WHERE kind = 'adapter' AND owner = ? AND alias = ?"
            ))
            .bind(name)
            .bind(alias.as_str()),
        };
        match query.fetch_optional(self.inner.database.readers()).await? {
            Some(record) => Ok(record),
            None => Err(self.unknown_adapter(reference).await?),
        }
    }

    /// # Errors
    /// [`StoreError::UnknownAdapter`].
    pub async fn adapter(&self, id: Uuid) -> Result<AdapterRecord, StoreError> {
        sqlx::query_as(select_adapters!("WHERE adapters.id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.inner.database.readers())
            .await?
            .ok_or_else(|| unknown_adapter(id))
    }

    /// The newest of the adapters with this digest.
    ///
    /// # Errors
    /// [`StoreError::UnknownAdapter`].
    pub async fn adapter_by_digest(&self, digest: &Digest) -> Result<AdapterRecord, StoreError> {
        sqlx::query_as(select_adapters!(
            "WHERE adapters.digest = ? ORDER BY adapters.id DESC LIMIT 1"
        ))
        .bind(digest.as_str())
        .fetch_optional(self.inner.database.readers())
        .await?
        .ok_or_else(|| unknown_adapter(digest))
    }

    /// The adapter that `backbone` uses where none is named; `None` is the bare backbone.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn default_adapter(
        &self,
        backbone: &Digest,
    ) -> Result<Option<AdapterRecord>, StoreError> {
        Ok(sqlx::query_as(select_adapters!(
            "JOIN aliases ON aliases.adapter_id = adapters.id WHERE kind = 'backbone' AND owner = ?"
        ))
        .bind(backbone.as_str())
        .fetch_optional(self.inner.database.readers())
        .await?)
    }

    /// The import report, as it was stored.
    ///
    /// # Errors
    /// [`StoreError::UnknownAdapter`].
    pub async fn adapter_report(&self, id: Uuid) -> Result<serde_json::Value, StoreError> {
        let report: Option<String> = sqlx::query_scalar("SELECT report FROM adapters WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(self.inner.database.readers())
            .await?;
        Ok(parse_json(&report.ok_or_else(|| unknown_adapter(id))?)?)
    }

    /// The content of a file of `adapter`, verified against its digest.
    ///
    /// # Errors
    /// [`StoreError::UnknownFile`], [`StoreError::BlobMissing`], [`StoreError::BlobDamaged`].
    pub async fn read_file(
        &self,
        adapter: &AdapterRecord,
        name: &str,
    ) -> Result<Vec<u8>, StoreError> {
        let file = adapter
            .files
            .iter()
            .find(|file| file.name == name)
            .ok_or_else(|| StoreError::UnknownFile {
                adapter: adapter.label(),
                file: name.to_owned(),
                near: near(name, adapter.files.iter().map(|file| file.name.clone())),
            })?;
        self.read_blob(&file.digest).await
    }

    /// Replaces the notes.
    ///
    /// # Errors
    /// [`StoreError::UnknownAdapter`].
    pub async fn set_adapter_notes(&self, id: Uuid, notes: &str) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE adapters SET notes = ? WHERE id = ?")
            .bind(notes)
            .bind(id.to_string())
            .execute(self.inner.database.writer()?)
            .await?;
        if done.rows_affected() == 0 {
            return Err(unknown_adapter(id));
        }
        Ok(())
    }

    /// Replaces the tags.
    ///
    /// # Errors
    /// [`StoreError::UnknownAdapter`].
    pub async fn set_adapter_tags(
        &self,
        id: Uuid,
        tags: &BTreeSet<Name>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        sqlx::query("DELETE FROM adapter_tags WHERE adapter_id = ?")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        for tag in tags {
            sqlx::query("INSERT INTO adapter_tags (adapter_id, tag) VALUES (?, ?)")
                .bind(id.to_string())
                .bind(tag.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(|error| match error {
                    error if is_foreign_key_violation(&error) => unknown_adapter(id),
                    error => error.into(),
                })?;
        }
        transaction.commit().await?;
        // Without tags no row can have missed its adapter.
        if tags.is_empty() {
            self.adapter(id).await?;
        }
        Ok(())
    }

    /// Notes when adapters were last used, in milliseconds since 1970. For a server: collect and call now and then, as
    /// each call waits for the disk. Adapters deleted meanwhile are skipped.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn mark_used(&self, used: &[(Uuid, i64)]) -> Result<(), StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        for (id, used_ms) in used {
            sqlx::query(
                "UPDATE adapters SET last_used_ms = max(coalesce(last_used_ms, 0), ?) WHERE id = ?",
            )
            .bind(used_ms)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Deletes an adapter for good, with the files that nobody else uses. What was made from it stays and keeps its label and
    /// digest.
    ///
    /// # Errors
    /// [`StoreError::UnknownAdapter`]; [`StoreError::AdapterInUse`] while an alias points at it.
    pub async fn delete_adapter(&self, id: Uuid) -> Result<Freed, StoreError> {
        self.run_to_completion(move |store| async move {
            let adapter = store.adapter(id).await?;
            let delete = async || {
                store.delete_row(&adapter).await?;
                let files = adapter.files.iter();
                Ok(files.map(|file| file.digest.clone()).collect())
            };
            store.delete_and_free(delete).await
        })
        .await
    }

    async fn delete_row(&self, adapter: &AdapterRecord) -> Result<(), StoreError> {
        let deleted = sqlx::query("DELETE FROM adapters WHERE id = ?")
            .bind(adapter.id.to_string())
            .execute(self.inner.database.writer()?)
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error) if is_foreign_key_violation(&error) => Err(StoreError::AdapterInUse {
                adapter: adapter.label(),
                aliases: self.aliases_of(adapter.id).await?,
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn aliases_of(&self, id: Uuid) -> Result<Vec<AliasKey>, StoreError> {
        let aliases = self.list_aliases().await?.into_iter();
        Ok(aliases
            .filter(|(_, pointed)| pointed.id == id)
            .map(|(key, _)| key)
            .collect())
    }

    async fn unknown_adapter(
        &self,
        reference: &AdapterReference,
    ) -> Result<StoreError, StoreError> {
        let name = reference.name.as_str();
        // Versions and aliases of the name; where there is no such name, the names.
        let candidates: Vec<String> = sqlx::query_scalar(
            "SELECT name || ':' || version FROM adapters WHERE name = ?1
             UNION ALL SELECT owner || '@' || alias FROM aliases WHERE kind = 'adapter' AND owner = ?1",
        )
        .bind(name)
        .fetch_all(self.inner.database.readers())
        .await?;
        let near = if candidates.is_empty() {
            let names: Vec<String> = sqlx::query_scalar("SELECT DISTINCT name FROM adapters")
                .fetch_all(self.inner.database.readers())
                .await?;
            near(name, names)
        } else {
            near(&reference.to_string(), candidates)
        };
        Ok(StoreError::UnknownAdapter {
            reference: reference.to_string(),
            near,
        })
    }
}

pub(super) fn unknown_adapter(reference: impl ToString) -> StoreError {
    StoreError::UnknownAdapter {
        reference: reference.to_string(),
        near: Vec::new(),
    }
}
