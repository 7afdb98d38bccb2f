//! The images of a task as the session takes them: pixels, or what the frozen first layers have made of them, and their tokens.

use super::member::{Taken, TaskSource};
use super::recipe::MetaTrainRecipe;
use super::tasks::{Task, Tasks};
use crate::random::{Purpose, generator};
use engine::augment::{AffineLimits, Colour, ColourLimits, recolour, warp};
use engine::operation::OperationError;
use engine::session::{Entry, Input};
use model::adapter::Adapter;
use model::tensor::Tensor;
use rand::RngExt;
use rayon::prelude::*;

/// Images of one side and number of tokens.
pub(super) struct TaskBatch {
    /// `[images, 3, side, side]`, or `[images, kept, width]` before `first_layer`.
    values: Tensor,
    first_layer: Option<usize>,
    /// `[images·kept]`; `None` where all tokens enter, or have entered.
    tokens: Option<Vec<u32>>,
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
                values: Tensor::default(),
                first_layer,
                tokens: None,
            };
        };
        if first_layer.is_some() {
            let rows: Vec<f32> = taken
                .iter()
                .filter_map(|own| sources[own.source].prefix(own.image, own.is_mirrored))
                .flatten()
                .copied()
                .collect();
            let width = rows.len() / (images * first.kept);
            let values = Tensor::new([images, first.kept, width], rows);
            return Self {
                values: values.unwrap_or_default(),
                first_layer,
                tokens: None,
            };
        }
        let side = first.side();
        let mut values = Tensor::zeros([images, 3, side, side]);
        let targets = values.data_mut().par_chunks_exact_mut(3 * side * side);
        targets.zip(taken).for_each(|(target, own)| {
            sources[own.source].read(own.image, own.is_mirrored, table, target);
        });
        let tokens = taken
            .iter()
            .map(|own| sources[own.source].tokens(own.image, own.is_mirrored))
            .collect::<Option<Vec<_>>>();
        Self {
            values,
            first_layer: None,
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
        let (None, &[images, channels, height, width]) = (self.first_layer, self.values.shape())
        else {
            return Ok(());
        };
        let shape = [images, channels, height, width];
        let mut random = generator(recipe.seed, Purpose::Augmentation, step);
        let mut changed = vec![0.0; self.values.data().len()];
        if recipe.affine {
            let limits = AffineLimits::default();
            let changes: Vec<_> = (0..images).map(|_| limits.draw(&mut random)).collect();
            warp(self.values.data(), shape, &changes, &mut changed)?;
            self.values.data_mut().copy_from_slice(&changed);
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
            recolour(
                self.values.data(),
                shape,
                &changes,
                normalisation,
                &mut changed,
            )?;
            self.values.data_mut().copy_from_slice(&changed);
        }
        Ok(())
    }

    pub fn input<'a>(&'a self, adapter: &'a Adapter) -> Input<'a> {
        let entry = match self.first_layer {
            Some(layer) => Entry::Hidden {
                layer,
                values: &self.values,
            },
            None => Entry::Pixels(&self.values),
        };
        Input {
            entry,
            tokens: self.tokens.as_deref(),
            adapter: Some(adapter),
            ..Input::pixels(&self.values)
        }
    }
}
