//! The images of a task as the session takes them: pixels, or what the frozen first layers have made of them, and their tokens.

use super::member::{KeptAt, Taken, TaskSource};
use super::recipe::MetaTrainRecipe;
use super::tasks::{Task, Tasks};
use crate::random::{Purpose, generator};
use engine::augment::{AffineLimits, Colour, ColourLimits, recolour, warp};
use engine::operation::OperationError;
use engine::session::{Entry, Input};
use model::adapter::{Adapter, HeadInput};
use model::tensor::Tensor;
use rand::RngExt;
use rayon::prelude::*;

/// Images of one side and number of tokens.
pub(super) struct TaskBatch {
    values: Values,
    /// `[images·kept]`; `None` where all tokens enter, or have entered.
    tokens: Option<Vec<u32>>,
}

enum Values {
    /// `[images, 3, side, side]`
    Pixels(Tensor),
    /// As [`Entry::Pictures`].
    OnDevice {
        set: usize,
        numbers: Vec<u32>,
        mirrored: Vec<bool>,
    },
    /// `[images, kept, width]` before a layer
    Before(usize, Tensor),
}

/// A task's images, supports first, and what is known about them.
pub(super) struct TaskImages {
    pub taken: Vec<Taken>,
    pub supports: Vec<usize>,
    pub queries: Vec<usize>,
    /// `[queries, classes]`; `None` for a task of several adapters.
    pub teacher_logits: Option<Vec<f32>>,
}

impl TaskImages {
    /// `task` with each image as it is.
    pub fn of(task: &Task, tasks: &Tasks, sources: &[TaskSource]) -> Self {
        let mut taken = Vec::new();
        let mut labels = [Vec::new(), Vec::new()];
        for (part, labels) in labels.iter_mut().enumerate() {
            for (label, class) in task.classes.iter().enumerate() {
                let images = [&class.supports, &class.queries][part];
                let source = tasks.classes[class.class].source;
                labels.extend(std::iter::repeat_n(label, images.len()));
                taken.extend(images.iter().map(|&image| Taken {
                    source,
                    image,
                    is_mirrored: false,
                }));
            }
        }
        let [supports, queries] = labels;
        let teacher_logits = task.teacher.map(|source| {
            let logits = sources[source].pool().teacher_logits();
            let columns: Vec<usize> = task
                .classes
                .iter()
                .map(|class| tasks.classes[class.class].class)
                .collect();
            let queries = &taken[supports.len()..];
            queries
                .iter()
                .flat_map(|query| {
                    let row = logits.row(query.image);
                    columns.iter().map(|&column| row[column])
                })
                .collect()
        });
        Self {
            taken,
            supports,
            queries,
            teacher_logits,
        }
    }

    /// Mirrors images at random, as step `step` does.
    pub fn mirror(&mut self, recipe: &MetaTrainRecipe, step: u64) {
        let mut random = generator(recipe.seed, Purpose::Flips, step);
        for taken in &mut self.taken {
            taken.is_mirrored = random.random_bool(recipe.flip_probability);
        }
    }
}

impl TaskBatch {
    /// `taken`, which all have the side and the tokens of the first.
    pub fn of(
        taken: &[Taken],
        sources: &[TaskSource],
        first_layer: Option<usize>,
        table: &[[f32; 256]; 3],
    ) -> Self {
        let images = taken.len();
        let Some(first) = taken.first().map(|first| &sources[first.source]) else {
            return Self {
                values: Values::Pixels(Tensor::default()),
                tokens: None,
            };
        };
        if let Some(layer) = first_layer {
            let rows: Vec<f32> = taken
                .iter()
                .filter_map(|own| sources[own.source].prefix(own.image, own.is_mirrored))
                .flatten()
                .copied()
                .collect();
            let width = rows.len() / (images * first.kept);
            let values = Tensor::new([images, first.kept, width], rows);
            return Self {
                values: Values::Before(layer, values.unwrap_or_default()),
                tokens: None,
            };
        }
        let values = match first.kept_at {
            // Pictures of one side stay together.
            Some(KeptAt { set, .. }) => Values::OnDevice {
                set,
                numbers: taken
                    .iter()
                    .filter_map(|own| Some(sources[own.source].kept_at?.first + own.image as u32))
                    .collect(),
                mirrored: taken.iter().map(|own| own.is_mirrored).collect(),
            },
            None => {
                let side = first.side();
                let mut pixels = Tensor::zeros([images, 3, side, side]);
                let targets = pixels.data_mut().par_chunks_exact_mut(3 * side * side);
                targets.zip(taken).for_each(|(target, own)| {
                    sources[own.source].read(own.image, own.is_mirrored, table, target);
                });
                Values::Pixels(pixels)
            }
        };
        let tokens = taken
            .iter()
            .map(|own| sources[own.source].tokens(own.image, own.is_mirrored))
            .collect::<Option<Vec<_>>>();
        Self {
            values,
            tokens: tokens.map(|tokens| tokens.concat()),
        }
    }

    /// Changes the pixels at random, as step `step` does. Kept tokens stay where they were: the changes are small.
    pub fn augment(
        &mut self,
        recipe: &MetaTrainRecipe,
        step: u64,
        normalisation: ([f32; 3], [f32; 3]),
    ) -> Result<(), OperationError> {
        let Values::Pixels(pixels) = &mut self.values else {
            return Ok(());
        };
        let &[images, channels, height, width] = pixels.shape() else {
            return Ok(());
        };
        let shape = [images, channels, height, width];
        let mut random = generator(recipe.seed, Purpose::Augmentation, step);
        let mut changed = vec![0.0; pixels.data().len()];
        if recipe.affine {
            let limits = AffineLimits::default();
            let changes: Vec<_> = (0..images).map(|_| limits.draw(&mut random)).collect();
            warp(pixels.data(), shape, &changes, &mut changed)?;
            pixels.data_mut().copy_from_slice(&changed);
        }
        if recipe.colour || recipe.inversion_probability > 0.0 {
            let (gain, offset) = match recipe.colour {
                true => (ColourLimits::default().gain, ColourLimits::default().offset),
                false => (0.0, 0.0),
            };
            let limits = ColourLimits {
                gain,
                offset,
                inversion_probability: recipe.inversion_probability,
            };
            let changes: Vec<Colour> = (0..images).map(|_| limits.draw(&mut random)).collect();
            recolour(pixels.data(), shape, &changes, normalisation, &mut changed)?;
            pixels.data_mut().copy_from_slice(&changed);
        }
        Ok(())
    }

    pub fn input<'a>(&'a self, adapter: &'a Adapter) -> Input<'a> {
        let entry = match &self.values {
            Values::Pixels(pixels) => Entry::Pixels(pixels),
            Values::OnDevice {
                set,
                numbers,
                mirrored,
            } => Entry::Pictures {
                set: *set,
                numbers,
                mirrored,
            },
            Values::Before(layer, values) => Entry::Hidden {
                layer: *layer,
                values,
            },
        };
        Input {
            entry,
            tokens: self.tokens.as_deref(),
            adapter: Some(adapter),
            pruning: &[],
            read: HeadInput::Feature,
        }
    }
}
