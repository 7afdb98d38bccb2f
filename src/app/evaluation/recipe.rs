//! What somebody chooses of an evaluation; what is not chosen has a default.

use super::{Evaluation, Method, MethodKind, TaskTuning};
use crate::recycle::episode::EpisodeShape;
use crate::recycle::prototype::Distance;
use serde::{Deserialize, Serialize};

/// Which methods, and on which tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationRecipe {
    /// Without any: the adapters and the average of the pool where they are named, and the bare backbone.
    pub methods: Vec<Method>,
    pub way: usize,
    pub shot: usize,
    /// Queries a class.
    pub queries: usize,
    pub tasks: usize,
    pub seed: u64,
    pub distance: Distance,
    pub merge_rank: Option<usize>,
    /// Chooses the factors of all merges on synthetic tasks, not the sum's alone.
    pub choose_factors: bool,
    /// The method that differences are taken to; `bare` where it is compared, else the first.
    pub against: Option<MethodKind>,
    /// Most tasks of `tune`.
    pub tune_tasks: usize,
    /// Optimiser steps a task of `tune`.
    pub tune_steps: u64,
    pub tune_learning_rate: Option<f64>,
}

impl Default for EvaluationRecipe {
    fn default() -> Self {
        Self {
            methods: Vec::new(),
            way: 5,
            shot: 1,
            queries: 15,
            tasks: 600,
            seed: 0,
            distance: Distance::default(),
            merge_rank: None,
            choose_factors: false,
            against: None,
            tune_tasks: 20,
            tune_steps: 60,
            tune_learning_rate: None,
        }
    }
}

impl EvaluationRecipe {
    pub fn shape(&self) -> EpisodeShape {
        EpisodeShape {
            way: self.way,
            shot: self.shot,
            queries: self.queries,
        }
    }

    /// The evaluation of these adapters, and of merges of the pool.
    pub fn evaluation(
        &self,
        adapters: Vec<String>,
        pool: Vec<String>,
        threads: usize,
    ) -> Evaluation {
        let mut methods = self.methods.clone();
        if methods.is_empty() {
            let kinds = [
                (MethodKind::Adapter, !adapters.is_empty()),
                (MethodKind::Bare, true),
                (MethodKind::Average, !pool.is_empty()),
            ];
            let kinds = kinds.into_iter().filter(|(_, is_meant)| *is_meant);
            methods.extend(kinds.map(|(kind, _)| Method::from(kind)));
        }
        Evaluation {
            shape: self.shape(),
            tasks: self.tasks,
            seed: self.seed,
            distance: self.distance,
            methods,
            adapters,
            candidates: Vec::new(),
            pool,
            merge_rank: self.merge_rank,
            choose_factors: self.choose_factors,
            against: self.against,
            tuning: TaskTuning {
                tasks: self.tune_tasks,
                steps: self.tune_steps,
                learning_rate: self.tune_learning_rate,
                validation: None,
                threads,
            },
        }
    }
}
