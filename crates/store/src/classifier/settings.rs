//! Making a classifier, and changing its name, adapter and head.

use super::LONGEST_HEAD_BYTES;
use super::change::Change;
use super::error::ClassifierError;
use super::record::{AdapterChoice, ClassifierRecord, Privacy};
use super::step::{Changed, Step};
use super::title::Title;
use crate::error::is_foreign_key_violation;
use crate::{Digest, Store, StoreError, now_ms, parse_json};
use serde_json::{Value, json};
use uuid::Uuid;

/// A classifier to be made, without classes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewClassifier {
    /// Its id, where a request must not make it twice; else it gets a new one.
    pub id: Option<Uuid>,
    /// Several can have the same.
    pub name: String,
    /// Of a backbone that is already known.
    pub backbone_digest: Digest,
    /// Through which adapter it sees.
    pub adapter: AdapterChoice,
    /// How it decides; belongs to whoever wrote it.
    pub head: Value,
    /// What is kept of its pictures; for good.
    pub privacy: Privacy,
}

/// What is to be another; `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassifierPatch {
    /// Several can have the same.
    pub name: Option<String>,
    /// Through which adapter it sees.
    pub adapter: Option<AdapterChoice>,
    /// How it decides; belongs to whoever wrote it.
    pub head: Option<Value>,
}

impl Store {
    /// Makes a classifier, or gives the one that has this id already.
    ///
    /// # Errors
    /// [`ClassifierError::HeadTooLong`] or of the name; [`StoreError::UnknownBackbone`].
    pub async fn create_classifier(
        &self,
        new: &NewClassifier,
        by: &str,
    ) -> Result<ClassifierRecord, ClassifierError> {
        let title = Title::new("classifier", &new.name)?;
        let head = head_text(&new.head)?;
        let id = new.id.unwrap_or_else(Uuid::now_v7);
        sqlx::query(
            "INSERT INTO classifiers (id, name, name_key, backbone_digest, adapter, head, privacy, revision, created_ms,
                created_by, changed_ms, changed_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?8, ?9)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(&title.text)
        .bind(&title.key)
        .bind(new.backbone_digest.as_str())
        .bind(json!(new.adapter).to_string())
        .bind(head)
        .bind(new.privacy.as_str())
        .bind(now_ms())
        .bind(by)
        .execute(self.inner.database.writer()?)
        .await
        .map_err(|error| match error {
            error if is_foreign_key_violation(&error) => StoreError::UnknownBackbone {
                reference: new.backbone_digest.to_string(),
                near: Vec::new(),
            },
            error => error.into(),
        })?;
        self.classifier(id).await
    }

    /// Changes name, adapter or head of a classifier.
    ///
    /// # Errors
    /// [`ClassifierError::HeadTooLong`] or of the name; [`ClassifierError::UnknownClassifier`],
    /// [`ClassifierError::RevisionConflict`].
    pub async fn update_classifier(
        &self,
        id: Uuid,
        expected: Option<u64>,
        patch: ClassifierPatch,
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        let title = patch
            .name
            .map(|name| Title::new("classifier", &name))
            .transpose()?;
        if let Some(head) = &patch.head {
            head_text(head)?;
        }
        let by = by.to_owned();
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by.as_str()).await?;
            let (name, key, adapter, head): (String, String, String, String) = sqlx::query_as(
                "SELECT name, name_key, adapter, head FROM classifiers WHERE id = ?",
            )
            .bind(&step.id)
            .fetch_one(&mut *step.transaction)
            .await?;
            let adapter_before: AdapterChoice = parse_json(&adapter)?;
            let head_before: Value = parse_json(&head)?;
            let title_before = Title { text: name, key };
            let title = title.unwrap_or_else(|| title_before.clone());
            let adapter = patch.adapter.unwrap_or_else(|| adapter_before.clone());
            let head = patch.head.unwrap_or_else(|| head_before.clone());
            let change = Change::SettingsChanged {
                renamed: (title.text != title_before.text)
                    .then(|| (title_before.text.clone(), title.text.clone())),
                adapter: adapter != adapter_before,
                head: head != head_before,
            };
            let before = settings(&title_before, &adapter_before, &head_before);
            let after = settings(&title, &adapter, &head);
            if before == after {
                return Ok(step.unchanged().changed);
            }
            let settled = step.finish(change, Some((before, after))).await?;
            Ok(store.settle(settled).await)
        })
        .await
    }
}

fn head_text(head: &Value) -> Result<String, ClassifierError> {
    let text = head.to_string();
    if text.len() > LONGEST_HEAD_BYTES {
        return Err(ClassifierError::HeadTooLong(text.len()));
    }
    Ok(text)
}

/// As a change keeps them.
fn settings(title: &Title, adapter: &AdapterChoice, head: &Value) -> String {
    json!({"name": title.text, "name_key": title.key, "adapter": adapter, "head": head}).to_string()
}
