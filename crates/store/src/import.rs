//! Adding an adapter: blobs first, then all rows in one transaction, so that it is there whole or not at all.

use super::Digest;
use super::adapter::{AdapterFile, AdapterHead, AdapterRecord, FileRole, Lineage};
use super::error::{StoreError, is_foreign_key_violation, is_unique_violation};
use super::name::Name;
use super::{Store, now_ms};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A file to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// What it is for.
    pub role: FileRole,
    /// A plain file name, unique within the adapter.
    pub name: String,
    /// The whole content.
    pub bytes: Vec<u8>,
}

/// An adapter to be stored as the next version of its name.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAdapter {
    /// It becomes the next version of this name.
    pub name: Name,
    /// Of a backbone that is already known.
    pub backbone_digest: Digest,
    /// The largest over all sites.
    pub rank: u32,
    /// For people, for example "query, value in 12 layers".
    pub targets: String,
    /// Present where it was tuned as a classifier.
    pub head: Option<AdapterHead>,
    /// Words to find it by.
    pub tags: BTreeSet<Name>,
    /// A text of people's own.
    pub notes: String,
    /// What the import found; belongs to whoever wrote it.
    pub report: serde_json::Value,
    /// How it came to be.
    pub lineage: Lineage,
    /// At least one.
    pub files: Vec<NewFile>,
}

impl Store {
    /// Stores an adapter as the next version of its name. When this returns, it survives a loss of power; when it fails,
    /// nothing is left of it.
    ///
    /// # Errors
    /// [`StoreError::NoFiles`], [`StoreError::BadFileName`], [`StoreError::DuplicateFile`],
    /// [`StoreError::UnknownBackbone`], or of folder and database.
    pub async fn import_adapter(&self, new: NewAdapter) -> Result<AdapterRecord, StoreError> {
        self.inner.database.writer()?;
        if new.files.is_empty() {
            return Err(StoreError::NoFiles);
        }
        for file in &new.files {
            check_file_name(&file.name)?;
        }
        self.run_to_completion(|store| store.import(new)).await
    }

    async fn import(self, mut new: NewAdapter) -> Result<AdapterRecord, StoreError> {
        let contents = std::mem::take(&mut new.files);
        let (files, blobs) = tokio::task::spawn_blocking(move || {
            let described = |file: NewFile| {
                let described = described(&file);
                let blob = (described.digest.clone(), file.bytes);
                (described, blob)
            };
            contents
                .into_iter()
                .map(described)
                .unzip::<_, _, Vec<AdapterFile>, Vec<_>>()
        })
        .await?;
        let id = self
            .store_blobs(blobs, || self.insert(&new, &files))
            .await?;
        self.adapter(id).await
    }

    async fn insert(&self, new: &NewAdapter, files: &[AdapterFile]) -> Result<Uuid, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let version: u32 = sqlx::query_scalar(
            "INSERT INTO adapter_names (name, last_version) VALUES (?, 1)
             ON CONFLICT (name) DO UPDATE SET last_version = last_version + 1 RETURNING last_version",
        )
        .bind(new.name.as_str())
        .fetch_one(&mut *transaction)
        .await?;
        // Made within the transaction, so that ids have the order of the versions.
        let id = Uuid::now_v7();
        let id_text = id.to_string();
        let labels = new.head.as_ref().map_or(&[][..], |head| &head.labels[..]);
        sqlx::query(
            "INSERT INTO adapters (id, name, version, digest, backbone_digest, rank, targets, head_classes, labels, notes,
                report, recipe, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&id_text)
        .bind(new.name.as_str())
        .bind(version)
        .bind(digest_of_files(files).as_str())
        .bind(new.backbone_digest.as_str())
        .bind(new.rank)
        .bind(&new.targets)
        .bind(new.head.as_ref().map(|head| head.classes))
        .bind(serde_json::json!(labels).to_string())
        .bind(&new.notes)
        .bind(new.report.to_string())
        .bind(new.lineage.recipe.as_ref().map(ToString::to_string))
        .bind(now_ms())
        .execute(&mut *transaction)
        .await
        .map_err(|error| match error {
            error if is_foreign_key_violation(&error) => StoreError::UnknownBackbone {
                reference: new.backbone_digest.to_string(),
                near: Vec::new(),
            },
            error => error.into(),
        })?;
        for file in files {
            sqlx::query(
                "INSERT INTO adapter_files (adapter_id, name, role, blob_digest, size_bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .bind(&id_text)
            .bind(&file.name)
            .bind(file.role.as_str())
            .bind(file.digest.as_str())
            // A file in memory is far smaller than 2⁶³ bytes.
            .bind(file.size_bytes.cast_signed())
            .execute(&mut *transaction)
            .await
            .map_err(|error| match error {
                error if is_unique_violation(&error, "adapter_files.name") => {
                    StoreError::DuplicateFile(file.name.clone())
                }
                error => error.into(),
            })?;
        }
        for tag in &new.tags {
            sqlx::query("INSERT INTO adapter_tags (adapter_id, tag) VALUES (?, ?)")
                .bind(&id_text)
                .bind(tag.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        for (position, parent) in (0_i64..).zip(&new.lineage.parents) {
            sqlx::query(
                "INSERT INTO adapter_parents (adapter_id, position, parent_id, parent_label, parent_digest)
                 VALUES (?, ?, ?, ?, ?)",
            )
            .bind(&id_text)
            .bind(position)
            .bind(parent.id.to_string())
            .bind(&parent.label)
            .bind(parent.digest.as_str())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(id)
    }
}

fn described(file: &NewFile) -> AdapterFile {
    AdapterFile {
        role: file.role,
        name: file.name.clone(),
        digest: Digest::of(&file.bytes),
        size_bytes: file.bytes.len() as u64,
    }
}

/// The identity of an adapter: see [`AdapterRecord::digest`].
fn digest_of_files(files: &[AdapterFile]) -> Digest {
    let mut lines: Vec<(&str, &Digest)> = files
        .iter()
        .map(|file| (file.name.as_str(), &file.digest))
        .collect();
    lines.sort();
    let text: String = lines
        .iter()
        .map(|(name, digest)| format!("{digest}  {name}\n"))
        .collect();
    Digest::of(text.as_bytes())
}

/// A name that is one and the same file in every folder it may be exported to.
pub(super) fn check_file_name(name: &str) -> Result<(), StoreError> {
    let is_plain = !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|c| matches!(c, '/' | '\\' | ':') || c.is_control());
    if is_plain {
        Ok(())
    } else {
        Err(StoreError::BadFileName(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_that_lead_out_of_a_folder_are_refused() {
        for good in [
            "adapter_model.safetensors",
            "README.md",
            "größe.json",
            ".gitattributes",
        ] {
            assert!(check_file_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "c:x",
            "a\0b",
            "a\nb",
            &"x".repeat(256),
        ] {
            assert!(
                matches!(check_file_name(bad), Err(StoreError::BadFileName(name)) if name == bad),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_digest_of_an_adapter_is_that_of_its_sha256sum_lines() {
        let file = |name: &str, bytes: &[u8]| {
            described(&NewFile {
                role: FileRole::Other,
                name: name.to_owned(),
                bytes: bytes.to_vec(),
            })
        };
        // printf a > a; printf b > b; sha256sum a b | sha256sum
        let expected = "cb13f400dcb618e400d0f7d54f7cdb330d37a07272cb99a1016cda5830a10556";
        let (a, b) = (file("a", b"a"), file("b", b"b"));
        assert_eq!(digest_of_files(&[a.clone(), b.clone()]).as_str(), expected);
        assert_eq!(digest_of_files(&[b, a]).as_str(), expected);
    }
}
