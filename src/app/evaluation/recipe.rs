//! The choices of an evaluation, each with a default.

use super::{Method, MethodKind};
use engine::distance::Distance;
use recycle::episode::EpisodeShape;
use recycle::head::HeadChoice;
use recycle::head::copies::CopySpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Which methods, and on which tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(default)]
pub struct EvaluationRecipe {
    /// Names of methods, a merge optionally with its scale: `sum:0.33`. Without any: the adapters and the average of the pool where they
    /// are named, and the bare backbone.
    pub methods: Vec<Method>,
    /// Classes in a task.
    #[schema(minimum = 2)]
    pub way: usize,
    /// Support images per class.
    #[schema(minimum = 1)]
    pub shot: usize,
    /// Queries per class.
    #[schema(minimum = 1)]
    pub queries: usize,
    /// Random tasks.
    #[schema(minimum = 1)]
    pub tasks: usize,
    /// The same seed draws the same tasks.
    pub seed: u64,
    /// How the head `nearest-mean` compares features.
    pub distance: Distance,
    /// What reads the features; each method is measured with each of them.
    #[schema(default = json!(["auto"]))]
    pub heads: Vec<HeadChoice>,
    /// Also says how sure the answers are.
    pub certainty: bool,
    /// Rank of merges; left out, what is exact.
    pub merge_rank: Option<usize>,
    /// Chooses the scales of all merges on synthetic tasks, not the sum's alone.
    #[serde(alias = "choose_factors")] // old spelling
    pub choose_scales: bool,
    /// The method that differences are taken to; `bare` where it is compared, else the first.
    pub against: Option<MethodKind>,
    /// Also says what each adapter of the pool adds to the sum of all.
    pub leave_one_out: bool,
    /// Most tasks of `tune`: each takes seconds to minutes.
    pub tune_tasks: usize,
    /// Optimiser steps of `tune` per task.
    pub tune_steps: u64,
    /// The best of a few on validation pictures where it is not given and there are some, else 1e-3.
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
            heads: vec![HeadChoice::default()],
            certainty: false,
            merge_rank: None,
            choose_scales: false,
            against: None,
            leave_one_out: false,
            tune_tasks: 20,
            tune_steps: 60,
            tune_learning_rate: None,
        }
    }
}

impl EvaluationRecipe {
    /// Of its tasks.
    pub fn shape(&self) -> EpisodeShape {
        EpisodeShape {
            way: self.way,
            shot: self.shot,
            queries: self.queries,
        }
    }

    /// The copies that its heads need of each picture.
    pub(super) fn copy_specs(&self) -> Vec<CopySpec> {
        let specs = self.heads.iter().flat_map(|head| head.copy_specs());
        specs.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether the scale of this merge is chosen on synthetic tasks.
    pub(super) fn chooses_scale(&self, method: Method) -> bool {
        let applies = method.kind == MethodKind::SUM || self.choose_scales;
        applies && method.kind.takes_scale() && method.scale.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_recipe_of_an_earlier_version_is_read() {
        let then =
            json!({"methods": ["core:1.4", "linear"], "choose_factors": true, "against": "ctm"}); // old spelling
        let recipe: EvaluationRecipe = serde_json::from_value(then).expect("a recipe");
        assert!(recipe.choose_scales);
        let today = json!(recipe);
        assert_eq!(today["methods"], json!(["core-space:1.4", "linear"]));
        assert_eq!(today["against"], "compress-then-merge");
    }
}
