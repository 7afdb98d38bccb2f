//! Many pictures for one classifier as it is at one moment: it can be written down, and answers the same when it is read again.

use super::ClassifiersError;
use crate::app::classify::check_at_least_two;
use crate::app::registry::{BARE, RegistryError, ServedAdapter};
use crate::app::{Answer, App, ClassifyOptions, CopiesWanted, Fault, NamedImage};
use recycle::classifier::Classifier;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use store::{BatchLabel, ClassifierError, ClassifierRecord, Verdict, class_name_key};
use uuid::Uuid;

/// Classes that are kept of an answer.
const LIKELIEST: usize = 5;

/// A classifier at one revision, as it is written down.
#[derive(Serialize, Deserialize)]
struct Frozen {
    classifier: Uuid,
    revision: u64,
    /// `None` is the bare backbone.
    adapter: Option<Uuid>,
    /// Ids of the classes, in the order of the labels.
    classes: Vec<Uuid>,
    /// [`Classifier::to_json`]
    fitted: String,
}

/// A classifier at one revision.
pub struct Sorter {
    /// Which classifier.
    pub classifier: Uuid,
    /// At which revision.
    pub revision: u64,
    adapter: Option<ServedAdapter>,
    classes: Vec<Uuid>,
    fitted: Classifier,
}

impl App {
    /// The classifier `id` as it is now.
    ///
    /// # Errors
    /// As [`Self::classify_with`].
    pub async fn sorter(
        &self,
        id: Uuid,
        options: &ClassifyOptions,
    ) -> Result<Sorter, ClassifiersError> {
        let store = self.classifiers_store()?;
        loop {
            let record = store.classifier(id).await?;
            let classes = store.classes(id).await?;
            let adapter = self.adapter_of(&record, options.copies).await?;
            let fitted = self.fitted(&record, adapter.as_ref(), options.head, options.copies);
            let fitted = fitted.await?;
            if store.classifier(id).await?.revision != record.revision {
                continue;
            }
            let mut ids: HashMap<String, Uuid> = HashMap::with_capacity(classes.len());
            for class in classes {
                ids.insert(class_name_key(&class.name)?, class.id);
            }
            let labels = fitted.classifier.labels().iter();
            let classes: Result<Vec<Uuid>, ClassifierError> = labels
                .map(|label| {
                    let found = ids.get(&class_name_key(label)?).copied();
                    found.ok_or(ClassifierError::UnknownClass(Uuid::nil()))
                })
                .collect();
            return Ok(Sorter {
                classifier: id,
                revision: record.revision,
                adapter,
                classes: classes?,
                fitted: fitted.classifier.clone(),
            });
        }
    }

    /// Whether the classifier `record` can answer at all.
    ///
    /// # Errors
    /// [`ClassifiersError`]: it is of another backbone, its adapter is gone, or fewer than two of its classes have pictures.
    pub async fn check_can_answer(
        &self,
        record: &ClassifierRecord,
    ) -> Result<(), ClassifiersError> {
        self.adapter_of(record, CopiesWanted::Soon).await?;
        let classes = self.classifiers_store()?.classes(record.id).await?;
        let filled = classes.iter().filter(|class| class.pictures > 0);
        Ok(check_at_least_two(filled.count())?)
    }

    /// Reads what [`Sorter::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ClassifiersError`] where it is damaged, or the adapter is gone.
    pub async fn read_sorter(&self, bytes: &[u8]) -> Result<Sorter, ClassifiersError> {
        let damaged = |error: serde_json::Error| {
            RegistryError::Damaged(format!("the classifier of a batch: {error}"))
        };
        let frozen: Frozen = serde_json::from_slice(bytes).map_err(damaged)?;
        let adapter = frozen.adapter.map(|id| id.to_string());
        let adapter = self.adapter(Some(adapter.as_deref().unwrap_or(BARE)));
        let fitted = Classifier::from_json(frozen.fitted.as_bytes());
        Ok(Sorter {
            classifier: frozen.classifier,
            revision: frozen.revision,
            adapter: adapter.await?,
            classes: frozen.classes,
            fitted: fitted.map_err(crate::app::AppError::from)?,
        })
    }

    /// What `sorter` says to `images`, in order: the answers of [`Self::classify_with`], bit for bit.
    ///
    /// # Errors
    /// [`ClassifiersError`]; a picture that cannot be used is part of the result.
    pub async fn sort(
        &self,
        sorter: &Sorter,
        images: Vec<NamedImage>,
        options: ClassifyOptions,
    ) -> Result<Vec<Verdict>, ClassifiersError> {
        let answers = self.answer(&sorter.fitted, images, options, sorter.adapter.as_ref());
        let answers = answers.await?;
        self.note_classifier_use(sorter.classifier);
        Ok(answers
            .into_iter()
            .map(|answer| sorter.verdict(answer))
            .collect())
    }
}

impl Sorter {
    /// What answers.
    pub fn fitted(&self) -> &Classifier {
        &self.fitted
    }

    /// Through which adapter it sees; `None` is the bare backbone.
    pub fn adapter(&self) -> Option<&ServedAdapter> {
        self.adapter.as_ref()
    }

    /// What [`App::read_sorter`] reads.
    ///
    /// # Errors
    /// [`ClassifiersError`] with what JSON cannot hold.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ClassifiersError> {
        let fitted = self.fitted.to_json().map_err(crate::app::AppError::from)?;
        let frozen = Frozen {
            classifier: self.classifier,
            revision: self.revision,
            adapter: self.adapter.as_ref().map(|served| served.record.id),
            classes: self.classes.clone(),
            fitted: String::from_utf8_lossy(&fitted).into_owned(),
        };
        serde_json::to_vec(&frozen)
            .map_err(|error| RegistryError::Damaged(error.to_string()).into())
    }

    fn verdict(&self, answer: Answer) -> Verdict {
        match answer {
            Answer::Failed { error, .. } => unusable(&error),
            Answer::Classified {
                scores,
                novelty,
                rejected,
                ..
            } => {
                let labels = self.fitted.labels();
                let mut likeliest = scores.into_iter().take(LIKELIEST).map(|score| {
                    let place = labels.iter().position(|label| *label == score.label);
                    let class = place.and_then(|place| self.classes.get(place));
                    BatchLabel {
                        class: class.copied().unwrap_or_default(),
                        name: score.label,
                        probability: f64::from(score.probability),
                    }
                });
                match likeliest.next() {
                    None => unusable(&Fault {
                        code: "no_classes".into(),
                        message: "the classifier has no classes".into(),
                    }),
                    Some(best) => Verdict::Sorted {
                        confidence: best.probability,
                        best,
                        others: likeliest.collect(),
                        novelty: novelty.map(f64::from),
                        rejected,
                    },
                }
            }
        }
    }
}

fn unusable(fault: &Fault) -> Verdict {
    Verdict::Unusable(serde_json::json!(fault))
}
