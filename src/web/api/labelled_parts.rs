//! Labelled pictures in a form: parts `support` with a part `label` for each, in the same order. Parts named `support/LABEL` are the
//! older way to write the same.

use super::images::{LABEL, Part};
use crate::jobs::{ARCHIVE_LIMITS, LabelledImage, class_label, labelled_images, sort_by_class};
use crate::web::ApiError;

/// What the part with a zip of labelled pictures is called.
pub const ARCHIVE: &str = "archive";
/// What the parts of labelled pictures are called.
pub const SUPPORT: &str = "support";
/// How the names of older parts begin, before their label.
const SUPPORT_OF: &str = "support/";

/// The labelled pictures of a form, while its parts are gone through.
#[derive(Default)]
pub struct LabelledParts {
    /// With the label where the name of the part has it.
    pictures: Vec<(Option<String>, Part<()>)>,
    labels: Vec<String>,
}

/// A picture with its label as it was sent.
pub struct LabelledPart {
    pub label: String,
    pub picture: Part<()>,
    /// The part that holds the label.
    part: &'static str,
}

/// What the name of a part says about labelled pictures.
pub enum LabelledPlace {
    Picture { label: Option<String> },
    Label,
}

impl LabelledPlace {
    /// `None` for other parts.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            SUPPORT => Some(Self::Picture { label: None }),
            LABEL => Some(Self::Label),
            _ => {
                let label = name.strip_prefix(SUPPORT_OF)?;
                Some(Self::Picture {
                    label: Some(label.to_owned()),
                })
            }
        }
    }
}

impl LabelledParts {
    /// Takes a part that [`LabelledPlace`] knows.
    ///
    /// # Errors
    /// [`ApiError::InvalidParameter`] for a label that is not text.
    pub fn take(&mut self, place: LabelledPlace, part: Part<()>) -> Result<(), ApiError> {
        match place {
            LabelledPlace::Picture { label } => self.pictures.push((label, part)),
            LabelledPlace::Label => self.labels.push(part.into_text(LABEL)?),
        }
        Ok(())
    }

    /// Each picture with its label, in the order they were sent.
    ///
    /// # Errors
    /// [`ApiError::InvalidParameter`] where pictures and labels do not go together.
    pub fn into_labelled(self) -> Result<Vec<LabelledPart>, ApiError> {
        let alone = self.pictures.iter().filter(|(label, _)| label.is_none());
        let (pictures, labels) = (alone.count(), self.labels.len());
        if pictures != labels {
            return Err(ApiError::InvalidParameter {
                parameter: LABEL.into(),
                detail: format!(
                    "there are {pictures} parts {SUPPORT} and {labels} parts {LABEL}; send one {LABEL} for each {SUPPORT}, in the same order"
                ),
            });
        }
        let mut labels = self.labels.into_iter();
        let labelled = self
            .pictures
            .into_iter()
            .map(|(label, picture)| LabelledPart {
                part: if label.is_some() { SUPPORT_OF } else { LABEL },
                label: label.or_else(|| labels.next()).unwrap_or_default(),
                picture,
            });
        Ok(labelled.collect())
    }

    /// By class, as jobs take them.
    ///
    /// # Errors
    /// [`ApiError::InvalidParameter`] for a label that no class may have, and as [`Self::into_labelled`].
    pub fn into_pictures(self) -> Result<Vec<LabelledImage>, ApiError> {
        let checked = |(index, labelled): (usize, LabelledPart)| {
            let class = class_label(&labelled.label);
            let class = class.map_err(|detail| ApiError::InvalidParameter {
                parameter: labelled.part.into(),
                detail,
            })?;
            let picture = labelled.picture.named(index);
            Ok(LabelledImage {
                class,
                file_name: picture.name,
                bytes: picture.bytes,
            })
        };
        let labelled = self.into_labelled()?.into_iter().enumerate();
        let mut pictures = labelled
            .map(checked)
            .collect::<Result<Vec<_>, ApiError>>()?;
        sort_by_class(&mut pictures);
        Ok(pictures)
    }

    /// As [`Self::into_pictures`], with those of a zip. Unpacking takes long enough to hold up other requests of a worker.
    ///
    /// # Errors
    /// [`ApiError::InvalidParameter`] for a zip that cannot be used, and as [`Self::into_pictures`].
    pub fn into_pictures_with(
        self,
        archive: Option<Vec<u8>>,
    ) -> Result<Vec<LabelledImage>, ApiError> {
        let mut pictures = self.into_pictures()?;
        if let Some(zip) = archive {
            pictures.extend(labelled_images(&zip, &ARCHIVE_LIMITS)?);
            sort_by_class(&mut pictures);
        }
        Ok(pictures)
    }
}
