//! A LoRA tuned for each task: what one does without a meta-LoRA.

use super::progress::report_progress;
use super::report::TuningReport;
use super::{Evaluation, EvaluationError, EvaluationProgress, EvaluationRecipe, EvaluationTasks};
use crate::app::App;
use engine::session::SessionOptions;
use recycle::episode::draw_episodes;
use recycle::evaluate::{accuracy, tuned_accuracy};
use recycle::tune::TuneRecipe;

/// Learning rates that are tried on validation tasks, and on how many.
const LEARNING_RATES: [f64; 3] = [3e-4, 1e-3, 3e-3];
const VALIDATION_TASKS: usize = 10;

/// How a task is tuned.
pub(super) fn tune_recipe(
    wanted: &EvaluationRecipe,
    steps: u64,
    learning_rate: Option<f64>,
) -> TuneRecipe {
    let usual = TuneRecipe::default();
    TuneRecipe {
        steps: Some(steps),
        learning_rate: learning_rate.unwrap_or(usual.learning_rate),
        seed: wanted.seed,
        ..usual
    }
}

impl App {
    pub(super) fn tuned(
        &self,
        tasks: &EvaluationTasks<'_>,
        request: &Evaluation,
        progress: &dyn EvaluationProgress,
    ) -> Result<(Vec<f64>, TuningReport), EvaluationError> {
        let wanted = &request.recipe;
        let options = SessionOptions::on_threads(request.threads);
        let run = |phase: &'static str, tasks: &EvaluationTasks<'_>, learning_rate: f64| {
            let recipe = tune_recipe(wanted, wanted.tune_steps, Some(learning_rate));
            let accuracies = tasks.episodes.iter().enumerate().map(|(done, episode)| {
                report_progress(progress, phase, done, tasks.episodes.len())?;
                let EvaluationTasks {
                    images, positions, ..
                } = tasks;
                Ok(tuned_accuracy(
                    &self.backbone,
                    images,
                    positions,
                    episode,
                    &recipe,
                    options.clone(),
                )?)
            });
            accuracies.collect::<Result<Vec<f64>, EvaluationError>>()
        };
        let (learning_rate, from_validation) =
            match (wanted.tune_learning_rate, &request.validation) {
                (Some(given), _) => (given, false),
                (None, None) => (TuneRecipe::default().learning_rate, false),
                (None, Some(images)) => {
                    let positions = images.by_class();
                    let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
                    let episodes =
                        draw_episodes(&sizes, wanted.shape(), VALIDATION_TASKS, wanted.seed)?;
                    let tasks = EvaluationTasks {
                        images,
                        positions: &positions,
                        episodes: &episodes,
                        specs: &[],
                        cache: None,
                    };
                    let mut best = (LEARNING_RATES[0], f64::NEG_INFINITY);
                    for learning_rate in LEARNING_RATES {
                        let own = run("choosing a learning rate", &tasks, learning_rate)?;
                        let mean = accuracy(&own).mean;
                        if mean > best.1 {
                            best = (learning_rate, mean);
                        }
                    }
                    (best.0, true)
                }
            };
        let first = wanted.tune_tasks.min(tasks.episodes.len());
        let tasks = EvaluationTasks {
            episodes: &tasks.episodes[..first],
            ..*tasks
        };
        let accuracies = run("tuning on each task", &tasks, learning_rate)?;
        let report = TuningReport {
            steps: wanted.tune_steps,
            rank: TuneRecipe::default().rank,
            learning_rate,
            learning_rate_from_validation: from_validation,
        };
        Ok((accuracies, report))
    }
}
