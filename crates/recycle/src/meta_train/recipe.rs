//! How one adapter is learned from the synthetic images of many.

use super::loss::EpisodeScores;
use crate::head::USUAL_SHRINKAGE;
use crate::layers::Layers;
use crate::recipe::{self, Preset, Problems, RecipeError};
use crate::tune::MOST_STEPS;
use engine::distance::Distance;
use engine::loss::{LdaScoring, Scoring};
use engine::optimise::CyclicSchedule;
use engine::session::Arithmetic;
use model::backbone::{BackboneConfig, Target};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How meta-training works. Every field may be left out; `preset` names what is used in its place: `standard` (the default) or
/// `paper`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MetaTrainRecipe {
    /// Rank of each low-rank pair.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub rank: usize,
    /// `"all"`, `"last-6"`, `"last-6-at-most"` or a list of 0-based numbers.
    pub layers: Layers,
    /// Linear maps of a layer that are adapted.
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub targets: Vec<Target>,
    /// What the low-rank pairs are before the first step.
    pub start: Start,
    /// Learns a merge coefficient for each adapter and layer of the sum first; left out, all are the scale of `start`.
    #[serde(alias = "factors")] // old spelling
    pub merge_coefficients: Option<MergeCoefficientRecipe>,
    /// Tasks, one optimiser step each; 0 to learn nothing but `merge_coefficients`.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 10_000_000))]
    pub episodes: u64,
    /// Share of tasks whose classes come from several adapters, with their labels as the goal. The others take the classes of
    /// one adapter, whose answers are the goal. Without two pools of one image size and number of tokens there are none.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub share_of_mixed_episodes: f64,
    /// Classes of a task; fewer where an adapter has fewer.
    #[cfg_attr(feature = "openapi", schema(minimum = 2, maximum = 1000))]
    pub way: usize,
    /// Support images of a class: a number, or the smallest and the largest, between which each task draws.
    pub shots: Shots,
    /// Query images of a class at most.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub queries: usize,
    /// How near a query is to a prototype: `squared_euclidean`, `euclidean` or `cosine`.
    pub distance: Distance,
    /// Scales features to length one first.
    pub unit_features: bool,
    /// What reads the features of a task.
    #[serde(default)]
    pub head: EpisodeHead,
    /// Scores are multiplied by it.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub score_scale: f64,
    /// Of the softmax of teacher and student.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub temperature: f64,
    /// Share of the patches that stay out: the number 0 for none, or `"stored"` for what the pools noted.
    pub sparsity: Sparsity,
    /// Highest rate of each cycle.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub learning_rate: f64,
    /// Rate at the beginning of each cycle, and at its end.
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub lowest_learning_rate: f64,
    /// Steps of a cycle: a linear rise, then half a cosine down.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub cycle_steps: u64,
    /// Steps of a cycle in which the rate rises.
    pub warm_up_steps: u64,
    /// Share of images that are mirrored.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub flip_probability: f64,
    /// Turns, scales and shifts each image a little.
    pub affine: bool,
    /// Changes the gain and offset of each image's channels.
    pub colour: bool,
    /// Share of images that become their negative.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub inversion_probability: f64,
    /// Decay of a moving average of the LoRA matrices, which then is the result; left out, there is none.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, exclusive_maximum = 1))]
    pub moving_average: Option<f64>,
    /// Share of each class's images that is held out to validate on.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, exclusive_maximum = 1))]
    pub held_out: f64,
    /// Episodes between two validations; left out, a tenth of them.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub validate_every: Option<u64>,
    /// Tasks of a validation, always the same.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100_000))]
    pub validation_tasks: usize,
    /// Which state is the result.
    pub keep: Keep,
    /// The same seed gives the same result, on the same number of threads.
    pub seed: u64,
    /// What computes it, of which the last bits depend; left out, the device that the program computes jobs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Arithmetic>,
}

/// What the low-rank pairs are before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// `B` is zero: the bare backbone.
    Zero,
    /// The sum of the adapters' changes times `scale`, compressed to the rank. Without a scale it is 4 through the number of
    /// adapters, at most 1: a third of twelve adapters was best in a study.
    Merge {
        #[serde(alias = "factor")] // old spelling
        /// What the sum of the changes is multiplied with.
        scale: Option<f64>,
    },
}

/// What reads the features of a task in meta-training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EpisodeHead {
    /// The distance to the class means.
    #[default]
    NearestMean,
    /// The squared distance in the metric of the supports' covariance within classes, through the width of the features, for tasks of two
    /// shots and more.
    Lda,
}

/// How the merge coefficients of the sum are learned, before it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(default))]
#[serde(default, deny_unknown_fields)]
pub struct MergeCoefficientRecipe {
    /// Tasks, one optimiser step each.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000_000))]
    pub steps: u64,
    /// Adam's step on the coefficients.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub learning_rate: f64,
    /// Leaves the task's own adapters out of the sum, so that its classes are new to it. With the objective `entropy` it must be false,
    /// and is where it is left out.
    pub leave_one_out: bool,
    /// What they are learned for.
    pub objective: CoefficientObjective,
}

/// What merge coefficients are learned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CoefficientObjective {
    /// The loss of few-shot tasks, as meta-training learns from them.
    #[default]
    Episodes,
    /// AdaMerging (arXiv 2310.02575): that the head of an adapter, which reads the features of the sum, is sure of that adapter's images.
    /// No label is used; each step takes all images of a task of one adapter.
    Entropy,
}

impl Default for MergeCoefficientRecipe {
    fn default() -> Self {
        Self {
            steps: 60,
            learning_rate: 0.01,
            leave_one_out: true,
            objective: CoefficientObjective::Episodes,
        }
    }
}

/// Which state is the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// That after the last step.
    Last,
    /// That of the lowest loss on the validation tasks.
    BestValidated,
}

/// Support images of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Shots {
    /// The same number in each task.
    Fixed(usize),
    /// Both ends included.
    Between([usize; 2]),
}

impl Shots {
    pub(super) fn draw(self, random: &mut impl Rng) -> usize {
        match self {
            Self::Fixed(shots) => shots,
            Self::Between([fewest, most]) => random.random_range(fewest..=most),
        }
    }
}

/// Which patches stay out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Sparsity {
    /// The share of the patches that the adapter's class token looks at least in the last layer.
    Share(f64),
    /// What the pools noted when their images were made.
    Stored(StoredWord),
}

/// The word `"stored"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StoredWord {
    /// The only one.
    Stored,
}

impl Sparsity {
    /// All patches stay in.
    pub const NONE: Self = Self::Share(0.0);
    /// As [`Self::Stored`].
    pub const STORED: Self = Self::Stored(StoredWord::Stored);

    /// Patches of `patches` that go, as Python's int() cuts; `None` where the pool says which.
    pub(super) fn dropped(self, patches: usize) -> Option<usize> {
        match self {
            Self::Share(share) => Some((patches as f64 * share) as usize),
            Self::Stored(_) => None,
        }
    }
}

impl Default for MetaTrainRecipe {
    fn default() -> Self {
        Self::standard()
    }
}

impl MetaTrainRecipe {
    /// The first is the default. `recycle --help` shows all their values beside each other.
    pub const PRESETS: [Preset<Self>; 2] = [
        Preset {
            name: "standard",
            old_names: &["fast"],
            recipe: Self::standard,
        },
        Preset::new("paper", Self::paper),
    ];

    /// Minutes on a processor: from the sum of the pool's changes by learned merge coefficients, in the last six layers, half of the tokens, changed
    /// and inverted colours, changed places, the best validated state.
    pub fn standard() -> Self {
        Self {
            rank: 16,
            layers: Layers::LastAtMost(6),
            start: Start::Merge { scale: None },
            merge_coefficients: Some(MergeCoefficientRecipe::default()),
            episodes: 1200,
            unit_features: true,
            score_scale: 5.0,
            sparsity: Sparsity::Share(0.5),
            affine: true,
            colour: true,
            inversion_probability: 0.5,
            learning_rate: 6e-4,
            lowest_learning_rate: 1e-6,
            cycle_steps: 200,
            moving_average: Some(0.98),
            held_out: 0.25,
            keep: Keep::BestValidated,
            ..Self::paper()
        }
    }

    /// As published (arXiv 2412.02220): from zero, squared Euclidean distances of plain features, cycles of 100 steps.
    pub fn paper() -> Self {
        let CyclicSchedule {
            cycle_steps,
            warm_up_steps,
            lowest,
            highest,
        } = CyclicSchedule::default();
        Self {
            rank: 4,
            layers: Layers::All,
            targets: vec![Target::Query, Target::Value],
            start: Start::Zero,
            merge_coefficients: None,
            episodes: 240_000,
            share_of_mixed_episodes: 0.5,
            way: 5,
            shots: Shots::Fixed(1),
            queries: 15,
            distance: Distance::SquaredEuclidean,
            unit_features: false,
            head: EpisodeHead::NearestMean,
            score_scale: 1.0,
            temperature: 1.0,
            sparsity: Sparsity::NONE,
            learning_rate: highest,
            lowest_learning_rate: lowest,
            cycle_steps,
            warm_up_steps,
            flip_probability: 0.5,
            affine: false,
            colour: false,
            inversion_probability: 0.0,
            moving_average: None,
            held_out: 0.0,
            validate_every: None,
            validation_tasks: 100,
            keep: Keep::Last,
            seed: 0,
            arithmetic: None,
        }
    }

    /// Reads a recipe from JSON: its fields laid over the preset that it names. A start from zero has no sum, and with it goes the
    /// preset's learning of its merge coefficients. With the objective `entropy` no adapter is left out unless the recipe says so.
    ///
    /// # Errors
    /// [`RecipeError`] for an unknown preset or field, or a value of another type.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, RecipeError> {
        let json = &with_current_names(json);
        let mut own: Self = recipe::read(json, &Self::PRESETS)?;
        if own.start == Start::Zero && json.get("merge_coefficients").is_none() {
            own.merge_coefficients = None;
        }
        if let Some(coefficients) = &mut own.merge_coefficients
            && coefficients.objective == CoefficientObjective::Entropy
            && json["merge_coefficients"].get("leave_one_out").is_none()
        {
            coefficients.leave_one_out = false;
        }
        Ok(own)
    }

    /// Checks everything that does not depend on the pools.
    ///
    /// # Errors
    /// [`RecipeError::Problems`] with all of them.
    pub fn validate(&self, backbone: &BackboneConfig) -> Result<(), RecipeError> {
        let mut problems = Problems::default();
        let widest = backbone.width;
        problems.check((1..=widest).contains(&self.rank), || {
            format!("rank is {}; it must be from 1 to {widest}", self.rank)
        });
        if let Err(problem) = self.layers.resolve(backbone.layers) {
            problems.add(problem);
        }
        problems.check(!self.targets.is_empty(), || {
            "targets is empty; name at least one, such as query and value".into()
        });
        if let Start::Merge { scale: Some(scale) } = self.start {
            problems.within("scale of start", scale, scale.abs() <= 1e3, "up to 1000");
        }
        self.check_tasks(&mut problems);
        self.check_optimiser(&mut problems);
        self.check_validation(&mut problems);
        problems.finish()
    }

    fn check_tasks(&self, problems: &mut Problems) {
        let least = u64::from(self.merge_coefficients.is_none());
        problems.check((least..=MOST_STEPS).contains(&self.episodes), || {
            format!(
                "episodes is {}; it must be from {least} to {MOST_STEPS}",
                self.episodes
            )
        });
        if let Some(coefficients) = self.merge_coefficients {
            problems.check((1..=MOST_STEPS).contains(&coefficients.steps), || {
                format!(
                    "steps of merge_coefficients is {}; it must be from 1 to {MOST_STEPS}",
                    coefficients.steps
                )
            });
            problems.positive(
                "learning_rate of merge_coefficients",
                coefficients.learning_rate,
            );
            let is_entropy = coefficients.objective == CoefficientObjective::Entropy;
            problems.check(!(is_entropy && coefficients.leave_one_out), || {
                "leave_one_out of merge_coefficients is true, but with the objective entropy an adapter's head reads a sum that has the adapter in it; \
                 set it to false".into()
            });
            problems.check(self.start != Start::Zero, || {
                "merge_coefficients are those of the sum that a start from merge begins with, but start is zero".into()
            });
        }
        problems.check((2..=1000).contains(&self.way), || {
            format!("way is {}; it must be from 2 to 1000", self.way)
        });
        let (fewest, most) = match self.shots {
            Shots::Fixed(shots) => (shots, shots),
            Shots::Between([fewest, most]) => (fewest, most),
        };
        problems.check(fewest >= 1 && fewest <= most && most <= 1000, || {
            format!(
                "shots are {fewest} to {most}; they must be from 1 to 1000, the smaller number first"
            )
        });
        if self.head == EpisodeHead::Lda {
            problems.check(fewest >= 2, || {
                "head is lda, which needs shots of 2 or more: one image does not say how a class varies".into()
            });
            problems.check(self.distance == Distance::SquaredEuclidean, || {
                "head is lda, which takes squared distances; leave distance out, or use head nearest_mean".into()
            });
        }
        problems.check((1..=1000).contains(&self.queries), || {
            format!("queries is {}; it must be from 1 to 1000", self.queries)
        });
        if let Sparsity::Share(share) = self.sparsity {
            let holds = (0.0..1.0).contains(&share);
            problems.within("sparsity", share, holds, "from 0 to below 1");
        }
        for (name, share) in [
            ("share_of_mixed_episodes", self.share_of_mixed_episodes),
            ("flip_probability", self.flip_probability),
            ("inversion_probability", self.inversion_probability),
        ] {
            let holds = (0.0..=1.0).contains(&share);
            problems.within(name, share, holds, "from 0 to 1");
        }
    }

    fn check_optimiser(&self, problems: &mut Problems) {
        problems.positive("score_scale", self.score_scale);
        problems.positive("temperature", self.temperature);
        problems.positive("learning_rate", self.learning_rate);
        let lowest = self.lowest_learning_rate;
        let holds = (0.0..=self.learning_rate).contains(&lowest);
        problems.within(
            "lowest_learning_rate",
            lowest,
            holds,
            "from 0 to learning_rate",
        );
        problems.check(
            self.cycle_steps > 0 && self.warm_up_steps <= self.cycle_steps,
            || "cycle_steps must be at least 1 and no smaller than warm_up_steps".into(),
        );
        if let Some(decay) = self.moving_average {
            let holds = (0.0..1.0).contains(&decay);
            problems.within("moving_average", decay, holds, "from 0 to below 1");
        }
    }

    fn check_validation(&self, problems: &mut Problems) {
        let holds = (0.0..1.0).contains(&self.held_out);
        problems.within("held_out", self.held_out, holds, "from 0 to below 1");
        problems.check(self.validate_every != Some(0), || {
            "validate_every is 0; validate after at least 1 episode, or leave it out".into()
        });
        problems.check((1..=100_000).contains(&self.validation_tasks), || {
            format!(
                "validation_tasks is {}; it must be from 1 to 100000",
                self.validation_tasks
            )
        });
        problems.check(self.keep == Keep::Last || self.held_out > 0.0, || {
            "keep is best_validated, but held_out is 0; hold images out, or keep the last state"
                .into()
        });
    }

    /// Whether this many images of each class are enough to learn from, and to validate on where that is asked for.
    ///
    /// # Errors
    /// [`RecipeError::Problems`] with the number that is.
    pub fn check_images_per_class(&self, images: usize) -> Result<(), RecipeError> {
        let supports = match self.head {
            EpisodeHead::NearestMean => "a support",
            EpisodeHead::Lda => "two support",
        };
        let (needed, what) = match self.held_out > 0.0 {
            true => (
                2 * self.least_images(),
                format!("{supports} and a query image, both to learn from and held out"),
            ),
            false => (self.least_images(), format!("{supports} and a query image")),
        };
        let mut problems = Problems::default();
        problems.check(images >= needed, || {
            format!("images_per_class is {images}; meta-training needs at least {needed}: {what}")
        });
        problems.finish()
    }

    /// Images that are held out of a class of `images`: none where too few would be left on either side.
    pub(super) fn held_out_of(&self, images: usize) -> usize {
        let least = self.least_images();
        if self.held_out <= 0.0 || images < 2 * least {
            return 0;
        }
        ((images as f64 * self.held_out).round() as usize).clamp(least, images - least)
    }

    /// Images of a class that a task needs: its supports, and a query.
    pub(super) fn least_images(&self) -> usize {
        match self.head {
            EpisodeHead::NearestMean => 2,
            EpisodeHead::Lda => 3,
        }
    }

    /// As the field, with what stands in for it where it is left out.
    pub fn validate_every(&self) -> u64 {
        self.validate_every.unwrap_or((self.episodes / 10).max(1))
    }

    pub(super) fn schedule(&self) -> CyclicSchedule {
        CyclicSchedule {
            cycle_steps: self.cycle_steps,
            warm_up_steps: self.warm_up_steps,
            lowest: self.lowest_learning_rate,
            highest: self.learning_rate,
        }
    }

    fn scoring(&self) -> Scoring {
        Scoring {
            distance: self.distance,
            temperature: (1.0 / self.score_scale) as f32,
            unit_features: self.unit_features,
        }
    }

    pub(super) fn episode_scores(&self) -> EpisodeScores {
        match self.head {
            EpisodeHead::NearestMean => EpisodeScores::nearest_mean(self.scoring()),
            EpisodeHead::Lda => EpisodeScores::lda(LdaScoring {
                shrinkage: USUAL_SHRINKAGE,
                temperature: 1.0 / self.score_scale,
                unit_features: self.unit_features,
            }),
        }
    }

    /// Whether merge coefficients are learned from the certainty of the adapters' heads.
    pub(super) fn learns_from_entropy(&self) -> bool {
        let objective = self.merge_coefficients.map(|own| own.objective);
        objective == Some(CoefficientObjective::Entropy)
    }

    /// Whether images change by more than their mirror image, so that no layer's output can be kept for them.
    pub(super) fn changes_pixels(&self) -> bool {
        self.affine || self.colour || self.inversion_probability > 0.0
    }
}

const FORMER_MERGE_COEFFICIENTS: &str = "factors"; // old spelling

/// Fields by their current names, so that they override those of a preset. In an earlier version they had other names.
fn with_current_names(json: &serde_json::Value) -> serde_json::Value {
    let mut json = json.clone();
    if let Some(fields) = json.as_object_mut()
        && !fields.contains_key("merge_coefficients")
        && let Some(coefficients) = fields.remove(FORMER_MERGE_COEFFICIENTS)
    {
        fields.insert("merge_coefficients".into(), coefficients);
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::backbone::embedded_config;
    use serde_json::json;

    #[test]
    fn presets_are_read_by_name_and_changed_field_by_field_and_written_back() {
        let read = |json| MetaTrainRecipe::from_json(&json).unwrap();
        assert_eq!(read(json!({})), MetaTrainRecipe::standard());
        for name in ["standard", "fast"] {
            let own = read(json!({ "preset": name }));
            assert_eq!(own, MetaTrainRecipe::standard(), "{name}");
        }
        let unknown = MetaTrainRecipe::from_json(&json!({"preset": "slow"})).unwrap_err();
        assert!(unknown.to_string().ends_with("known are standard, paper"));
        let changed = read(json!({
            "preset": "paper", "shots": [1, 5], "sparsity": "stored", "layers": "last-6",
            "start": {"merge": {"scale": 0.25}},
        }));
        let expected = MetaTrainRecipe {
            shots: Shots::Between([1, 5]),
            sparsity: Sparsity::STORED,
            layers: Layers::Last(6),
            start: Start::Merge { scale: Some(0.25) },
            ..MetaTrainRecipe::paper()
        };
        assert_eq!(changed, expected);
        assert_eq!(read(json!(expected)), expected);
        assert_eq!(
            read(json!({"sparsity": 0.75})).sparsity,
            Sparsity::Share(0.75)
        );
        let from_zero = MetaTrainRecipe {
            start: Start::Zero,
            merge_coefficients: None,
            ..MetaTrainRecipe::standard()
        };
        assert_eq!(read(json!({"start": "zero"})), from_zero);
        let without = read(json!({"merge_coefficients": null}));
        assert_eq!(without.merge_coefficients, None);
        let refused = MetaTrainRecipe::from_json(&json!({"shot": 1})).unwrap_err();
        assert!(refused.to_string().contains("unknown field `shot`"));
    }

    #[test]
    fn names_of_earlier_versions_are_read_over_a_preset_and_as_a_whole_recipe() {
        let steps = MergeCoefficientRecipe {
            steps: 7,
            ..MergeCoefficientRecipe::default()
        };
        let today = MetaTrainRecipe {
            start: Start::Merge { scale: Some(0.25) },
            merge_coefficients: Some(steps),
            ..MetaTrainRecipe::standard()
        };
        let fields = json!({"start": {"merge": {"factor": 0.25}}, "factors": {"steps": 7}}); // old spelling
        assert_eq!(MetaTrainRecipe::from_json(&fields).unwrap(), today);
        let mut whole = json!(today);
        let object = whole.as_object_mut().unwrap();
        let coefficients = object.remove("merge_coefficients").unwrap();
        object.insert("factors".into(), coefficients); // old spelling
        object.insert("start".into(), fields["start"].clone());
        assert_eq!(MetaTrainRecipe::deserialize(&whole).unwrap(), today);
        let none = MetaTrainRecipe::from_json(&json!({"factors": null})).unwrap(); // old spelling
        assert_eq!(none.merge_coefficients, None);
    }

    #[test]
    fn entropy_leaves_no_adapter_out_and_refuses_to() {
        let read = |json| MetaTrainRecipe::from_json(&json).unwrap();
        let config = embedded_config().unwrap();
        let own = read(json!({"merge_coefficients": {"objective": "entropy"}, "episodes": 0}));
        let expected = MergeCoefficientRecipe {
            objective: CoefficientObjective::Entropy,
            leave_one_out: false,
            ..MergeCoefficientRecipe::default()
        };
        assert_eq!(own.merge_coefficients, Some(expected));
        assert!(own.validate(&config).is_ok());
        assert_eq!(read(json!(own)), own);
        let left_out =
            json!({"merge_coefficients": {"objective": "entropy", "leave_one_out": true}});
        let refused = read(left_out).validate(&config).unwrap_err().to_string();
        assert!(refused.contains("set it to false"), "{refused}");
        let episodes = read(json!({"merge_coefficients": {"steps": 60}}));
        assert_eq!(episodes, MetaTrainRecipe::standard());
    }

    #[test]
    fn the_paper_preset_has_the_published_numbers() {
        let paper = MetaTrainRecipe::paper();
        assert_eq!((paper.rank, paper.start), (4, Start::Zero));
        assert_eq!(
            (paper.way, paper.shots, paper.queries),
            (5, Shots::Fixed(1), 15)
        );
        assert_eq!(paper.scoring(), Scoring::default());
        assert_eq!(paper.schedule(), CyclicSchedule::default());
        assert_eq!((paper.temperature, paper.moving_average), (1.0, None));
        assert_eq!(paper.sparsity.dropped(256), Some(0));
    }

    #[test]
    fn all_problems_of_a_recipe_are_named_at_once() {
        let recipe = MetaTrainRecipe {
            rank: 0,
            layers: Layers::Last(9),
            way: 1,
            shots: Shots::Between([5, 1]),
            sparsity: Sparsity::Share(1.0),
            learning_rate: 0.0,
            lowest_learning_rate: 0.0,
            held_out: 0.0,
            ..MetaTrainRecipe::standard()
        };
        let config = embedded_config().unwrap();
        assert_eq!(
            recipe.validate(&config).unwrap_err().to_string(),
            "the recipe cannot be used: rank is 0; it must be from 1 to 384; layers is last-9; the backbone has 8 layers; \
             way is 1; it must be from 2 to 1000; \
             shots are 5 to 1; they must be from 1 to 1000, the smaller number first; \
             sparsity is 1; it must be from 0 to below 1; learning_rate is 0; it must be above 0; \
             keep is best_validated, but held_out is 0; hold images out, or keep the last state"
        );
        let standard = MetaTrainRecipe::standard();
        assert!(standard.validate(&config).is_ok());
        assert!(standard.check_images_per_class(4).is_ok());
        assert!(
            standard
                .check_images_per_class(3)
                .unwrap_err()
                .to_string()
                .contains("at least 4")
        );
        assert_eq!(
            [3, 4, 8, 40].map(|images| standard.held_out_of(images)),
            [0, 2, 2, 10]
        );
    }
}
