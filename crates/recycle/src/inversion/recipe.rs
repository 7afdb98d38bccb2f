//! How images are synthesised from an adapter.

use super::augmentation::ImageAugmentation;
use crate::labelled_images::check_classes;
use crate::recipe::{self, Preset, Problems, RecipeError};
use crate::tune::MOST_STEPS;
use engine::image_parameters::Parametrisation;
use engine::session::Arithmetic;
use engine::session::Pruning;
use model::adapter::{Adapter, Head};
use model::backbone::BackboneConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How images are synthesised. Every field may be left out; `preset` names what is used in its place: `hard` (the default), `fast`
/// or `paper`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InversionRecipe {
    /// What is optimised: `pixels` or `fourier`.
    pub parametrisation: Parametrisation,
    /// How the images are changed before each look of the adapter.
    pub augmentation: ImageAugmentation,
    /// Optimiser steps.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000_000))]
    pub steps: u64,
    /// Adam's step, on normalised pixels or on Fourier coefficients.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub learning_rate: f64,
    /// Adam's decay of the mean gradient.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, exclusive_maximum = 1))]
    pub beta1: f64,
    /// Adam's decay of the mean squared gradient.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, exclusive_maximum = 1))]
    pub beta2: f64,
    /// Images that are made of each class.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub images_per_class: usize,
    /// Images of each class that are optimised together; left out, all of them. A smaller number needs less memory.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub images_per_class_at_once: Option<usize>,
    /// Labels of the head's classes, or their 0-based numbers where they have no labels; left out, all of them.
    pub classes: Option<Vec<String>>,
    /// Side in pixels; left out, the backbone's.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub image_size: Option<usize>,
    /// What the sum of all priors is multiplied with.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000))]
    pub prior_weight: f64,
    /// What natural images look like, in numbers.
    pub priors: PriorWeights,
    /// Images that the bare backbone does not separate by itself.
    pub hard: Option<HardInversion>,
    /// SHA-256 of the adapter whose classes `hard` mixes up; left out, the bare backbone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Share of the patches that goes inside a layer, by 0-based layer.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, f64>))]
    pub pruning: BTreeMap<usize, f64>,
    /// Share of the steps after which patches are pruned.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub pruning_start: f64,
    /// Share of the patches that is noted as kept, by the last layer's attention of the class token; left out, those that the
    /// pruning leaves.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub keep_ratio: Option<f64>,
    /// Steps between two looks at the images without augmentation; left out, a tenth of the steps.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub judge_every: Option<u64>,
    /// When to stop before the last step; left out, never.
    pub early_stop: Option<InversionEarlyStop>,
    /// The same seed gives the same images, on the same number of threads.
    pub seed: u64,
    /// What computes it, of which the last bits depend; left out, the device that the program computes jobs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Arithmetic>,
    /// SHA-256 of real pictures that stand in for the images, as a control: nothing is optimised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real: Option<String>,
    /// Puts a defect of the published code back in, for measurements:
    /// [`engine::session::Session::published_residual`].
    #[doc(hidden)]
    #[serde(skip)]
    pub published_residual: bool,
}

/// Weights of the priors, each 0 for none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(default))]
#[serde(default, deny_unknown_fields)]
pub struct PriorWeights {
    /// Statistics at the BatchNorms of a ResNet.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000))]
    pub batch_norm: f64,
    /// SHA-256 of that ResNet's file: part of the recipe's identity.
    pub batch_norm_file: Option<String>,
    /// Statistics of the tokens at the backbone's LayerNorms.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000))]
    pub token_statistics: f64,
    /// SHA-256 of the file of statistics: part of the recipe's identity.
    pub token_statistics_file: Option<String>,
    /// Differences of neighbouring pixels.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000))]
    pub total_variation: f64,
    /// Mean length of the images.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000))]
    pub l2: f64,
}

/// Subtracts `weight · min(cross-entropy, cap)` of the bare backbone: each image against the class means of the other images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(default))]
#[serde(default, deny_unknown_fields)]
pub struct HardInversion {
    /// Beside the cross-entropy of the adapter, which has weight 1.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub weight: f64,
    /// An image that is harder than this is not made harder still.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub cap: f64,
    /// What minus the squared distance of features of length one is multiplied with.
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0))]
    pub score_scale: f64,
}

impl Default for HardInversion {
    fn default() -> Self {
        Self {
            weight: 1.0,
            cap: 2.0,
            score_scale: DEFAULT_SCORE_SCALE,
        }
    }
}

/// When inversion stops before its last step: the judged loss has settled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(default))]
#[serde(default, deny_unknown_fields)]
pub struct InversionEarlyStop {
    /// Judgements in a row without enough gain.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub patience: u64,
    /// Gain that is enough, as a share of the lowest loss so far.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, exclusive_maximum = 1))]
    pub least_gain: f64,
}

impl Default for InversionEarlyStop {
    fn default() -> Self {
        Self {
            patience: 2,
            least_gain: 0.01,
        }
    }
}

/// What class `class` of `head` is called: its number, where the head names none.
pub fn class_label(head: &Head, class: usize) -> String {
    let label = head.labels.get(class);
    label.cloned().unwrap_or_else(|| class.to_string())
}

pub(super) const DEFAULT_SCORE_SCALE: f64 = 20.0;

/// Most images of one inversion.
const MOST_IMAGES: usize = 100_000;

/// Most pixels of a side: attention grows with its fourth power.
const LARGEST_IMAGE: usize = 1024;

/// Most values of images that are made at a time.
const MOST_VALUES: usize = 1 << 27;

/// A value with its gradient and two moments of the optimiser, `f32` each.
const BYTES_PER_VALUE: usize = 16;

impl Default for InversionRecipe {
    fn default() -> Self {
        Self::hard()
    }
}

impl InversionRecipe {
    /// The first is the default.
    pub const PRESETS: [Preset<Self>; 3] = [
        Preset::new("hard", Self::hard),
        Preset::new("fast", Self::fast),
        Preset::new("paper", Self::paper),
    ];

    /// The published recipe. Its prior needs a ResNet's file.
    pub fn paper() -> Self {
        Self {
            parametrisation: Parametrisation::Pixels,
            augmentation: ImageAugmentation::RollFlip,
            steps: 2000,
            learning_rate: 0.25,
            beta1: 0.5,
            beta2: 0.99,
            prior_weight: 0.01,
            priors: PriorWeights {
                batch_norm: 1.0,
                ..PriorWeights::default()
            },
            ..Self::fast()
        }
    }

    /// Few steps on a Fourier spectrum, without priors.
    pub fn fast() -> Self {
        Self {
            parametrisation: Parametrisation::Fourier,
            augmentation: ImageAugmentation::Affine,
            steps: 60,
            learning_rate: 0.05,
            beta1: 0.9,
            beta2: 0.999,
            images_per_class: 8,
            images_per_class_at_once: None,
            classes: None,
            image_size: None,
            prior_weight: 0.01,
            priors: PriorWeights::default(),
            hard: None,
            pruning: BTreeMap::new(),
            pruning_start: 0.25,
            keep_ratio: None,
            judge_every: None,
            early_stop: None,
            seed: 0,
            arithmetic: None,
            real: None,
            against: None,
            published_residual: false,
        }
    }

    /// [`Self::fast`] with [`HardInversion`].
    pub fn hard() -> Self {
        Self {
            hard: Some(HardInversion::default()),
            ..Self::fast()
        }
    }

    /// Reads a recipe from JSON over a preset: `hard`, `fast` or `paper`.
    ///
    /// # Errors
    /// [`RecipeError`] for an unknown preset or field or a value of another type.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, RecipeError> {
        recipe::read(json, &Self::PRESETS)
    }

    /// Checks the recipe against the backbone and the adapter with its head; gives the head's classes that it inverts.
    ///
    /// # Errors
    /// [`RecipeError::Problems`] with all of them.
    pub fn validate(
        &self,
        backbone: &BackboneConfig,
        adapter: &Adapter,
    ) -> Result<Vec<usize>, RecipeError> {
        let mut problems = Problems::default();
        self.check_optimiser(&mut problems);
        self.check_loss(&mut problems);
        self.check_pruning(&mut problems, backbone);
        if let Some(size) = self.image_size {
            problems.check(backbone.grid(size).is_some(), || {
                let patch = backbone.patch_size;
                format!(
                    "image_size is {size}; it must be a multiple of the backbone's patch, {patch}"
                )
            });
        }
        let chosen = match &adapter.head {
            None => Err(
                "the adapter has no head, so there are no classes to invert; take one with a head"
                    .into(),
            ),
            Some(head) => self.choose(head, backbone).and_then(|chosen| {
                let labels: Vec<String> = chosen
                    .iter()
                    .map(|&class| class_label(head, class))
                    .collect();
                let usable = check_classes(&labels, 1).map(|()| chosen);
                usable.map_err(|error| format!("the classes of the head: {error}"))
            }),
        };
        let chosen = chosen.unwrap_or_else(|problem: String| {
            problems.add(problem);
            Vec::new()
        });
        let size = self.image_size.unwrap_or(0);
        problems.check(size <= LARGEST_IMAGE, || {
            format!("image_size is {size}; at most {LARGEST_IMAGE} pixels a side can be made")
        });
        let of_class = self.images_per_class_at_once.unwrap_or(usize::MAX);
        let at_once = of_class
            .min(self.images_per_class)
            .saturating_mul(chosen.len());
        let values = size
            .saturating_mul(size)
            .saturating_mul(3)
            .saturating_mul(at_once);
        problems.check(values <= MOST_VALUES, || {
            format!(
                "{at_once} images of {size} × {size} pixels are made at a time, which takes more than {} GiB; lower image_size, images_per_class or images_per_class_at_once",
                (MOST_VALUES * BYTES_PER_VALUE) >> 30
            )
        });
        let images = self.images_per_class.saturating_mul(chosen.len());
        problems.check(images <= MOST_IMAGES, || {
            format!("{images} images are asked for; at most {MOST_IMAGES} are made at a time")
        });
        problems.finish()?;
        Ok(chosen)
    }

    fn check_optimiser(&self, problems: &mut Problems) {
        problems.check((1..=MOST_STEPS).contains(&self.steps), || {
            format!("steps is {}; it must be from 1 to {MOST_STEPS}", self.steps)
        });
        problems.positive("learning_rate", self.learning_rate);
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            problems.within(name, beta, (0.0..1.0).contains(&beta), "from 0 to below 1");
        }
        problems.check(self.images_per_class > 0, || {
            "images_per_class is 0; make at least 1".into()
        });
        problems.check(self.images_per_class_at_once != Some(0), || {
            "images_per_class_at_once is 0; take at least 1, or leave it out".into()
        });
        problems.check(self.judge_every != Some(0), || {
            "judge_every is 0; judge after at least 1 step, or leave it out".into()
        });
        if let Some(stop) = self.early_stop {
            problems.check(stop.patience > 0, || {
                "patience of early_stop is 0; it must be at least 1".into()
            });
            let holds = (0.0..1.0).contains(&stop.least_gain);
            problems.within("least_gain", stop.least_gain, holds, "from 0 to below 1");
        }
    }

    fn check_loss(&self, problems: &mut Problems) {
        let priors = &self.priors;
        for (name, weight) in [
            ("prior_weight", self.prior_weight),
            ("priors.batch_norm", priors.batch_norm),
            ("priors.token_statistics", priors.token_statistics),
            ("priors.total_variation", priors.total_variation),
            ("priors.l2", priors.l2),
        ] {
            problems.within(
                name,
                weight,
                (0.0..=1e6).contains(&weight),
                "from 0 to 1000000",
            );
        }
        problems.check(self.against.is_none() || self.hard.is_some(), || {
            "against names an adapter, but without hard nothing is mixed up; give the weight and cap of hard, or leave against out"
                .into()
        });
        if let Some(hard) = self.hard {
            problems.positive("hard.weight", hard.weight);
            problems.positive("hard.cap", hard.cap);
            problems.positive("hard.score_scale", hard.score_scale);
            problems.check(self.smallest_part() != 1, || {
                "hard inversion compares the images of a class: \
                 images_per_class and images_per_class_at_once must leave at least 2 together"
                    .into()
            });
        }
    }

    fn check_pruning(&self, problems: &mut Problems, backbone: &BackboneConfig) {
        let layers = backbone.layers;
        for (&layer, &ratio) in &self.pruning {
            problems.check(layer < layers, || {
                format!(
                    "pruning names layer {layer}; the backbone has {layers} layers, counted from 0"
                )
            });
            let name = format!("pruning of layer {layer}");
            problems.within(
                &name,
                ratio,
                (0.0..1.0).contains(&ratio),
                "from 0 to below 1",
            );
        }
        let holds = (0.0..=1.0).contains(&self.pruning_start);
        problems.within("pruning_start", self.pruning_start, holds, "from 0 to 1");
        if let Some(keep) = self.keep_ratio {
            let holds = keep > 0.0 && keep <= 1.0;
            problems.within("keep_ratio", keep, holds, "above 0 and up to 1");
        }
    }

    /// Numbers of the head's classes that are inverted.
    fn choose(&self, head: &Head, backbone: &BackboneConfig) -> Result<Vec<usize>, String> {
        let &[classes, inputs] = head.weight.shape() else {
            return Err("the head's weight is not a matrix".into());
        };
        let expected = head.input.width(backbone);
        if inputs != expected {
            return Err(format!(
                "the head reads {inputs} values, but the backbone gives {expected}; \
                 the adapter belongs to another backbone"
            ));
        }
        let Some(wanted) = &self.classes else {
            return Ok((0..classes).collect());
        };
        let mut chosen = Vec::with_capacity(wanted.len());
        for name in wanted {
            let labelled = head.labels.iter().position(|label| label == name);
            let numbered = || name.parse().ok().filter(|&number: &usize| number < classes);
            match labelled.or_else(numbered) {
                Some(class) if chosen.contains(&class) => {
                    return Err(format!("classes names \"{name}\" twice"));
                }
                Some(class) => chosen.push(class),
                None => {
                    let known = if head.labels.is_empty() {
                        format!("numbers from 0 to {}", classes - 1)
                    } else {
                        head.labels.join(", ")
                    };
                    return Err(format!(
                        "classes names \"{name}\", which the head does not have; it has {known}"
                    ));
                }
            }
        }
        if chosen.is_empty() {
            return Err("classes is empty; name at least one, or leave it out for all".into());
        }
        Ok(chosen)
    }

    /// Images of the smallest of [`Self::parts`], 0 where there are none.
    fn smallest_part(&self) -> usize {
        let at_once = self.images_per_class_at_once.unwrap_or(usize::MAX);
        let count = self.images_per_class.div_ceil(at_once.max(1));
        self.images_per_class / count.max(1)
    }

    /// Images of each class that are optimised together, one after the other.
    pub(super) fn parts(&self) -> Vec<usize> {
        let at_once = self.images_per_class_at_once.unwrap_or(usize::MAX);
        let count = self.images_per_class.div_ceil(at_once.max(1));
        let bound = |part: usize| part * self.images_per_class / count.max(1);
        (0..count)
            .map(|part| bound(part + 1) - bound(part))
            .collect()
    }

    /// As the field, with what stands in for it where it is left out.
    pub fn judge_every(&self) -> u64 {
        self.judge_every.unwrap_or((self.steps / 10).max(1))
    }

    /// What is pruned in the step that comes after `steps_done` others.
    pub(super) fn pruning_at(&self, steps_done: u64) -> Vec<Pruning> {
        if (steps_done as f64) < self.pruning_start * self.steps as f64 {
            return Vec::new();
        }
        self.pruning()
    }

    pub(super) fn pruning(&self) -> Vec<Pruning> {
        let layers = self.pruning.iter();
        layers
            .map(|(&layer, &ratio)| Pruning { layer, ratio })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::adapter::HeadInput;
    use model::backbone::embedded_config;
    use model::tensor::Tensor;
    use serde_json::json;

    fn adapter(labels: &[&str]) -> Adapter {
        Adapter {
            head: Some(Head {
                weight: Tensor::zeros([3, 384]),
                bias: None,
                input: HeadInput::Feature,
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            }),
            ..Adapter::default()
        }
    }

    fn refuse(recipe: &InversionRecipe, adapter: &Adapter) -> String {
        let config = embedded_config().unwrap();
        recipe.validate(&config, adapter).unwrap_err().to_string()
    }

    #[test]
    fn the_presets_are_read_by_name_and_changed_field_by_field() {
        let read = |json| InversionRecipe::from_json(&json).unwrap();
        assert_eq!(read(json!({})), InversionRecipe::default());
        assert_eq!(read(json!({"preset": "paper"})), InversionRecipe::paper());
        let pruned = read(json!({"preset": "fast", "pruning": {"4": 0.75}, "seed": 3}));
        let expected = InversionRecipe {
            pruning: BTreeMap::from([(4, 0.75)]),
            seed: 3,
            ..InversionRecipe::fast()
        };
        assert_eq!(pruned, expected);
        assert_eq!(
            read(serde_json::to_value(&pruned).unwrap_or_default()),
            expected
        );
        let refuse = |json| InversionRecipe::from_json(&json).unwrap_err().to_string();
        assert_eq!(
            refuse(json!({"preset": "slow"})),
            "the preset \"slow\" is not known; known are hard, fast, paper"
        );
        assert!(refuse(json!({"published_residual": true})).contains("unknown field"));
        assert!(refuse(json!({"priors": {"resnet": 1}})).contains("unknown field `resnet`"));
        assert!(refuse(json!({"steps": "many"})).contains("invalid type"));
    }

    #[test]
    fn the_paper_preset_has_the_published_numbers() {
        let paper = InversionRecipe::paper();
        assert_eq!(paper.parametrisation, Parametrisation::Pixels);
        assert_eq!(paper.augmentation, ImageAugmentation::RollFlip);
        assert_eq!((paper.steps, paper.learning_rate), (2000, 0.25));
        assert_eq!((paper.beta1, paper.beta2), (0.5, 0.99));
        assert_eq!((paper.prior_weight, paper.priors.batch_norm), (0.01, 1.0));
        assert_eq!((paper.pruning_start, paper.hard), (0.25, None));
    }

    #[test]
    fn images_that_would_not_fit_into_memory_are_refused() {
        let recipe = |image_size, images_per_class| InversionRecipe {
            image_size: Some(image_size),
            images_per_class,
            ..InversionRecipe::hard()
        };
        let adapter = adapter(&["cat", "dog", "fish"]);
        assert_eq!(
            refuse(&recipe(14 * 350, 20_000), &adapter),
            "the recipe cannot be used: image_size is 4900; at most 1024 pixels a side can be made; \
             60000 images of 4900 × 4900 pixels are made at a time, which takes more than 2 GiB; \
             lower image_size, images_per_class or images_per_class_at_once"
        );
        let few_at_once = InversionRecipe {
            images_per_class_at_once: Some(8),
            ..recipe(14 * 16, 20_000)
        };
        assert!(
            few_at_once
                .validate(&embedded_config().unwrap(), &adapter)
                .is_ok()
        );
    }

    #[test]
    fn all_problems_of_a_recipe_are_named_at_once() {
        let recipe = InversionRecipe {
            steps: 0,
            beta2: 1.0,
            images_per_class: 1,
            image_size: Some(100),
            pruning: BTreeMap::from([(8, 0.5), (1, 1.0)]),
            keep_ratio: Some(0.0),
            classes: Some(vec!["zebra".into()]),
            ..InversionRecipe::hard()
        };
        assert_eq!(
            refuse(&recipe, &adapter(&["cat", "dog", "fish"])),
            "the recipe cannot be used: steps is 0; it must be from 1 to 10000000; \
             beta2 is 1; it must be from 0 to below 1; \
             hard inversion compares the images of a class: images_per_class and images_per_class_at_once must leave \
             at least 2 together; \
             pruning of layer 1 is 1; it must be from 0 to below 1; \
             pruning names layer 8; the backbone has 8 layers, counted from 0; \
             keep_ratio is 0; it must be above 0 and up to 1; \
             image_size is 100; it must be a multiple of the backbone's patch, 14; \
             classes names \"zebra\", which the head does not have; it has cat, dog, fish"
        );
        let headless = Adapter::default();
        assert!(refuse(&InversionRecipe::fast(), &headless).contains("has no head"));
        let endless = InversionRecipe {
            images_per_class: usize::MAX,
            images_per_class_at_once: Some(2),
            ..InversionRecipe::hard()
        };
        let refused = refuse(&endless, &adapter(&["cat", "dog", "fish"]));
        assert!(
            refused.contains("at most 100000 are made at a time"),
            "{refused}"
        );
    }

    #[test]
    fn classes_are_chosen_by_label_or_by_number() {
        let config = embedded_config().unwrap();
        let choose = |names: &[&str], adapter: &Adapter| {
            let recipe = InversionRecipe {
                classes: Some(names.iter().map(|name| (*name).to_owned()).collect()),
                ..InversionRecipe::fast()
            };
            recipe.validate(&config, adapter)
        };
        let labelled = adapter(&["cat", "dog", "0"]);
        assert_eq!(choose(&["0", "cat"], &labelled), Ok(vec![2, 0]));
        assert_eq!(choose(&["2", "0"], &adapter(&[])), Ok(vec![2, 0]));
        assert!(
            choose(&["3"], &adapter(&[]))
                .unwrap_err()
                .to_string()
                .ends_with("it has numbers from 0 to 2")
        );
        assert!(choose(&["dog", "dog"], &labelled).is_err());
        assert!(choose(&[], &labelled).is_err());
    }

    #[test]
    fn images_are_cut_into_parts_of_nearly_equal_size() {
        let parts = |images_per_class, at_once| {
            let recipe = InversionRecipe {
                images_per_class,
                images_per_class_at_once: at_once,
                ..InversionRecipe::fast()
            };
            recipe.parts()
        };
        assert_eq!(parts(8, None), [8]);
        assert_eq!(parts(10, Some(4)), [3, 3, 4]);
        assert_eq!(parts(3, Some(1)), [1, 1, 1]);
    }

    #[test]
    fn pruning_begins_after_a_quarter_of_the_steps() {
        let recipe = InversionRecipe {
            steps: 10,
            pruning: BTreeMap::from([(4, 0.75)]),
            ..InversionRecipe::fast()
        };
        assert!(recipe.pruning_at(2).is_empty());
        assert_eq!(recipe.pruning_at(3).len(), 1);
    }
}
