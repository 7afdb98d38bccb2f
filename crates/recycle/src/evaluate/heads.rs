//! Accuracy by heads that are fitted to each task.

use crate::episode::Episode;
use crate::head::copies::CopySpec;
use crate::head::{FittedHead, HeadError, HeadSettings, LabelledFeature};
use crate::head::{nearest_classes, with_copies};
use rayon::prelude::*;

/// Features of pictures and of copies of them, as the encoder gave them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassFeatures {
    /// `plain[class][image]`
    pub plain: Vec<Vec<Vec<f32>>>,
    /// Which copies there are.
    pub specs: Vec<CopySpec>,
    /// `copies[class][image][spec]`; empty where there are no copies.
    pub copies: Vec<Vec<Vec<Vec<f32>>>>,
}

impl ClassFeatures {
    /// Where the copies that `settings` needs are among [`Self::specs`].
    ///
    /// # Errors
    /// [`HeadError::Feature`] where one is missing.
    pub(super) fn places(&self, settings: &HeadSettings) -> Result<Vec<usize>, HeadError> {
        let specs = settings.copy_specs().into_iter();
        let place = |spec| self.specs.iter().position(|own| *own == spec);
        specs
            .map(place)
            .collect::<Option<_>>()
            .ok_or(HeadError::Feature)
    }

    /// The copies of one picture at `places`.
    pub(super) fn copies_of(&self, class: usize, image: usize, places: &[usize]) -> Vec<&[f32]> {
        let copies = |&place: &usize| self.copies[class][image][place].as_slice();
        places.iter().map(copies).collect()
    }
}

/// Share of correctly classified queries of each task.
///
/// # Errors
/// [`HeadError`], [`HeadError::Feature`] also where a copy that the head needs is missing.
pub fn head_accuracies(
    features: &ClassFeatures,
    episodes: &[Episode],
    settings: &HeadSettings,
) -> Result<Vec<f64>, HeadError> {
    let places = features.places(settings)?;
    let tasks = episodes.par_iter();
    tasks
        .map(|episode| task_accuracy(features, &places, episode, settings))
        .collect()
}

fn task_accuracy(
    features: &ClassFeatures,
    places: &[usize],
    episode: &Episode,
    settings: &HeadSettings,
) -> Result<f64, HeadError> {
    let mut supports = Vec::new();
    let (mut queries, mut labels) = (Vec::new(), Vec::new());
    for (label, class) in episode.iter().enumerate() {
        for &image in &class.supports {
            let copies = features.copies_of(class.class, image, places);
            supports.push((label, &features.plain[class.class][image], copies));
        }
        for &image in &class.queries {
            let plain = &features.plain[class.class][image];
            queries.push(if settings.queries_of_copies {
                with_copies(plain, &features.copies_of(class.class, image, places))
            } else {
                plain.clone()
            });
            labels.push(label);
        }
    }
    let examples = supports
        .iter()
        .map(|(class, feature, copies)| LabelledFeature {
            class: *class,
            feature,
            copies,
        });
    let head = FittedHead::fit(settings, episode.len(), &examples.collect::<Vec<_>>())?;
    let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    let found = nearest_classes(head.squared_distances(&queries)?.as_ref());
    let pairs = found.iter().zip(&labels);
    let correct = pairs.filter(|(found, label)| found == label).count();
    Ok(correct as f64 / labels.len() as f64)
}
