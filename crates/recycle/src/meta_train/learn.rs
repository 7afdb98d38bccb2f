//! The steps: preparing the images, learning the merge coefficients, learning the student.

use super::batch::{TaskBatch, TaskImages};
use super::loss::{
    EpisodeLabels, EpisodeLoss, EpisodeScores, entropy_gradients, episode_gradients,
};
use super::recipe::{CoefficientObjective, MetaTrainRecipe};
use super::tasks::Task;
use super::{MetaTrainError, MetaTraining, diverged, start, validation};
use crate::fresh_adapter::{pair_values, set_pair_values};
use crate::steps::StepReport;
use engine::operation::OperationError;
use engine::session::{Gradients, Session};
use model::adapter::Adapter;
use std::collections::BTreeSet;

/// Draws of the tasks that merge coefficients are learned on begin here, far after those of the student.
const COEFFICIENT_TASKS: u64 = 1 << 40;

impl MetaTraining {
    /// Whether the merge coefficients need no more steps.
    pub(super) fn has_coefficients(&self) -> bool {
        let steps = self
            .recipe
            .merge_coefficients
            .map_or(0, |recipe| recipe.steps);
        let learning = self.coefficients.as_ref();
        learning.is_none_or(|learning| learning.steps_done >= steps)
    }

    /// Whether the student has been validated before its first step, where it is validated at all.
    pub(super) fn has_begun(&self) -> bool {
        !self.is_validated() || !self.validations.is_empty()
    }

    /// Which draw the newest task was; `None` before the first.
    pub(super) fn newest_position(&self) -> Option<u64> {
        let of_coefficients = self.coefficients.as_ref().map_or(0, |own| own.steps_done);
        let own = self.steps_done.checked_sub(1);
        own.or_else(|| Some(COEFFICIENT_TASKS + of_coefficients.checked_sub(1)?))
    }

    pub(super) fn prepare(&mut self) -> Result<StepReport, MetaTrainError> {
        let (source, first) = self.preparations[self.prepared];
        self.sources[source].prepare(&mut self.session, &self.table, first, self.first_layer)?;
        self.prepared += 1;
        Ok(StepReport {
            phase: "preparing the images",
            step: self.prepared as u64,
            total: self.preparations.len() as u64,
            figures: vec![],
        })
    }

    pub(super) fn report(&self, figures: Vec<(&'static str, f64)>) -> StepReport {
        StepReport {
            phase: "meta-training",
            step: self.steps_done,
            total: self.recipe.episodes,
            figures,
        }
    }

    /// The task of draw `position`; of one adapter where its entropy is what merge coefficients are learned from.
    pub(super) fn task(&self, position: u64) -> Task {
        let is_entropy = self.recipe.learns_from_entropy();
        match is_entropy && position >= COEFFICIENT_TASKS {
            true => self.tasks.of_one_adapter(&self.recipe, position),
            false => self.tasks.training(&self.recipe, position),
        }
    }

    /// Task `position` with its images as they are changed for it.
    fn draw(&self, position: u64) -> Result<(Task, TaskImages, TaskBatch), OperationError> {
        let task = self.task(position);
        let mut episode = TaskImages::of(&task, &self.tasks, &self.sources);
        episode.mirror(&self.recipe, position);
        let mut batch = TaskBatch::of(&episode.taken, &self.sources, self.first_layer, &self.table);
        if self.recipe.changes_pixels() {
            batch.augment(&self.recipe, position, self.normalisation)?;
        }
        Ok((task, episode, batch))
    }

    pub(super) fn learn_coefficients(&mut self) -> Result<StepReport, MetaTrainError> {
        let (Some(recipe), Some(steps_done)) = (
            self.recipe.merge_coefficients,
            self.coefficients.as_ref().map(|own| own.steps_done),
        ) else {
            return Ok(self.report(vec![]));
        };
        let (task, episode, batch) = self
            .draw(COEFFICIENT_TASKS + steps_done)
            .map_err(diverged)?;
        let mut left_out: Vec<usize> = Vec::new();
        if recipe.leave_one_out {
            let own: BTreeSet<usize> = episode.taken.iter().map(|own| own.source).collect();
            // A sum of nothing has nothing to learn.
            if own.len() < self.sources.len() {
                left_out.extend(own);
            }
        }
        let Self {
            session,
            scoring,
            sources,
            coefficients: Some(learning),
            ..
        } = self
        else {
            return Ok(self.report(vec![]));
        };
        let student = learning.student(&left_out);
        let rate = recipe.learning_rate;
        let head = match recipe.objective {
            CoefficientObjective::Episodes => None,
            CoefficientObjective::Entropy => task
                .teacher
                .and_then(|source| sources[source].member.adapter.head.as_ref()),
        };
        let (figures, gradients) = match head {
            Some(head) => {
                let (loss, gradients) =
                    entropy_gradients(session, &batch.input(student), head).map_err(diverged)?;
                let loss = f64::from(loss);
                let figures = vec![("loss", loss), ("entropy", loss), ("learning_rate", rate)];
                (figures, gradients)
            }
            None => {
                let (loss, gradients) = task_gradients(
                    session,
                    scoring,
                    &self.recipe,
                    (&task, &episode, &batch),
                    student,
                )
                .map_err(diverged)?;
                (figures(&loss, &task, &episode, rate), gradients)
            }
        };
        learning
            .step(gradients, &left_out, rate)
            .map_err(diverged)?;
        let step = learning.steps_done;
        if step == recipe.steps {
            let learned = &*learning;
            let coefficient = |source, layer| learned.coefficient(source, layer);
            start::take_sum(
                &mut self.student,
                &self.sources,
                self.recipe.rank,
                coefficient,
            )?;
            self.values = pair_values(&self.student);
            self.average = self.average.take().map(|_| self.values.clone());
        }
        Ok(StepReport {
            phase: "learning merge coefficients",
            step,
            total: recipe.steps,
            figures,
        })
    }

    pub(super) fn learn(&mut self) -> Result<StepReport, MetaTrainError> {
        let step = self.steps_done;
        let (task, episode, batch) = self.draw(step).map_err(diverged)?;
        let (loss, gradients) = task_gradients(
            &mut self.session,
            &mut self.scoring,
            &self.recipe,
            (&task, &episode, &batch),
            &self.student,
        )
        .map_err(diverged)?;
        let gradient: Vec<f32> = gradients
            .pairs
            .values()
            .flat_map(|own| own.da.data().iter().chain(own.db.data()).copied())
            .collect();
        let rate = self.recipe.schedule().learning_rate(step);
        self.adam
            .step(&mut self.values, &gradient, rate)
            .map_err(diverged)?;
        set_pair_values(&mut self.student, &self.values);
        if let (Some(average), Some(decay)) = (&mut self.average, self.recipe.moving_average) {
            for (average, &value) in average.iter_mut().zip(&self.values) {
                *average = (f64::from(*average) * decay + f64::from(value) * (1.0 - decay)) as f32;
            }
        }
        self.steps_done += 1;
        self.loss_curve.push(f64::from(loss.loss));
        let mut figures = figures(&loss, &task, &episode, rate);
        let is_last = self.steps_done == self.recipe.episodes;
        if self.is_validated()
            && (is_last || self.steps_done.is_multiple_of(self.recipe.validate_every()))
        {
            figures.extend(self.validate()?);
        }
        Ok(self.report(figures))
    }
}

/// Loss of a task, and its gradient at the low-rank pairs of `student`.
fn task_gradients<'s>(
    session: &'s mut Session,
    scoring: &mut EpisodeScores,
    recipe: &MetaTrainRecipe,
    (task, episode, batch): (&Task, &TaskImages, &TaskBatch),
    student: &Adapter,
) -> Result<(EpisodeLoss, &'s Gradients), OperationError> {
    let labels = EpisodeLabels {
        classes: task.classes.len(),
        supports: &episode.supports,
        queries: &episode.queries,
    };
    let goal = validation::goal(episode, recipe);
    episode_gradients(session, &batch.input(student), scoring, labels, goal)
}

fn figures(
    loss: &EpisodeLoss,
    task: &Task,
    episode: &TaskImages,
    rate: f64,
) -> Vec<(&'static str, f64)> {
    let kind = match task.teacher {
        Some(_) => "divergence",
        None => "cross_entropy",
    };
    let accuracy = loss.correct as f64 / episode.queries.len() as f64;
    vec![
        ("loss", f64::from(loss.loss)),
        (kind, f64::from(loss.loss)),
        ("accuracy", accuracy),
        ("learning_rate", rate),
    ]
}
