//! Evaluations inside of jobs: what is needed before, and the progress of one that runs.

use super::pictures::{PICTURES, Prepared, picture_input, prepare};
use super::{JobContext, JobError, LabelledImage, RequestError, Services};
use crate::app::evaluation::{Evaluation, EvaluationError, EvaluationRecipe, EvaluationReport};
use crate::recycle::episode::draw_episodes;
use crate::recycle::labelled_images::LabelledImages;
use crate::recycle::steps::StepReport;
use crate::store::{Digest, NewInput};
use std::ops::ControlFlow;
use std::sync::mpsc;

/// Pictures that methods are compared on.
pub(super) struct Pictures {
    pub input: NewInput,
    pub classes: usize,
    pub pictures: usize,
    /// One sentence for each that cannot be used.
    pub left_out: Vec<String>,
}

/// Prepares `images` for the backbone, and checks that `recipe` finds its tasks in them.
///
/// # Errors
/// [`RequestError`]
pub(super) async fn pictures(
    images: Vec<LabelledImage>,
    recipe: &EvaluationRecipe,
    backbone: &Digest,
    services: &Services,
) -> Result<Pictures, RequestError> {
    let preprocess = services.backbone(backbone).await?.preprocess.clone();
    let (shape, seed) = (recipe.shape(), recipe.seed);
    let prepared = move || {
        let Prepared { images, left_out } = prepare(images, None, &preprocess)?;
        let sizes: Vec<usize> = images.by_class().iter().map(Vec::len).collect();
        draw_episodes(&sizes, shape, 1, seed)
            .map_err(|error| RequestError::invalid("archive", error.to_string()))?;
        Ok(Pictures {
            input: picture_input(PICTURES, &images)?,
            classes: images.classes().len(),
            pictures: images.len(),
            left_out,
        })
    };
    tokio::task::spawn_blocking(prepared)
        .await
        .map_err(|error| RequestError::Registry(error.into()))?
}

/// Compares on this job's thread, with the engine at the job's priority.
///
/// # Errors
/// [`JobError`]
pub(super) fn evaluate(
    context: &JobContext,
    backbone: &Digest,
    images: &LabelledImages,
    request: &Evaluation,
) -> Result<EvaluationReport, JobError> {
    let app = context.block_on(context.services().app(backbone, context.threads()))?;
    let (told, reports) = mpsc::channel::<StepReport>();
    let progress = move |phase: &'static str, done: usize, total: usize| {
        let report = StepReport {
            phase,
            step: done as u64,
            total: total as u64,
            figures: Vec::new(),
        };
        // Where nobody listens any more, telling has failed.
        if context.is_interrupted() || told.send(report).is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    std::thread::scope(|scope| {
        // Telling waits for the database, which this thread cannot do while it waits for the evaluation.
        let tell = move || {
            reports
                .iter()
                .try_for_each(|report| context.report(&report))
        };
        let teller = std::thread::Builder::new()
            .spawn_scoped(scope, tell)
            .map_err(|error| JobError::failure("thread", error.to_string()))?;
        let evaluated = context.block_on(app.evaluate(images, request, &progress));
        drop(progress);
        let told = teller.join();
        context.interrupted()?;
        told.unwrap_or_else(|_| {
            Err(JobError::failure(
                "progress",
                "telling the progress panicked",
            ))
        })?;
        Ok(evaluated?)
    })
}

impl From<EvaluationError> for JobError {
    fn from(error: EvaluationError) -> Self {
        let message = error.to_string();
        match error {
            EvaluationError::Request(_)
            | EvaluationError::Episode(_)
            | EvaluationError::Merge(_)
            | EvaluationError::Images(_) => Self::abort("evaluation", message),
            EvaluationError::App(error) => error.into(),
            EvaluationError::Tuning(_) | EvaluationError::Operation(_) => {
                Self::failure("engine", message)
            }
        }
    }
}
