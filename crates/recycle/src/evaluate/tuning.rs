//! What tuning a LoRA on each task's own support images gives: the slow way that one forward pass is compared with.

use crate::episode::Episode;
use crate::head_pass::{HeadPass, count_correct};
use crate::labelled_images::{LabelledImages, LabelledImagesError};
use crate::steps::Steps;
use crate::tune::{TuneError, TuneRecipe, Tuning};
use engine::operation::OperationError;
use engine::session::{Input, Session, SessionOptions, Wanted};
use model::backbone::Backbone;
use thiserror::Error;

/// Why a task could not be tuned.
#[derive(Debug, Error, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum TuningProblem {
    #[error(transparent)]
    Tune(#[from] TuneError),
    #[error(transparent)]
    Images(#[from] LabelledImagesError),
    #[error(transparent)]
    Operation(#[from] OperationError),
}

/// Share of correctly classified queries of `episode` by a LoRA and head that `recipe` tunes on its supports alone; nothing of them
/// is held out. `positions[class][image]` are those of `images`.
///
/// # Errors
/// [`TuningProblem`] for a recipe that does not fit the backbone or diverges.
pub fn tuned_accuracy(
    backbone: &Backbone,
    images: &LabelledImages,
    positions: &[Vec<usize>],
    episode: &Episode,
    recipe: &TuneRecipe,
    options: SessionOptions,
) -> Result<f64, TuningProblem> {
    let (mut levels, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let (mut queries, mut query_labels) = (Vec::new(), Vec::new());
    for (label, class) in episode.iter().enumerate() {
        names.push(images.classes()[class.class].clone());
        for &image in &class.supports {
            levels.extend_from_slice(images.levels(positions[class.class][image]));
            labels.push(label as u32);
        }
        queries.extend(
            class
                .queries
                .iter()
                .map(|&image| positions[class.class][image]),
        );
        query_labels.extend(class.queries.iter().map(|_| label));
    }
    let supports = LabelledImages::new(names, images.image_size(), levels, labels)?;
    let recipe = TuneRecipe {
        held_out: 0.0,
        early_stop: None,
        ..recipe.clone()
    };
    let mut tuning = Tuning::new(backbone, supports, recipe, options.clone())?;
    let outcome = loop {
        if let Some(outcome) = tuning.outcome() {
            break outcome;
        }
        tuning.step()?;
    };
    let pixels = images.pixels(&queries, &[], &backbone.preprocess.normalised_levels());
    let input = Input {
        adapter: Some(&outcome.adapter),
        ..Input::pixels(&pixels)
    };
    let mut session = Session::new(backbone, options)?;
    let features = session
        .forward(&input, Wanted::default())?
        .features
        .data()
        .to_vec();
    let classes = episode.len();
    let correct = match &outcome.adapter.head {
        Some(head) => count_correct(
            &HeadPass::of(head).logits(&features)?,
            &query_labels,
            classes,
        ),
        None => 0,
    };
    Ok(correct as f64 / query_labels.len() as f64)
}
