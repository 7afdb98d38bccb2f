//! Labelled pictures in a form: a zip whose folders are classes, a part for each picture, or both.

use super::classify::LONGEST_LABEL;
use super::images::Part;
use crate::jobs::{ARCHIVE_LIMITS, LabelledImage, labelled_images};
use crate::web::ApiError;

/// What the part with the zip is called.
pub const ARCHIVE: &str = "archive";
/// What the parts of labelled pictures are called, before their label; as in a request to classify.
pub const SUPPORT: &str = "support/";

/// The labelled pictures among the parts of a form, while it is gone through.
#[derive(Default)]
pub struct LabelledParts {
    single: Vec<LabelledImage>,
    archived: Vec<LabelledImage>,
}

impl LabelledParts {
    /// Whether a part of this name holds labelled pictures.
    pub fn has(name: &str) -> bool {
        name == ARCHIVE || name.starts_with(SUPPORT)
    }

    /// Takes such a part, number `index` of the form. Unpacking takes long enough to hold up other requests of a worker.
    ///
    /// # Errors
    /// [`ApiError::InvalidParameter`] for a label or a zip that cannot be used.
    pub fn take(&mut self, index: usize, part: Part<String>) -> Result<(), ApiError> {
        if let Some(label) = part.place.strip_prefix(SUPPORT) {
            let class = checked_label(label)?;
            let image = part.named(index);
            self.single.push(LabelledImage {
                class,
                file_name: image.name,
                bytes: image.bytes,
            });
        } else {
            let (_, zip) = part.into_place_and_bytes();
            self.archived = labelled_images(&zip, &ARCHIVE_LIMITS)?;
        }
        Ok(())
    }

    /// By class, in the order they were sent.
    pub fn into_pictures(self) -> Vec<LabelledImage> {
        let mut pictures = self.single;
        pictures.extend(self.archived);
        pictures.sort_by(|a, b| a.class.cmp(&b.class));
        pictures
    }
}

fn checked_label(label: &str) -> Result<String, ApiError> {
    let label = label.trim();
    if label.is_empty() || label.len() > LONGEST_LABEL || label.chars().any(char::is_control) {
        return Err(ApiError::InvalidParameter {
            parameter: SUPPORT.into(),
            detail: format!(
                "a class needs a name of 1 to {LONGEST_LABEL} bytes without control characters: part {SUPPORT}NAME"
            ),
        });
    }
    Ok(label.to_owned())
}
