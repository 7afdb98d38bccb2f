//! `invert`: adapters to synthetic images.

use super::jobs::{RunnerArguments, submit_and_watch};
use super::options::Common;
use super::{CliError, attached, attached_statistics, preset_or_file, retention, word};
use crate::jobs::{self, InvertRequest};
use clap::Args;
use engine::image_parameters::Parametrisation;
use recycle::inversion::{InversionEarlyStop, InversionRecipe};
use recycle::over_preset::OverPreset;
use std::path::PathBuf;
use store::Retention;

const AFTER_HELP: &str = "Synthetic images can show what an adapter has seen. --retention says how long they are kept.

Recipes: hard (the default) makes images that the bare backbone does not separate by itself; fast is the same without that;
paper is the published recipe, 2000 steps on pixels with a BatchNorm prior.

Examples:
  lora-recycle invert pets
  lora-recycle invert task-0000 task-0001 --images-per-class 8 --prune 4:0.75
  lora-recycle invert pets --recipe paper --batch-norm resnet50.safetensors
  lora-recycle invert pets --token-statistics shipped
  lora-recycle invert task-0000 task-0001 --against meta
  lora-recycle pool list                       what was made
  lora-recycle pool sheet ID --out sheet.png   look at it";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Invert {
    /// Adapters with a head: name, name:version or name@alias
    #[arg(value_name = "ADAPTER", required = true)]
    adapters: Vec<String>,
    /// hard, fast, paper, or a JSON file with a recipe's fields
    #[arg(long, value_name = "RECIPE", default_value = InversionRecipe::PRESETS[0].name)]
    recipe: String,
    /// Images of each class (default: 8)
    #[arg(long, value_name = "K")]
    images_per_class: Option<usize>,
    /// Optimiser steps
    #[arg(long, value_name = "S")]
    steps: Option<u64>,
    /// pixels or fourier
    #[arg(long, value_name = "KIND", value_parser = word::<Parametrisation>)]
    parametrisation: Option<Parametrisation>,
    /// Learning rate
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Drop this share of the patches inside this layer, e.g. 4:0.75; may be given several times
    #[arg(long, value_name = "LAYER:RATIO", value_delimiter = ',', value_parser = layer_and_ratio)]
    prune: Vec<(usize, f64)>,
    /// Note only this share of each image's patches as kept
    #[arg(long, value_name = "SHARE")]
    keep_ratio: Option<f64>,
    /// Side of the images in pixels (default: the backbone's own)
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    /// Make images that this adapter, such as a merge or an earlier meta-LoRA, does not tell apart, in place of the bare backbone
    #[arg(long, value_name = "REF")]
    against: Option<String>,
    /// The same seed gives the same images (default: 0)
    #[arg(long, env = "LORA_RECYCLE_SEED")]
    seed: Option<u64>,
    /// Weight of the total variation prior
    #[arg(long, value_name = "WEIGHT")]
    total_variation: Option<f64>,
    /// ResNet in torchvision's layout (safetensors) for the BatchNorm prior; gives it the weight 1 where the recipe gives none
    #[arg(long, value_name = "FILE")]
    batch_norm: Option<PathBuf>,
    /// Statistics made by `prior build`, or the word shipped for those of the embedded backbone; gives their prior the weight 1
    /// where the recipe gives none
    #[arg(long, value_name = "FILE")]
    token_statistics: Option<PathBuf>,
    /// Stop once the loss has settled
    #[arg(long)]
    early_stop: bool,
    /// keep, or after-meta-training to delete the images once they have been used
    #[arg(long, value_name = "WHEN", default_value = "keep", value_parser = retention)]
    retention: Retention,
    #[command(flatten)]
    runner: RunnerArguments,
}

impl Invert {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        if self.retention == Retention::MemoryOnly {
            return Err(CliError::usage(
                "images that are kept in memory alone would be gone when this command ends",
            )
            .hint("choose --retention after-meta-training, or ask a running server for them over REST or on its page"));
        }
        let request = InvertRequest {
            adapters: self.adapters.clone(),
            retention: self.retention,
            recipe: OverPreset(self.recipe()?),
            batch_norm: attached(self.batch_norm.as_deref())?,
            token_statistics: attached_statistics(self.token_statistics.as_deref())?,
            ..InvertRequest::default()
        };
        submit_and_watch::<jobs::Invert>(common, request, self.runner.options(common)).map(|_| ())
    }

    fn recipe(&self) -> Result<InversionRecipe, CliError> {
        let mut recipe: InversionRecipe = preset_or_file(&self.recipe)?;
        let names_other_prior = self.token_statistics.is_some() || self.total_variation.is_some();
        let priors = &mut recipe.priors;
        // The published recipe's own prior would need a file.
        if names_other_prior && self.batch_norm.is_none() && self.recipe == "paper" {
            priors.batch_norm = 0.0;
        }
        // A file is given to be used.
        if self.batch_norm.is_some() && priors.batch_norm == 0.0 {
            priors.batch_norm = 1.0;
        }
        if self.token_statistics.is_some() && priors.token_statistics == 0.0 {
            priors.token_statistics = 1.0;
        }
        if let Some(weight) = self.total_variation {
            priors.total_variation = weight;
        }
        if !self.prune.is_empty() {
            recipe.pruning = self.prune.iter().copied().collect();
        }
        Ok(InversionRecipe {
            seed: self.seed.unwrap_or(recipe.seed),
            against: self.against.clone().or(recipe.against),
            images_per_class: self.images_per_class.unwrap_or(recipe.images_per_class),
            steps: self.steps.unwrap_or(recipe.steps),
            parametrisation: self.parametrisation.unwrap_or(recipe.parametrisation),
            learning_rate: self.learning_rate.unwrap_or(recipe.learning_rate),
            keep_ratio: self.keep_ratio.or(recipe.keep_ratio),
            image_size: self.side.or(recipe.image_size),
            early_stop: match self.early_stop {
                true => Some(InversionEarlyStop::default()),
                false => recipe.early_stop,
            },
            ..recipe
        })
    }
}

fn layer_and_ratio(argument: &str) -> Result<(usize, f64), String> {
    let parsed = argument.split_once(':').and_then(|(layer, ratio)| {
        let layer: usize = layer.trim().parse().ok()?;
        let ratio: f64 = ratio.trim().parse().ok()?;
        Some((layer, ratio))
    });
    parsed.ok_or_else(|| format!("\"{argument}\" is no LAYER:RATIO, such as 4:0.75"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_defaults_of_the_recipes() {
        let command = Invert::augment_args(clap::Command::new("invert"));
        let recipe = InversionRecipe::default();
        for (option, value) in [
            ("images_per_class", recipe.images_per_class as u64),
            ("seed", recipe.seed),
        ] {
            let mut all = command.get_arguments();
            let argument = all.find(|own| own.get_id() == option).expect(option);
            let help = argument.get_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let expected = format!("(default: {value})");
            assert!(help.ends_with(&expected), "{option}: {help} {expected}");
        }
        let steps = InversionRecipe::paper().steps;
        assert!(AFTER_HELP.contains(&format!("{steps} steps on pixels")));
    }
}
