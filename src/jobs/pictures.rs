//! Labelled pictures from how they were sent to what a job computes with.

use super::{JobContext, JobError, LabelledImage, RequestError};
use model::backbone::Preprocess;
use model::image_input::{ImageLimits, load_levels};
use rayon::prelude::*;
use recycle::labelled_images::{LabelledImages, LabelledImagesError};
use store::NewInput;

/// Usable pictures, and why others are not.
pub(crate) struct Prepared {
    pub images: LabelledImages,
    /// One sentence each, the first [`MOST_SENTENCES`].
    pub left_out: Vec<String>,
}

const MOST_SENTENCES: usize = 50;

/// Decodes the pictures of `classes` (all where there are none) to the size that the backbone sees. Those that cannot be used are
/// left out.
///
/// # Errors
/// [`RequestError::Invalid`]: a class that is asked for is not there or has no usable picture, or there are fewer than two.
pub(crate) fn prepare(
    mut pictures: Vec<LabelledImage>,
    classes: Option<&[String]>,
    preprocess: &Preprocess,
) -> Result<Prepared, RequestError> {
    let mut names: Vec<String> = pictures
        .iter()
        .map(|picture| picture.class.clone())
        .collect();
    names.dedup();
    if let Some(wanted) = classes {
        if let Some(missing) = wanted.iter().find(|label| !names.contains(label)) {
            return Err(RequestError::invalid(
                "classes",
                format!(
                    "there is no class \"{missing}\"; there are {}",
                    names.join(", ")
                ),
            ));
        }
        pictures.retain(|picture| wanted.contains(&picture.class));
        names.retain(|name| wanted.contains(name));
    }
    let limits = ImageLimits::default();
    let decoded: Vec<_> = pictures
        .par_iter()
        .map(|picture| load_levels(&picture.bytes, &limits, preprocess))
        .collect();
    let (mut levels, mut labels, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let mut side = 0;
    let mut unusable = 0;
    for (picture, decoded) in pictures.iter().zip(decoded) {
        let own = names.iter().position(|name| *name == picture.class);
        let problem = match (decoded, own) {
            (Ok(decoded), Some(own)) if decoded.width == decoded.height => {
                side = decoded.width;
                labels.push(own as u32);
                levels.extend(decoded.planes);
                continue;
            }
            (Ok(decoded), _) => format!(
                "it is {} × {} pixels after the backbone's preprocessing, not square",
                decoded.width, decoded.height
            ),
            (Err(error), _) => error.to_string(),
        };
        unusable += 1;
        if left_out.len() < MOST_SENTENCES {
            let LabelledImage {
                class, file_name, ..
            } = picture;
            left_out.push(format!("left out: {class}/{file_name}: {problem}"));
        }
    }
    if unusable > left_out.len() {
        left_out.push(format!(
            "left out: {} more pictures",
            unusable - left_out.len()
        ));
    }
    let images = LabelledImages::new(names, side.max(1), levels, labels).map_err(|error| {
        let reason = left_out.first().map_or_else(String::new, |first| {
            format!("; {unusable} pictures cannot be used, {first}")
        });
        RequestError::invalid("archive", format!("{error}{reason}"))
    })?;
    Ok(Prepared { images, left_out })
}

/// Roles of inputs that are [`LabelledImages`] as bytes: what a job is about, and what it chooses its result on.
pub(super) const PICTURES: &str = "labelled_images";
pub(super) const VALIDATION: &str = "validation";

/// `images` as an input of a job.
///
/// # Errors
/// [`RequestError::Invalid`]
pub(super) fn picture_input(role: &str, images: &LabelledImages) -> Result<NewInput, RequestError> {
    Ok(NewInput {
        role: role.to_owned(),
        name: "pictures.safetensors".to_owned(),
        bytes: images.to_bytes().map_err(pictures_error)?,
    })
}

pub(super) fn pictures_error(error: LabelledImagesError) -> RequestError {
    RequestError::invalid("archive", error.to_string())
}

/// What [`picture_input`] has kept for the job.
///
/// # Errors
/// [`JobError`] where the pictures are gone or damaged.
pub(super) fn read_pictures(context: &JobContext, role: &str) -> Result<LabelledImages, JobError> {
    let gone = |detail: String| {
        JobError::abort("pictures_gone", detail).hint("send the pictures again, as a new job")
    };
    let inputs = context.inputs()?;
    let input = inputs
        .iter()
        .find(|input| input.role == role)
        .ok_or_else(|| gone("the pictures of this job are no longer there".into()))?;
    let bytes = context.read_input(input)?;
    LabelledImages::from_bytes(&bytes).map_err(|error| gone(error.to_string()))
}
