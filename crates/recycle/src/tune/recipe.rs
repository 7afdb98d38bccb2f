//! How an adapter is tuned.

use crate::layers::Layers;
use crate::recipe::{self, Preset, Problems, RecipeError};
use engine::session::Arithmetic;
use model::adapter::Target;
use model::backbone::BackboneConfig;
use serde::{Deserialize, Serialize};

/// How a LoRA and its head are tuned on labelled pictures. Every field may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TuneRecipe {
    /// Rank of each low-rank pair.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub rank: usize,
    /// The change is scaled by `alpha / rank`; left out, `alpha` is the rank.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub alpha: Option<f64>,
    /// `"all"`, `"last-6"`, `"last-6-at-most"` or a list of 0-based numbers.
    pub layers: Layers,
    /// Linear maps of a layer that are adapted.
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub targets: Vec<Target>,
    /// Optimiser steps; left out, 60, or what `epochs` says.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000_000))]
    pub steps: Option<u64>,
    /// Passes over the pictures, instead of `steps`.
    #[cfg_attr(
        feature = "openapi",
        schema(exclusive_minimum = 0, maximum = 1_000_000)
    )]
    pub epochs: Option<f64>,
    /// Pictures per step; all of them where there are fewer.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 4096))]
    pub batch_size: usize,
    /// Of the low-rank pairs.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub learning_rate: f64,
    /// Of the head, which reads features scaled to a mean length of 20 while it is tuned.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub head_learning_rate: f64,
    /// Share of pictures that are mirrored.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub flip_probability: f64,
    /// Share of each class that is held out to measure the adapter on.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, exclusive_maximum = 1))]
    pub held_out: f64,
    /// Stop when the held-out pictures are not recognised any better; the best state found is the result.
    pub early_stop: Option<TuneEarlyStop>,
    /// The same seed gives the same adapter, on the same number of threads.
    pub seed: u64,
    /// What computes it, of which the last bits depend; left out, the device that the program computes jobs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Arithmetic>,
}

/// When tuning stops before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(default))]
#[serde(default, deny_unknown_fields)]
pub struct TuneEarlyStop {
    /// Steps between two looks at the held-out pictures.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub check_every: u64,
    /// Looks without a lower cross-entropy after which it stops.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub patience: u64,
}

impl Default for TuneEarlyStop {
    fn default() -> Self {
        Self {
            check_every: 10,
            patience: 3,
        }
    }
}

const DEFAULT_STEPS: u64 = 60;

impl Default for TuneRecipe {
    fn default() -> Self {
        Self {
            rank: 4,
            alpha: None,
            layers: Layers::All,
            targets: vec![Target::Query, Target::Value],
            steps: None,
            epochs: None,
            batch_size: 64,
            learning_rate: 1e-3,
            head_learning_rate: 1e-2,
            flip_probability: 0.5,
            held_out: 0.2,
            early_stop: None,
            seed: 0,
            arithmetic: None,
        }
    }
}

/// Largest count that a recipe may name: far above what is of use, far below what overflows.
pub(crate) const MOST_STEPS: u64 = 10_000_000;

impl TuneRecipe {
    /// The recipes that have a name.
    pub const PRESETS: [Preset<Self>; 1] = [Preset::new("default", Self::default)];

    /// Reads a recipe from JSON; what is left out is the default.
    ///
    /// # Errors
    /// [`RecipeError`] for an unknown field or a value of another type.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, RecipeError> {
        recipe::read(json, &Self::PRESETS)
    }

    /// Checks everything that does not depend on the pictures.
    ///
    /// # Errors
    /// [`RecipeError::Problems`] with all of them.
    pub fn validate(&self, backbone: &BackboneConfig) -> Result<(), RecipeError> {
        let mut problems = Problems::default();
        let widest = backbone.width;
        problems.check((1..=widest).contains(&self.rank), || {
            format!("rank is {}; it must be from 1 to {widest}", self.rank)
        });
        if let Some(alpha) = self.alpha {
            problems.positive("alpha", alpha);
        }
        if let Err(problem) = self.layers.resolve(backbone.layers) {
            problems.add(problem);
        }
        problems.check(!self.targets.is_empty(), || {
            "targets is empty; name at least one, such as query and value".into()
        });
        problems.check(self.steps.is_none() || self.epochs.is_none(), || {
            "steps and epochs are both given; leave one out".into()
        });
        if let Some(steps) = self.steps {
            problems.check((1..=MOST_STEPS).contains(&steps), || {
                format!("steps is {steps}; it must be from 1 to {MOST_STEPS}")
            });
        }
        if let Some(epochs) = self.epochs {
            let holds = epochs > 0.0 && epochs <= 1e6;
            problems.within("epochs", epochs, holds, "above 0 and up to 1000000");
        }
        problems.check((1..=4096).contains(&self.batch_size), || {
            format!(
                "batch_size is {}; it must be from 1 to 4096",
                self.batch_size
            )
        });
        problems.positive("learning_rate", self.learning_rate);
        problems.positive("head_learning_rate", self.head_learning_rate);
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let flip = self.flip_probability;
        problems.within("flip_probability", flip, share(flip), "from 0 to 1");
        let holds = (0.0..1.0).contains(&self.held_out);
        problems.within("held_out", self.held_out, holds, "from 0 to below 1");
        if let Some(stop) = self.early_stop {
            problems.check(stop.check_every > 0 && stop.patience > 0, || {
                "check_every and patience of early_stop must be at least 1".into()
            });
            problems.check(self.held_out > 0.0, || {
                "early_stop needs held-out pictures, but held_out is 0".into()
            });
        }
        problems.finish()
    }

    /// Steps in all for this many pictures to learn from.
    pub fn total_steps(&self, pictures: usize) -> u64 {
        match (self.steps, self.epochs) {
            (Some(steps), _) => steps,
            (None, Some(epochs)) => {
                let batch = self.batch_size.min(pictures).max(1);
                let steps = (epochs * pictures as f64 / batch as f64).ceil();
                (steps as u64).clamp(1, MOST_STEPS)
            }
            (None, None) => DEFAULT_STEPS,
        }
    }

    /// `alpha / rank`
    pub fn scale(&self) -> f32 {
        (self.alpha.unwrap_or(self.rank as f64) / self.rank as f64) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::backbone::embedded_config;
    use serde_json::json;

    #[test]
    fn a_recipe_reads_over_the_defaults_and_refuses_unknown_fields() {
        let recipe = TuneRecipe::from_json(&json!({"rank": 8, "layers": "last-6"})).unwrap();
        assert_eq!(recipe.layers, Layers::Last(6));
        assert_eq!((recipe.rank, recipe.scale()), (8, 1.0));
        assert_eq!(recipe.batch_size, TuneRecipe::default().batch_size);
        let error = TuneRecipe::from_json(&json!({"ranks": 8})).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `ranks`"),
            "{error}"
        );
        assert!(TuneRecipe::from_json(&json!([1])).is_err());
        assert_eq!(
            TuneRecipe::from_json(&json!({"preset": "best"}))
                .unwrap_err()
                .to_string(),
            "the preset \"best\" is not known; known are default"
        );
        let written = serde_json::to_value(TuneRecipe::default()).unwrap();
        assert_eq!(
            TuneRecipe::from_json(&written).unwrap(),
            TuneRecipe::default()
        );
    }

    #[test]
    fn all_problems_of_a_recipe_are_named_at_once() {
        let recipe = TuneRecipe {
            rank: 0,
            layers: Layers::Last(9),
            targets: vec![],
            steps: Some(0),
            epochs: Some(1.0),
            learning_rate: f64::NAN,
            held_out: 1.0,
            flip_probability: -0.5,
            ..TuneRecipe::default()
        };
        let error = recipe.validate(&embedded_config().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the recipe cannot be used: rank is 0; it must be from 1 to 384; \
             layers is last-9; the backbone has 8 layers; \
             targets is empty; name at least one, such as query and value; \
             steps and epochs are both given; leave one out; \
             steps is 0; it must be from 1 to 10000000; \
             learning_rate is NaN; it must be above 0; \
             flip_probability is -0.5; it must be from 0 to 1; \
             held_out is 1; it must be from 0 to below 1"
        );
    }

    #[test]
    fn epochs_become_steps_by_the_number_of_pictures() {
        let recipe = TuneRecipe {
            epochs: Some(2.5),
            ..TuneRecipe::default()
        };
        assert_eq!(recipe.total_steps(160), 7);
        assert_eq!(recipe.total_steps(10), 3);
        assert_eq!(TuneRecipe::default().total_steps(10), DEFAULT_STEPS);
    }
}
