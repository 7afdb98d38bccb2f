//! Real pictures in place of synthetic ones: the control that says what the data itself would give.

use super::RequestError;
use super::pictures::{picture_input, pictures_error, prepare};
use crate::jobs::{ARCHIVE_LIMITS, labelled_images};
use model::backbone::Preprocess;
use recycle::labelled_images::LabelledImages;
use store::{Digest, NewInput};

/// The part of a request with these pictures, and the role of the job's input.
pub(super) const REAL: &str = "real";

/// Real pictures as a backbone sees them.
pub(super) struct RealImages {
    /// Over all of them, as the recipe names them.
    pub digest: String,
    images: LabelledImages,
}

impl RealImages {
    /// The pictures of a zip whose folders are classes.
    ///
    /// # Errors
    /// [`RequestError::Invalid`]
    pub fn read(zip: &[u8], preprocess: &Preprocess) -> Result<Self, RequestError> {
        let pictures = labelled_images(zip, &ARCHIVE_LIMITS)
            .map_err(|error| RequestError::invalid(REAL, error.to_string()))?;
        let images = prepare(pictures, None, preprocess)
            .map_err(|error| error.told_of(REAL))?
            .images;
        let bytes = images
            .to_bytes()
            .map_err(|error| pictures_error(error).told_of(REAL))?;
        Ok(Self {
            digest: Digest::of(&bytes).to_string(),
            images,
        })
    }

    /// The pictures of the `classes` of `adapter` as an input of its job, `count` of each at least.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] names the class with too few.
    pub fn input(
        &self,
        adapter: &str,
        classes: &[String],
        count: usize,
    ) -> Result<NewInput, RequestError> {
        enough(&self.images, &self.images.by_class(), classes, count)
            .map_err(|error| RequestError::invalid(REAL, format!("{adapter}: {error}")))?;
        let all = self.images.classes().iter().enumerate();
        let mut own: Vec<usize> = all
            .filter(|(_, name)| classes.contains(name))
            .map(|(index, _)| index)
            .collect();
        // A set has two classes at least; an adapter may have one.
        if let [only] = own[..] {
            own.push(usize::from(only == 0));
        }
        let own = self.images.subset(&own).map_err(pictures_error);
        own.and_then(|own| picture_input(REAL, &own))
            .map_err(|error| error.told_of(REAL))
    }
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
    let own = enough(images, &positions, classes, count)?;
    let (mut levels, mut labels) = (Vec::new(), Vec::new());
    for place in 0..count {
        for (label, found) in own.iter().enumerate() {
            levels.extend_from_slice(images.levels(found[place]));
            labels.push(label as u32);
        }
    }
    Ok((levels, labels))
}

/// Of `positions`, those of each of `classes`, `count` at least.
fn enough<'a>(
    images: &LabelledImages,
    positions: &'a [Vec<usize>],
    classes: &[String],
    count: usize,
) -> Result<Vec<&'a [usize]>, String> {
    let of_class = |class: &String| {
        let found = images.classes().iter().position(|name| name == class);
        let found = found.map_or(&[][..], |place| &positions[place]);
        if found.len() < count {
            return Err(format!(
                "there are {} pictures of the class \"{class}\", and {count} are needed; add some, or ask for fewer with images_per_class",
                found.len()
            ));
        }
        Ok(found)
    };
    classes.iter().map(of_class).collect()
}
