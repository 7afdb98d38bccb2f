//! `invert`: adapters to synthetic images.

use super::jobs::{RunnerArguments, submit_and_watch};
use super::options::Common;
use super::{CliError, preset_or_file, prior_files};
use crate::jobs::JobRequest;
use clap::Args;
use recycle::inversion::InversionRecipe;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

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
    #[arg(long, value_name = "KIND")]
    parametrisation: Option<String>,
    /// Learning rate
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Drop this share of the patches inside this layer, e.g. 4:0.75; may be given several times
    #[arg(long, value_name = "LAYER:RATIO", value_delimiter = ',')]
    prune: Vec<String>,
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
    #[arg(long, value_name = "WHEN", default_value = "keep")]
    retention: String,
    #[command(flatten)]
    runner: RunnerArguments,
}

impl Invert {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let retention = match self.retention.replace('-', "_").as_str() {
            "memory_only" => {
                return Err(CliError::usage(
                    "images that are kept in memory alone would be gone when this command ends",
                )
                .hint("choose --retention after-meta-training, or ask a running server for them over REST or on its page"));
            }
            other => other.to_owned(),
        };
        let files = prior_files(self.batch_norm.as_deref(), self.token_statistics.as_deref())?;
        let mut parameters = Map::new();
        parameters.insert("adapters".into(), json!(self.adapters));
        parameters.insert("retention".into(), retention.into());
        parameters.insert("recipe".into(), Value::Object(self.recipe()?));
        let request = JobRequest {
            kind: "invert".into(),
            parameters,
            files,
            ..JobRequest::default()
        };
        submit_and_watch(common, request, self.runner.options(common)).map(|_| ())
    }

    fn recipe(&self) -> Result<Map<String, Value>, CliError> {
        let mut recipe = preset_or_file(&self.recipe, &InversionRecipe::PRESETS)?;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                recipe.insert(name.into(), value);
            }
        };
        set("seed", self.seed.map(Value::from));
        set("against", self.against.clone().map(Value::from));
        set("images_per_class", self.images_per_class.map(Value::from));
        set("steps", self.steps.map(Value::from));
        set(
            "parametrisation",
            self.parametrisation.clone().map(Value::from),
        );
        set("learning_rate", self.learning_rate.map(Value::from));
        set("keep_ratio", self.keep_ratio.map(Value::from));
        set("image_size", self.side.map(Value::from));
        set("early_stop", self.early_stop.then(|| json!({})));
        if !self.prune.is_empty() {
            set("pruning", Some(Value::Object(pruning(&self.prune)?)));
        }
        if let Some(priors) = self.priors(recipe.get("priors")) {
            recipe.insert("priors".into(), priors);
        }
        Ok(recipe)
    }

    /// The priors of a recipe with the weights that flags give.
    fn priors(&self, own: Option<&Value>) -> Option<Value> {
        let mut priors = own.and_then(Value::as_object).cloned().unwrap_or_default();
        if self.batch_norm.is_some() {
            priors.entry("batch_norm").or_insert(json!(1.0));
        }
        if self.token_statistics.is_some() {
            priors.entry("token_statistics").or_insert(json!(1.0));
        }
        if let Some(weight) = self.total_variation {
            priors.insert("total_variation".into(), json!(weight));
        }
        (!priors.is_empty()).then_some(Value::Object(priors))
    }
}

fn pruning(arguments: &[String]) -> Result<Map<String, Value>, CliError> {
    arguments
        .iter()
        .map(|argument| {
            let parsed = argument.split_once(':').and_then(|(layer, ratio)| {
                let layer: usize = layer.trim().parse().ok()?;
                let ratio: f64 = ratio.trim().parse().ok()?;
                Some((layer.to_string(), json!(ratio)))
            });
            parsed.ok_or_else(|| {
                CliError::usage(format!(
                    "--prune {argument} is no LAYER:RATIO, such as 4:0.75"
                ))
            })
        })
        .collect()
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
