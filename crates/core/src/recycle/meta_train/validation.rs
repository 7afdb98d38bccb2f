//! How well the student does on tasks of images that it does not learn from, always the same tasks, nothing mirrored.

use super::batch::{Batch, Episode};
use super::loss::{EpisodeLabels, Goal, episode_loss};
use super::member::Taken;
use super::recipe::MetaTrainRecipe;
use super::{MetaTrainError, MetaTraining, astray};
use crate::adapter::Adapter;
use crate::engine::operation::OperationError;
use crate::engine::session::Wanted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Means over the validation tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Validation {
    /// Episodes before it.
    pub episode: u64,
    /// The same loss as in training.
    pub loss: f64,
    /// From 0 to 1.
    pub accuracy: f64,
}

impl Validation {
    pub(super) fn flat(all: &[Self]) -> Vec<f64> {
        let values = |own: &Self| [own.episode as f64, own.loss, own.accuracy];
        all.iter().flat_map(values).collect()
    }

    pub(super) fn read(values: &[f64]) -> Option<Vec<Self>> {
        let (rows, rest) = values.as_chunks::<3>();
        rest.is_empty().then(|| {
            let read = |&[episode, loss, accuracy]: &[f64; 3]| Self {
                episode: episode as u64,
                loss,
                accuracy,
            };
            rows.iter().map(read).collect()
        })
    }
}

/// What the scores of `episode` should be.
pub(super) fn goal<'e>(episode: &'e Episode, recipe: &MetaTrainRecipe) -> Goal<'e> {
    match &episode.teacher_logits {
        Some(logits) => Goal::Teacher {
            logits,
            temperature: recipe.temperature as f32,
        },
        None => Goal::Labels,
    }
}

/// Images that are encoded together.
const IMAGES_AT_ONCE: usize = 64;

impl MetaTraining {
    /// Takes the validation loss of what the result would be now and keeps it where it is the best.
    pub(super) fn validate(&mut self) -> Result<Vec<(&'static str, f64)>, MetaTrainError> {
        let student = self.with_values(self.result_values());
        let validation = self.validation_of(&student).map_err(astray)?;
        let best = self.validations.iter().map(|own| own.loss);
        let best = best.fold(f64::INFINITY, f64::min);
        if self.best.is_none() || validation.loss < best {
            self.best = Some(self.result_values().to_vec());
        }
        self.validations.push(validation);
        Ok(vec![
            ("validation_loss", validation.loss),
            ("validation_accuracy", validation.accuracy),
        ])
    }

    fn validation_of(&mut self, student: &Adapter) -> Result<Validation, OperationError> {
        let features = self.held_out_features(student)?;
        let (mut loss, mut correct, mut queries) = (0.0, 0, 0);
        for task in &self.validation_tasks {
            let episode = Episode::of(task, &self.tasks, &self.sources);
            let of_task: Vec<f32> = episode
                .taken
                .iter()
                .filter_map(|own| features.get(&(own.source, own.image)))
                .flatten()
                .copied()
                .collect();
            let labels = EpisodeLabels {
                classes: task.classes.len(),
                supports: &episode.supports,
                queries: &episode.queries,
            };
            let goal = goal(&episode, &self.recipe);
            let own = episode_loss(&mut self.prototypes, &of_task, labels, goal, None)?;
            loss += f64::from(own.loss);
            correct += own.correct;
            queries += episode.queries.len();
        }
        Ok(Validation {
            episode: self.steps_done,
            loss: loss / self.validation_tasks.len() as f64,
            accuracy: correct as f64 / queries as f64,
        })
    }

    /// Features by source and image of all held-out images.
    fn held_out_features(
        &mut self,
        student: &Adapter,
    ) -> Result<BTreeMap<(usize, usize), Vec<f32>>, OperationError> {
        let mut features = BTreeMap::new();
        for source in 0..self.sources.len() {
            let own = self.tasks.classes.iter().filter(|own| own.source == source);
            let taken: Vec<Taken> = own
                .flat_map(|class| &class.held_out)
                .map(|&image| Taken {
                    source,
                    image,
                    is_mirrored: false,
                })
                .collect();
            for part in taken.chunks(IMAGES_AT_ONCE) {
                let batch = Batch::of(part, &self.sources, self.first_layer, &self.table);
                let output = self
                    .session
                    .forward(&batch.input(student), Wanted::default())?;
                for (row, own) in part.iter().enumerate() {
                    let feature = output.features.row(row).to_vec();
                    features.insert((own.source, own.image), feature);
                }
            }
        }
        Ok(features)
    }
}
