//! Answers of a classifier in the store.

use super::ClassifiersError;
use crate::app::classify::{answers, names};
use crate::app::registry::ServedAdapter;
use crate::app::{App, Classification, ClassifyOptions, NamedImage};
use futures_util::future::try_join;
use std::time::{SystemTime, UNIX_EPOCH};
use store::ClassifierRecord;
use uuid::Uuid;

/// What a classifier answered.
#[derive(Debug, Clone)]
pub struct StoredAnswers {
    /// As if its pictures had been sent along.
    pub classification: Classification,
    /// Through which adapter it saw; `None` is the bare backbone.
    pub adapter: Option<ServedAdapter>,
    /// Of the classifier when it was asked.
    pub revision: u64,
}

impl App {
    /// Lets the classifier `record` answer for `queries`. Only the queries are encoded, as long as neither the classifier nor its adapter
    /// has changed.
    ///
    /// # Errors
    /// [`ClassifiersError`], among them [`AppError::BadClasses`](crate::app::AppError::BadClasses) for fewer than two classes with pictures; an unusable query is part of the result.
    pub async fn classify_with(
        &self,
        record: &ClassifierRecord,
        queries: Vec<NamedImage>,
        options: ClassifyOptions,
    ) -> Result<StoredAnswers, ClassifiersError> {
        let adapter = self.adapter_of(record, options.copies).await?;
        let names = names(&queries);
        let fitted = self.fitted(record, adapter.as_ref(), options.head, options.copies);
        let encoded = async { Ok(self.pictures.encode(queries, adapter.as_ref()).await?) };
        let (fitted, encoded) = try_join(fitted, encoded).await?;
        self.note_classifier_use(record.id);
        Ok(StoredAnswers {
            classification: Classification {
                answers: answers(&fitted.classifier, &fitted.ids, names, encoded, options)?,
                refused: fitted.refused.clone(),
                is_provisional: fitted.is_provisional || self.is_choosing(record),
            },
            adapter,
            revision: record.revision,
        })
    }

    pub(super) fn note_classifier_use(&self, id: Uuid) {
        self.fits.note_use(id, now_ms());
    }

    /// Writes when classifiers answered last. Called now and then: a write for each answer would be slow.
    ///
    /// # Errors
    /// [`ClassifiersError`] of the store; those times are lost then.
    pub async fn write_classifier_uses(&self) -> Result<(), ClassifiersError> {
        let uses = self.fits.take_uses();
        if !uses.is_empty() {
            let store = self.classifiers_store()?;
            store.mark_classifiers_used(&uses).await?;
        }
        Ok(())
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
