//! Through which adapter a classifier sees: from what a request calls it to what is stored, and from there to what answers.

use super::ClassifiersError;
use crate::app::registry::{BARE, RegistryError, ServedAdapter};
use crate::app::{App, AppError, CopiesWanted};
use store::{AdapterChoice, AdapterReference, ClassifierRecord, Digest, Selector, StoreError};

/// What requests write to let a classifier choose for itself.
const AUTOMATIC: &str = "auto";

impl App {
    pub(super) fn backbone_digest(&self) -> Result<Digest, ClassifiersError> {
        let digest = self.backbone.digest.parse();
        let damaged = |_| RegistryError::Damaged("the backbone's digest is no SHA-256".to_owned());
        Ok(digest.map_err(damaged)?)
    }

    /// What a classifier keeps of the adapter that a request names.
    pub(super) async fn adapter_choice(
        &self,
        wanted: Option<&str>,
    ) -> Result<AdapterChoice, ClassifiersError> {
        let wanted = match wanted {
            None => return Ok(AdapterChoice::Default),
            Some(BARE) => return Ok(AdapterChoice::None),
            Some(AUTOMATIC) => return Ok(AdapterChoice::Auto),
            Some(wanted) => wanted,
        };
        // An unknown adapter, or one of another backbone, is refused now and not at the first question.
        let served = self.adapter(Some(wanted)).await?;
        if let Ok(AdapterReference {
            name,
            selector: Selector::Alias(alias),
        }) = wanted.parse()
        {
            return Ok(AdapterChoice::Alias {
                adapter: name,
                alias,
            });
        }
        Ok(pin(served.as_ref()))
    }

    /// The version that `choice` means now, for good.
    pub(super) async fn pinned(
        &self,
        choice: AdapterChoice,
    ) -> Result<AdapterChoice, ClassifiersError> {
        match choice {
            AdapterChoice::None | AdapterChoice::Pinned { .. } => Ok(choice),
            AdapterChoice::Alias { .. } | AdapterChoice::Default | AdapterChoice::Auto => {
                let reference = reference(&choice);
                Ok(pin(self.adapter(reference.as_deref()).await?.as_ref()))
            }
        }
    }

    /// The adapter through which `classifier` sees now; `None` is the bare backbone. One that chooses for itself waits for the features that
    /// it needs for that as `wanted` says.
    ///
    /// # Errors
    /// [`ClassifiersError::OtherBackbone`], [`ClassifiersError::AdapterGone`]; [`AppError::Registry`](crate::app::AppError::Registry) where an alias is gone.
    pub async fn adapter_of(
        &self,
        classifier: &ClassifierRecord,
        wanted: CopiesWanted,
    ) -> Result<Option<ServedAdapter>, ClassifiersError> {
        if classifier.backbone_digest.as_str() != self.backbone.digest {
            return Err(ClassifiersError::OtherBackbone {
                classifier: classifier.name.clone(),
                its_backbone: classifier.backbone.to_string(),
                its_digest: classifier.backbone_digest.to_string(),
                backbone: self.backbone_name.clone(),
                digest: self.backbone.digest.clone(),
            });
        }
        if classifier.adapter == AdapterChoice::Auto {
            return self.automatic_adapter(classifier, wanted).await;
        }
        let served = self
            .adapter(reference(&classifier.adapter).as_deref())
            .await;
        match (served, &classifier.adapter) {
            (
                Err(AppError::Registry(RegistryError::Store(StoreError::UnknownAdapter {
                    ..
                }))),
                AdapterChoice::Pinned { label, .. },
            ) => Err(ClassifiersError::AdapterGone {
                classifier: classifier.name.clone(),
                label: label.clone(),
            }),
            (served, _) => Ok(served?),
        }
    }
}

/// As a request would name it. Where it is still to be found out what suits the pictures best, the default.
fn reference(choice: &AdapterChoice) -> Option<String> {
    match choice {
        AdapterChoice::Auto | AdapterChoice::Default => None,
        AdapterChoice::None => Some(BARE.to_owned()),
        AdapterChoice::Pinned { id, .. } => Some(id.to_string()),
        AdapterChoice::Alias { adapter, alias } => Some(format!("{adapter}@{alias}")),
    }
}

fn pin(served: Option<&ServedAdapter>) -> AdapterChoice {
    match served {
        None => AdapterChoice::None,
        Some(ServedAdapter { record, .. }) => AdapterChoice::Pinned {
            id: record.id,
            label: record.label(),
            digest: record.digest.clone(),
        },
    }
}
