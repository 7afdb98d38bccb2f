//! How well the student does on tasks of images that it does not learn from, always the same tasks, nothing mirrored: held-out
//! synthetic images, or real pictures of other classes where there are any.

use super::batch::{TaskBatch, TaskImages};
use super::loss::{EpisodeLabels, EpisodeLoss, Goal, episode_loss};
use super::member::Taken;
use super::recipe::{MetaTrainRecipe, Shots};
use super::{MetaTrainError, MetaTraining, diverged};
use crate::episode::{self as task, EpisodeError, EpisodeShape, draw_episodes};
use crate::labelled_images::{LabelledImages, normalise};
use engine::operation::OperationError;
use engine::session::{Input, Session, Wanted};
use model::adapter::Adapter;
use model::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Means over the validation tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
pub(super) fn goal<'e>(episode: &'e TaskImages, recipe: &MetaTrainRecipe) -> Goal<'e> {
    match &episode.teacher_logits {
        Some(logits) => Goal::Teacher {
            logits,
            temperature: recipe.temperature as f32,
        },
        None => Goal::Labels,
    }
}

/// Over tasks.
#[derive(Default)]
struct Sum {
    loss: f64,
    correct: usize,
    queries: usize,
}

impl Sum {
    fn add(&mut self, task: &EpisodeLoss, queries: usize) {
        self.loss += f64::from(task.loss);
        self.correct += task.correct;
        self.queries += queries;
    }

    fn mean(&self, episode: u64, tasks: usize) -> Validation {
        Validation {
            episode,
            loss: self.loss / tasks as f64,
            accuracy: self.correct as f64 / self.queries as f64,
        }
    }
}

/// Images that are encoded together.
const IMAGES_AT_ONCE: usize = 64;

impl MetaTrainRecipe {
    /// Validation tasks on real pictures, `sizes` of each class: as those that are learned from, as far as the pictures go.
    ///
    /// # Errors
    /// [`EpisodeError`] where they are too few.
    pub fn real_tasks(&self, sizes: &[usize]) -> Result<Vec<task::Episode>, EpisodeError> {
        let way = self.way.min(sizes.len());
        let shot = match self.shots {
            Shots::Fixed(shots) | Shots::Between([shots, _]) => shots,
        };
        let mut largest_first = sizes.to_vec();
        largest_first.sort_unstable_by(|a, b| b.cmp(a));
        let images = way.checked_sub(1).map_or(0, |last| largest_first[last]);
        let shape = EpisodeShape {
            way,
            shot,
            queries: self.queries.min(images.saturating_sub(shot)).max(1),
        };
        draw_episodes(sizes, shape, self.validation_tasks, self.seed)
    }
}

/// Real pictures, and the tasks on them.
pub(super) struct RealTasks {
    images: LabelledImages,
    /// Of the images of each class.
    positions: Vec<Vec<usize>>,
    episodes: Vec<task::Episode>,
}

impl RealTasks {
    pub fn new(images: LabelledImages, recipe: &MetaTrainRecipe) -> Result<Self, MetaTrainError> {
        let positions = images.by_class();
        let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
        Ok(Self {
            episodes: recipe.real_tasks(&sizes)?,
            images,
            positions,
        })
    }

    /// `[images, width]`, of all tokens.
    fn features(
        &self,
        session: &mut Session,
        student: &Adapter,
        table: &[[f32; 256]; 3],
    ) -> Result<Vec<Vec<f32>>, OperationError> {
        let side = self.images.image_size();
        let all: Vec<usize> = (0..self.images.len()).collect();
        let mut features = Vec::with_capacity(all.len());
        for part in all.chunks(IMAGES_AT_ONCE) {
            let mut pixels = Tensor::zeros([part.len(), 3, side, side]);
            let targets = pixels.data_mut().chunks_exact_mut(3 * side * side);
            for (&image, target) in part.iter().zip(targets) {
                normalise(self.images.levels(image), table, target);
            }
            let input = Input {
                adapter: Some(student),
                ..Input::pixels(&pixels)
            };
            let output = session.forward(&input, Wanted::default())?;
            features.extend((0..part.len()).map(|row| output.features.row(row).to_vec()));
        }
        Ok(features)
    }
}

impl MetaTraining {
    /// Validates on few-shot tasks from `images` in place of held-out synthetic ones, with the labels as the goal. To be called
    /// before the first step.
    ///
    /// # Errors
    /// [`MetaTrainError`] where the pictures are too few or do not fit the backbone.
    pub fn validated_on(mut self, images: LabelledImages) -> Result<Self, MetaTrainError> {
        let config = self.session.config();
        if config.grid(images.image_size()).is_none() {
            return Err(MetaTrainError::ImageSize {
                label: "validation".into(),
                found: images.image_size(),
                patch: config.patch_size,
            });
        }
        self.real_tasks = Some(RealTasks::new(images, &self.recipe)?);
        Ok(self)
    }

    /// Whether there is anything to validate on.
    pub(super) fn is_validated(&self) -> bool {
        self.real_tasks.is_some() || !self.validation_tasks.is_empty()
    }

    /// Takes the validation loss of what the result would be now and keeps it where it is the best.
    pub(super) fn validate(&mut self) -> Result<Vec<(&'static str, f64)>, MetaTrainError> {
        let student = self.with_values(self.result_values());
        let validation = match self.real_tasks.take() {
            Some(real) => {
                let validation = self.validation_on(&real, &student);
                self.real_tasks = Some(real);
                validation
            }
            None => self.validation_of(&student),
        };
        let validation = validation.map_err(diverged)?;
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

    fn validation_on(
        &mut self,
        real: &RealTasks,
        student: &Adapter,
    ) -> Result<Validation, OperationError> {
        let features = real.features(&mut self.session, student, &self.table)?;
        let mut sum = Sum::default();
        for episode in &real.episodes {
            let part = |images: fn(&task::EpisodeClass) -> &[usize]| {
                let classes = episode.iter().enumerate();
                let all = classes.flat_map(|(label, class)| {
                    let own = images(class).iter();
                    own.map(move |&image| (label, real.positions[class.class][image]))
                });
                all.collect::<Vec<_>>()
            };
            let supports = part(|class| &class.supports);
            let queries = part(|class| &class.queries);
            let images = supports.iter().chain(&queries);
            let of_task = images.flat_map(|&(_, image)| &features[image]);
            let of_task: Vec<f32> = of_task.copied().collect();
            let labels = |images: &[(usize, usize)]| -> Vec<usize> {
                images.iter().map(|&(label, _)| label).collect()
            };
            let labels = EpisodeLabels {
                classes: episode.len(),
                supports: &labels(&supports),
                queries: &labels(&queries),
            };
            let own = episode_loss(&mut self.scoring, &of_task, labels, Goal::Labels, None)?;
            sum.add(&own, queries.len());
        }
        Ok(sum.mean(self.steps_done, real.episodes.len()))
    }

    fn validation_of(&mut self, student: &Adapter) -> Result<Validation, OperationError> {
        let features = self.held_out_features(student)?;
        let mut sum = Sum::default();
        for task in &self.validation_tasks {
            let episode = TaskImages::of(task, &self.tasks, &self.sources);
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
            let own = episode_loss(&mut self.scoring, &of_task, labels, goal, None)?;
            sum.add(&own, episode.queries.len());
        }
        Ok(sum.mean(self.steps_done, self.validation_tasks.len()))
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
                let batch = TaskBatch::of(part, &self.sources, self.first_layer, &self.table);
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
