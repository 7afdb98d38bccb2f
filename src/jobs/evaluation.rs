//! Evaluations inside of jobs: what is needed before, and the progress of one that runs.

use super::pictures::{PICTURES, Prepared, picture_input, prepare};
use super::{JobContext, JobError, LabelledImage, RequestError, Services};
use crate::app::evaluation::{
    Evaluation, EvaluationError, EvaluationProgress, EvaluationRecipe, EvaluationReport, MethodRun,
};
use recycle::episode::draw_episodes;
use recycle::labelled_images::LabelledImages;
use recycle::steps::StepReport;
use std::ops::ControlFlow;
use std::sync::mpsc;
use store::{Digest, NewInput};

/// Pictures that tasks are drawn from.
pub(super) struct Pictures {
    pub input: NewInput,
    pub classes: usize,
    pub pictures: usize,
    /// One sentence for each that cannot be used.
    pub left_out: Vec<String>,
}

/// Prepares `images` for the backbone as an input of this `role`; `check` is given the number of usable pictures of each class.
///
/// # Errors
/// [`RequestError`]; those of `check` name `parameter`.
pub(super) async fn pictures<E: ToString>(
    images: impl FnOnce() -> Result<Vec<LabelledImage>, RequestError> + Send + 'static,
    (role, parameter): (&'static str, &'static str),
    check: impl FnOnce(&[usize]) -> Result<(), E> + Send + 'static,
    backbone: &Digest,
    services: &Services,
) -> Result<Pictures, RequestError> {
    let preprocess = services.backbone(backbone).await?.preprocess.clone();
    let prepared = move || {
        let Prepared { images, left_out } =
            prepare(images()?, None, &preprocess).map_err(|error| error.told_of(parameter))?;
        let sizes: Vec<usize> = images.by_class().iter().map(Vec::len).collect();
        check(&sizes).map_err(|error| RequestError::invalid(parameter, error.to_string()))?;
        Ok(Pictures {
            input: picture_input(role, &images)?,
            classes: images.classes().len(),
            pictures: images.len(),
            left_out,
        })
    };
    tokio::task::spawn_blocking(prepared)
        .await
        .map_err(|error| RequestError::Registry(error.into()))?
}

/// [`pictures`] that methods are compared on, enough for the tasks of `recipe`.
///
/// # Errors
/// [`RequestError`]
pub(super) async fn compared_on(
    images: Vec<LabelledImage>,
    recipe: &EvaluationRecipe,
    backbone: &Digest,
    services: &Services,
) -> Result<Pictures, RequestError> {
    let (shape, seed) = (recipe.shape(), recipe.seed);
    let check = move |sizes: &[usize]| draw_episodes(sizes, shape, 1, seed).map(drop);
    pictures(
        move || Ok(images),
        (PICTURES, "archive"),
        check,
        backbone,
        services,
    )
    .await
}

/// What the thread of an evaluation sends to that of its job.
enum Message {
    Step(StepReport),
    Finished(Vec<MethodRun>),
}

struct JobProgress<'a> {
    context: &'a JobContext,
    messages: mpsc::Sender<Message>,
}

impl EvaluationProgress for JobProgress<'_> {
    fn report(&self, phase: &'static str, done: usize, total: usize) -> ControlFlow<()> {
        let report = StepReport {
            phase,
            step: done as u64,
            total: total as u64,
            figures: Vec::new(),
        };
        // Where nobody receives any more, sending has failed.
        if self.context.is_interrupted() || self.messages.send(Message::Step(report)).is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn keep(&self, finished: &[MethodRun]) {
        // Where nobody receives any more, the next step ends the run.
        let _ = self.messages.send(Message::Finished(finished.to_vec()));
    }
}

/// What the log says about a comparison that does not start from the beginning.
pub(super) fn resuming_after(finished: &[MethodRun]) -> String {
    format!("resuming after the {} finished methods", finished.len())
}

/// Compares on this job's thread, with the engine at the job's priority. `finished` is given each time all lines of the report that are
/// finished.
///
/// # Errors
/// [`JobError`]
pub(super) fn evaluate(
    context: &JobContext,
    backbone: &Digest,
    images: &LabelledImages,
    request: &Evaluation,
    finished: impl Fn(&[MethodRun]) -> Result<(), JobError> + Send,
) -> Result<EvaluationReport, JobError> {
    let services = context.services();
    let options = context.session_options(services.devices().planned(None))?;
    let app = context.block_on(services.app(backbone, options))?;
    let (messages, received) = mpsc::channel();
    let progress = JobProgress { context, messages };
    std::thread::scope(|scope| {
        // Reporting waits for the database, which this thread cannot do while it waits for the evaluation.
        let report = move || {
            received.iter().try_for_each(|message| match message {
                Message::Step(report) => context.report(&report),
                Message::Finished(runs) => finished(&runs),
            })
        };
        let reporter = std::thread::Builder::new()
            .spawn_scoped(scope, report)
            .map_err(|error| JobError::failure("thread", error.to_string()))?;
        let evaluated = context.block_on(app.evaluate(images, request, &progress));
        drop(progress);
        let reported = reporter.join();
        context.interrupted()?;
        reported.unwrap_or_else(|_| {
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
            EvaluationError::Operation(error) => Self::engine(&error),
            EvaluationError::Tuning(_) | EvaluationError::Head(_) => {
                Self::failure("engine", message)
            }
        }
    }
}
