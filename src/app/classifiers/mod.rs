//! Classifiers that stay: their pictures are in the store, and what was computed from them is kept, so that a query costs one encoding.
//! Knows rows and files of the store, features and answers; knows no HTTP and no terminal.

mod adapter;
mod add;
mod answering;
mod automatic;
mod bundle;
mod check;
mod choice;
mod classify;
mod features;
mod fit;
mod kept_fits;
mod onnx;
mod prepare;
mod sort;
mod sorted_folders;

pub use add::{AddedExample, AddedExamples, NewExample};
pub use answering::{Answering, AnsweringPatch};
pub use bundle::{BUNDLE_LIMITS, ImportedClassifier};
pub use check::Check;
pub use choice::{Automatic, Candidate};
pub use classify::StoredAnswers;
pub use kept_fits::ClassifierFits;
pub use sort::Sorter;
pub use sorted_folders::SortedFolders;

use super::registry::RegistryError;
use super::{App, AppError};
use crate::inference::EncodeError;
use store::{
    Changed, ClassifierError, ClassifierPatch, ClassifierRecord, NewClassifier, Privacy, Store,
    StoreError,
};
use uuid::Uuid;

/// Why a classifier cannot do what is asked.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum ClassifiersError {
    #[error(transparent)]
    Store(#[from] ClassifierError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(
        "the classifier \"{classifier}\" sees through the backbone {its_backbone} ({its_digest:.12}), this is {backbone} ({digest:.12})"
    )]
    OtherBackbone {
        classifier: String,
        its_backbone: String,
        its_digest: String,
        backbone: String,
        digest: String,
    },
    #[error("the adapter {label}, through which the classifier \"{classifier}\" sees, was deleted")]
    AdapterGone { classifier: String, label: String },
    #[error(
        "the classifier \"{0}\" keeps features of its pictures and not the pictures, so it cannot see through another adapter"
    )]
    PicturesNotKept(String),
    #[error("{0} is not a share; it must be above 0 and below 1")]
    BadShare(f32),
    #[error("the classifier cannot be imported: {0}")]
    BundleRefused(String),
}

impl From<StoreError> for ClassifiersError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<RegistryError> for ClassifiersError {
    fn from(error: RegistryError) -> Self {
        Self::App(error.into())
    }
}

impl From<EncodeError> for ClassifiersError {
    fn from(error: EncodeError) -> Self {
        Self::App(error.into())
    }
}

/// What `read` gives of the classifier `id`, all of it at one revision, and the classifier at that revision.
///
/// # Errors
/// Those of `read`, and where there is no such classifier.
pub async fn at_one_revision<T, F>(
    store: &Store,
    id: Uuid,
    read: impl Fn() -> F,
) -> Result<(ClassifierRecord, T), ClassifierError>
where
    F: Future<Output = Result<T, ClassifierError>>,
{
    loop {
        let record = store.classifier(id).await?;
        let found = read().await?;
        if store.classifier(id).await?.revision == record.revision {
            return Ok((record, found));
        }
    }
}

/// A classifier to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierToMake {
    /// Its id, where a request must not make it twice.
    pub id: Option<Uuid>,
    /// Several can have the same.
    pub name: String,
    /// As requests name an adapter; without one the backbone's default, whenever that moves.
    pub adapter: Option<String>,
    /// What is kept of its pictures.
    pub privacy: Privacy,
}

impl App {
    /// Makes a classifier without classes, or gives the one that has this id already. One that keeps no pictures stays with the adapter
    /// that is meant now: features through another could not be computed.
    ///
    /// # Errors
    /// [`ClassifiersError`] of its name or adapter, or where its backbone is not registered.
    pub async fn create_classifier(
        &self,
        make: ClassifierToMake,
        by: &str,
    ) -> Result<ClassifierRecord, ClassifiersError> {
        let choice = self.adapter_choice(make.adapter.as_deref()).await?;
        let adapter = match make.privacy {
            Privacy::Pictures => choice,
            Privacy::Features => self.pinned(choice).await?,
        };
        let new = NewClassifier {
            id: make.id,
            name: make.name,
            backbone_digest: self.backbone_digest()?,
            adapter,
            head: serde_json::json!({}),
            privacy: make.privacy,
        };
        Ok(self
            .classifiers_store()?
            .create_classifier(&new, by)
            .await?)
    }

    /// Changes the name of a classifier, through which adapter it sees and how it answers; `None` stays as it is, an adapter `Some(None)` is
    /// the backbone's default.
    ///
    /// # Errors
    /// [`ClassifiersError`] of name or adapter, [`ClassifiersError::PicturesNotKept`], [`ClassifiersError::BadShare`], and as the store has them.
    pub async fn change_classifier(
        &self,
        id: Uuid,
        expected: Option<u64>,
        name: Option<String>,
        adapter: Option<Option<&str>>,
        answering: AnsweringPatch,
        by: &str,
    ) -> Result<Changed, ClassifiersError> {
        let store = self.classifiers_store()?;
        let record = store.classifier(id).await?;
        if let Some(share) = answering.reject.flatten()
            && !(share > 0.0 && share < 1.0)
        {
            return Err(ClassifiersError::BadShare(share));
        }
        let answering = answering.applied(Answering::of(&record));
        let adapter = match adapter {
            Some(wanted) => {
                let choice = self.adapter_choice(wanted).await?;
                if record.privacy == Privacy::Features {
                    let choice = self.pinned(choice).await?;
                    if choice != record.adapter && record.pictures > 0 {
                        return Err(ClassifiersError::PicturesNotKept(record.name));
                    }
                    Some(choice)
                } else {
                    Some(choice)
                }
            }
            None => None,
        };
        let patch = ClassifierPatch {
            name,
            adapter,
            head: answering.map(|own| serde_json::json!(own)),
        };
        Ok(store.update_classifier(id, expected, patch, by).await?)
    }

    fn classifiers_store(&self) -> Result<&Store, ClassifiersError> {
        Ok(self.registry()?.store())
    }
}
