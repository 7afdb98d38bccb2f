//! Real pictures in place of synthetic ones: the control that says what the data itself would give.

use super::RequestError;
use super::pictures::{picture_input, prepare};
use crate::backbone::Preprocess;
use crate::jobs::{ARCHIVE_LIMITS, labelled_images};
use crate::recycle::labelled_images::LabelledImages;
use crate::store::NewInput;

/// The part of a request with these pictures, and the role of the job's input.
pub(super) const REAL: &str = "real";

/// The pictures of a zip whose folders are classes, as an input.
///
/// # Errors
/// [`RequestError::Invalid`]
pub(super) fn real_input(
    zip: &[u8],
    preprocess: &Preprocess,
) -> Result<(NewInput, LabelledImages), RequestError> {
    let pictures = labelled_images(zip, &ARCHIVE_LIMITS)
        .map_err(|error| RequestError::invalid(REAL, error.to_string()))?;
    let prepared = prepare(pictures, None, preprocess).map_err(|error| error.told_of(REAL))?;
    let input = picture_input(REAL, &prepared.images)?;
    Ok((input, prepared.images))
}

/// The first `count` pictures of each of `classes`: levels `[images, 3, side, side]` and labels that count `classes`, one of each class
/// after the other.
///
/// # Errors
/// A sentence that names the class with too few.
pub(super) fn of_classes(
    images: &LabelledImages,
    classes: &[String],
    count: usize,
) -> Result<(Vec<u8>, Vec<u32>), String> {
    let positions = images.by_class();
    let mut own = Vec::with_capacity(classes.len());
    for class in classes {
        let found = images.classes().iter().position(|name| name == class);
        let found = found.map_or(&[][..], |place| &positions[place]);
        if found.len() < count {
            return Err(format!(
                "there are {} pictures of the class \"{class}\", and {count} are needed; add some, or ask for fewer with images_per_class",
                found.len()
            ));
        }
        own.push(found);
    }
    let (mut levels, mut labels) = (Vec::new(), Vec::new());
    for place in 0..count {
        for (label, found) in own.iter().enumerate() {
            levels.extend_from_slice(images.levels(found[place]));
            labels.push(label as u32);
        }
    }
    Ok((levels, labels))
}
