//! A LoRA tuned for each task, as somebody would who has no meta-LoRA.

use super::report::TuningReport;
use super::{Evaluation, EvaluationError, Progress, TaskTuning, Tasks, told};
use crate::app::App;
use crate::engine::session::SessionOptions;
use crate::recycle::episode::draw_episodes;
use crate::recycle::evaluate::{accuracy, tuned_accuracy};
use crate::recycle::tune::TuneRecipe;

/// Learning rates that are tried on validation tasks, and on how many.
const LEARNING_RATES: [f64; 3] = [3e-4, 1e-3, 3e-3];
const VALIDATION_TASKS: usize = 10;

impl App {
    pub(super) fn tuned(
        &self,
        tasks: &Tasks<'_>,
        request: &Evaluation,
        progress: Progress<'_>,
    ) -> Result<(Vec<f64>, TuningReport), EvaluationError> {
        let TaskTuning {
            steps, validation, ..
        } = &request.tuning;
        let options = SessionOptions {
            threads: request.tuning.threads,
            ..SessionOptions::default()
        };
        let recipe = |learning_rate| TuneRecipe {
            steps: Some(*steps),
            learning_rate,
            seed: request.seed,
            ..TuneRecipe::default()
        };
        let run = |phase: &'static str, tasks: &Tasks<'_>, learning_rate: f64| {
            let recipe = recipe(learning_rate);
            let accuracies = tasks.episodes.iter().enumerate().map(|(done, episode)| {
                told(progress, phase, done, tasks.episodes.len())?;
                let Tasks {
                    images, positions, ..
                } = tasks;
                Ok(tuned_accuracy(
                    &self.backbone,
                    images,
                    positions,
                    episode,
                    &recipe,
                    options,
                )?)
            });
            accuracies.collect::<Result<Vec<f64>, EvaluationError>>()
        };
        let (learning_rate, from_validation) = match (request.tuning.learning_rate, validation) {
            (Some(given), _) => (given, false),
            (None, None) => (TuneRecipe::default().learning_rate, false),
            (None, Some(images)) => {
                let positions = images.by_class();
                let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
                let episodes =
                    draw_episodes(&sizes, request.shape, VALIDATION_TASKS, request.seed)?;
                let tasks = Tasks {
                    images,
                    positions: &positions,
                    episodes: &episodes,
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
        let first = request.tuning.tasks.min(tasks.episodes.len());
        let tasks = Tasks {
            episodes: &tasks.episodes[..first],
            ..*tasks
        };
        let accuracies = run("tuning on each task", &tasks, learning_rate)?;
        let report = TuningReport {
            steps: *steps,
            rank: TuneRecipe::default().rank,
            learning_rate,
            learning_rate_from_validation: from_validation,
        };
        Ok((accuracies, report))
    }
}
