//! `tune`: labelled folders to adapters.

use super::CliError;
use super::images;
use super::jobs::{RunnerArguments, submit_and_watch};
use super::options::Common;
use crate::jobs;
use clap::Args;
use recycle::layers::Layers;
use recycle::over_preset::OverPreset;
use recycle::tune::{TuneEarlyStop, TuneRecipe};
use std::path::PathBuf;
use store::Name;

#[derive(Debug, Args)]
#[command(
    after_help = "Each sub-folder of DIR is a class. The pictures are kept until the adapter is done, then deleted.

Examples:
  lora-recycle tune pets/ --name pets
  lora-recycle tune letters/ --name letters --classes a,b,c,d,e --steps 100
  lora-recycle tune letters/ --name task --episodes 20 --way 5    task-0000 to task-0019, each on 5 random classes"
)]
pub struct Tune {
    /// Folder whose sub-folders are the classes
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Name of the adapter in the registry
    #[arg(long, value_name = "NAME")]
    name: Name,
    /// Only these classes
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Tune this many adapters, each on a random choice of classes
    #[arg(long, value_name = "E")]
    episodes: Option<usize>,
    /// Classes of each of these choices (default: 5)
    #[arg(long, value_name = "WAY", requires = "episodes")]
    way: Option<usize>,
    /// The same seed gives the same adapters
    #[arg(long, env = "LORA_RECYCLE_SEED", default_value_t = 0)]
    seed: u64,
    /// Optimiser steps (default: 60)
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Passes over the pictures, instead of --steps
    #[arg(long, value_name = "N")]
    epochs: Option<f64>,
    /// Pictures in a step (default: 64)
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Rank of the adapter (default: 4)
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Layers that are adapted: all, last-6, or numbers such as 0,1,2 (default: all)
    #[arg(long, value_name = "LAYERS")]
    layers: Option<Layers>,
    /// Learning rate of the LoRA matrices (default: 0.001)
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Learning rate of the head (default: 0.01)
    #[arg(long, value_name = "RATE")]
    head_learning_rate: Option<f64>,
    /// Share of each class that is held out to measure the adapter on (default: 0.2)
    #[arg(long, value_name = "SHARE")]
    held_out: Option<f64>,
    /// Stop once the held-out pictures are recognised no better, and keep the best state
    #[arg(long)]
    early_stop: bool,
    #[command(flatten)]
    runner: RunnerArguments,
}

impl Tune {
    /// `backbone` is the one that was named on the command line.
    pub fn run(&self, common: &Common, backbone: Option<&str>) -> Result<(), CliError> {
        let request = jobs::TuneRequest {
            backbone: backbone.map(str::to_owned),
            classes: (!self.classes.is_empty()).then(|| self.classes.clone()),
            episodes: self.episodes,
            way: self.way,
            recipe: OverPreset(self.recipe()),
            pictures: images::labelled_files(&self.folder, &self.classes)?,
            ..jobs::TuneRequest::new(self.name.clone())
        };
        submit_and_watch::<jobs::Tune>(common, request, self.runner.options(common)).map(|_| ())
    }

    fn recipe(&self) -> TuneRecipe {
        let usual = TuneRecipe::default();
        TuneRecipe {
            seed: self.seed,
            steps: self.steps,
            epochs: self.epochs,
            batch_size: self.batch_size.unwrap_or(usual.batch_size),
            rank: self.rank.unwrap_or(usual.rank),
            layers: self.layers.clone().unwrap_or(usual.layers),
            learning_rate: self.learning_rate.unwrap_or(usual.learning_rate),
            head_learning_rate: self.head_learning_rate.unwrap_or(usual.head_learning_rate),
            held_out: self.held_out.unwrap_or(usual.held_out),
            early_stop: self.early_stop.then(TuneEarlyStop::default),
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_defaults_of_the_recipe() {
        let command = Tune::augment_args(clap::Command::new("tune"));
        let recipe = TuneRecipe::default();
        for (option, value) in [
            ("steps", recipe.total_steps(1).to_string()),
            ("batch_size", recipe.batch_size.to_string()),
            ("rank", recipe.rank.to_string()),
            ("layers", recipe.layers.to_string()),
            ("learning_rate", recipe.learning_rate.to_string()),
            ("head_learning_rate", recipe.head_learning_rate.to_string()),
            ("held_out", recipe.held_out.to_string()),
        ] {
            let mut all = command.get_arguments();
            let argument = all.find(|own| own.get_id() == option).expect(option);
            let help = argument.get_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let expected = format!("(default: {value})");
            assert!(help.ends_with(&expected), "{option}: {help} {expected}");
        }
    }
}
