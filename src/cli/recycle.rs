//! `recycle`: adapters to one meta-LoRA.

use super::evaluate::print_table;
use super::jobs::{RunnerArguments, submit_and_watch};
use super::options::{Common, print_line};
use super::{
    CliError, attached, attached_statistics, images, preset_or_file, read_file, retention,
};
use crate::app::evaluation::{EvaluationRecipe, Method};
use crate::base64_bytes::Base64Bytes;
use crate::jobs::{self, RecipeFile, RecycleEstimate, RecycleOutcome, RecycleRequest};
use ::recycle::inversion::InversionRecipe;
use ::recycle::layers::Layers;
use ::recycle::meta_train::{MergeCoefficientRecipe, MetaTrainRecipe, Shots, Sparsity, Start};
use ::recycle::over_preset::OverPreset;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use store::{Name, Retention};

const AFTER_HELP: &str = "Makes synthetic images of each adapter (or takes those that are there), and learns one adapter from few-shot tasks on them.

Recipes: standard (the default) starts from the sum of the adapters' changes, sees half of each image's tokens, and takes minutes; paper is the published recipe, 240000
episodes from zero, with the published inversion unless --inversion says otherwise.

Examples:
  lora-recycle recycle task-0000 task-0001 task-0002 --name meta --dry-run      what it will cost
  lora-recycle recycle task-0000 task-0001 task-0002 --name meta --save-recipe meta.json
  lora-recycle recycle task-0000 task-0001 --name meta --layers last-4 --episodes 300
  lora-recycle recycle task-0000 task-0001 task-0002 --name meta --evaluate new-classes/
                                                                              and what it is worth on classes that none has seen
  lora-recycle recycle --from-recipe meta.json                                  the same meta-LoRA again";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, after_long_help = after_long_help())]
pub struct Recycle {
    /// Adapters with a head, of one backbone: name, name:version or name@alias
    #[arg(
        value_name = "ADAPTER",
        required_unless_present = "from_recipe",
        conflicts_with = "from_recipe"
    )]
    adapters: Vec<String>,
    /// Name of the meta-LoRA in the registry
    #[arg(long, value_name = "NAME", required_unless_present = "from_recipe")]
    name: Option<Name>,
    /// Recipe of meta-training: standard, paper, or a JSON file with a recipe's fields
    #[arg(long, value_name = "RECIPE", default_value = MetaTrainRecipe::PRESETS[0].name)]
    recipe: String,
    /// Recipe of the images: hard, fast, paper, or a JSON file with a recipe's fields (default: hard; paper for --recipe paper)
    #[arg(long, value_name = "RECIPE")]
    inversion: Option<String>,
    /// Tasks to learn from, one optimiser step each (default: 1200, in paper 240000)
    #[arg(long, value_name = "E")]
    episodes: Option<u64>,
    /// Layers that are adapted: all, last-6, last-6-at-most (all of a backbone that has fewer), or numbers such as 0,1,2 (default: last-6-at-most, in paper all)
    #[arg(long, value_name = "LAYERS")]
    layers: Option<Layers>,
    /// Share of each image's patches that are left out, or stored for what the images' recipe pruned (default: 0.5, in paper 0)
    #[arg(long, value_name = "SHARE", value_parser = sparsity)]
    sparsity: Option<Sparsity>,
    /// Classes of a task (default: 5)
    #[arg(long, value_name = "WAY")]
    way: Option<usize>,
    /// Support images of a class, a number or a range such as 1-5 (default: 1)
    #[arg(long, value_name = "K", value_parser = shots)]
    shots: Option<Shots>,
    /// Rank of the meta-LoRA (default: 16, in paper 4)
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// zero, or merge: from the sum of the adapters' changes
    #[arg(long, value_name = "START")]
    start: Option<String>,
    /// Scale of that sum
    #[arg(long, alias = "factor", value_name = "SCALE")] // old spelling
    scale: Option<f64>,
    /// First learn a merge coefficient for each adapter and layer of that sum, in this many steps; 0 for none (default: 60, in paper 0)
    #[arg(long, alias = "learn-factors", value_name = "STEPS")] // old spelling
    merge_coefficients: Option<u64>,
    /// Share of tasks that mix classes of several adapters (default: 0.5)
    #[arg(long, value_name = "SHARE")]
    mixed: Option<f64>,
    /// Highest learning rate of each cycle (default: 0.0006, in paper 0.001)
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Synthetic images of each class (default: 8)
    #[arg(long, value_name = "K")]
    images_per_class: Option<usize>,
    /// Optimiser steps of the images
    #[arg(long, value_name = "S")]
    inversion_steps: Option<u64>,
    /// ResNet in torchvision's layout (safetensors) for the BatchNorm prior
    #[arg(long, value_name = "FILE")]
    batch_norm: Option<PathBuf>,
    /// Statistics made by `prior build`, or the word shipped for those of the embedded backbone
    #[arg(long, value_name = "FILE")]
    token_statistics: Option<PathBuf>,
    /// keep, after-meta-training or memory-only: how long the images are kept
    #[arg(long, value_name = "WHEN", default_value = "keep", value_parser = retention)]
    retention: Retention,
    /// The same seed gives the same images and the same meta-LoRA, on the same number of threads
    #[arg(long, env = "LORA_RECYCLE_SEED")]
    seed: Option<u64>,
    /// Learn also from images of which their adapter recognises less than 90 %
    #[arg(long)]
    use_failed_images: bool,
    /// Rebuild what this recipe file describes
    #[arg(long, value_name = "FILE")]
    from_recipe: Option<PathBuf>,
    /// Write the recipe file, from which the same meta-LoRA can be rebuilt
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    save_recipe: Option<PathBuf>,
    /// Control: learn from the pictures in this folder, one sub-folder for each class of the adapters, in place of synthetic images
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    /// Folder of pictures of classes that no adapter has seen, one sub-folder per class, to choose the best state on; not those of
    /// --evaluate (default: held-out synthetic images)
    #[arg(long, value_name = "DIR")]
    validation: Option<PathBuf>,
    /// Folder of pictures of classes that no adapter has seen, one sub-folder per class: compares the meta-LoRA with the bare backbone
    /// and merges of the same adapters on it
    #[arg(long, value_name = "DIR")]
    evaluate: Option<PathBuf>,
    /// Methods of that comparison, as `evaluate` names them (default: adapter, bare, average, sum)
    #[arg(
        long,
        value_name = "M1,M2",
        value_delimiter = ',',
        requires = "evaluate"
    )]
    evaluate_methods: Vec<Method>,
    /// Number of its tasks (default: 600)
    #[arg(long, value_name = "N", requires = "evaluate")]
    evaluate_tasks: Option<usize>,
    /// Its classes in a task (default: 5)
    #[arg(long, value_name = "WAY", requires = "evaluate")]
    evaluate_way: Option<usize>,
    /// Its support images of a class (default: 1)
    #[arg(long, value_name = "K", requires = "evaluate")]
    evaluate_shot: Option<usize>,
    /// Its query images of a class (default: 15)
    #[arg(long, value_name = "Q", requires = "evaluate")]
    evaluate_queries: Option<usize>,
    /// Time a few steps and say what it will cost, without making anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    runner: RunnerArguments,
}

impl Recycle {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let mut runner = self.runner.options(common);
        let mut request = RecycleRequest {
            name: self.name.clone(),
            retention: self.retention,
            use_failed_images: self.use_failed_images,
            dry_run: self.dry_run,
            validation: folder_as_zip(self.validation.as_deref())?,
            real: folder_as_zip(self.real.as_deref())?,
            batch_norm: attached(self.batch_norm.as_deref())?,
            token_statistics: attached_statistics(self.token_statistics.as_deref())?,
            ..RecycleRequest::default()
        };
        match &self.from_recipe {
            Some(path) => {
                let file = recipe_file(path)?;
                if runner.threads == 0 {
                    // The last bits depend on it.
                    runner.threads = file.threads;
                }
                request.recipe_file = Some(file);
            }
            None => {
                request.adapters.clone_from(&self.adapters);
                request.recipe = Some(OverPreset(self.meta_training()?));
                request.inversion = Some(OverPreset(self.inversion()?));
            }
        }
        if let Some(folder) = &self.evaluate {
            request.pictures = images::labelled_files(folder, &[])?;
            request.evaluation = Some(self.evaluation());
        }
        let jobs = submit_and_watch::<jobs::Recycle>(common, request, runner)?;
        let outcome = jobs.first().map(jobs::outcome::<jobs::Recycle>).transpose();
        let outcome = outcome.map_err(|error| {
            CliError::internal(format!("the result of the job cannot be read: {error}"))
        })?;
        match outcome.flatten() {
            None => Ok(()),
            Some(RecycleOutcome::Estimated(_)) if common.json => Ok(()),
            Some(RecycleOutcome::Estimated(estimate)) => print_estimate(&estimate),
            Some(RecycleOutcome::Made(result)) => {
                let made = &result.made;
                if let (Some(path), Some(file)) = (&self.save_recipe, &made.recipe_file) {
                    write_recipe(path, file)?;
                }
                if made.is_as_expected == Some(false) {
                    return Err(CliError::user(
                        "the meta-LoRA was made, but it is not that of the recipe file",
                    )
                    .hint(
                        "`lora-recycle jobs show` has the reason; the number of threads must be the same",
                    ));
                }
                let figures = made.figures.as_ref();
                match figures.and_then(|figures| figures.evaluation.as_ref()) {
                    Some(report) if !common.json => print_table(report),
                    _ => Ok(()),
                }
            }
        }
    }

    /// How the meta-LoRA is measured on the pictures of --evaluate.
    fn evaluation(&self) -> EvaluationRecipe {
        let usual = EvaluationRecipe::default();
        EvaluationRecipe {
            methods: self.evaluate_methods.clone(),
            tasks: self.evaluate_tasks.unwrap_or(usual.tasks),
            way: self.evaluate_way.unwrap_or(usual.way),
            shot: self.evaluate_shot.unwrap_or(usual.shot),
            queries: self.evaluate_queries.unwrap_or(usual.queries),
            ..usual
        }
    }

    fn meta_training(&self) -> Result<MetaTrainRecipe, CliError> {
        let recipe: MetaTrainRecipe = preset_or_file(&self.recipe)?;
        let start = self.start()?;
        let merge_coefficients = match self.merge_coefficients {
            Some(0) => None,
            Some(steps) => Some(MergeCoefficientRecipe {
                steps,
                ..recipe.merge_coefficients.unwrap_or_default()
            }),
            // A start from zero has no sum.
            None if start == Some(Start::Zero) => None,
            None => recipe.merge_coefficients,
        };
        Ok(MetaTrainRecipe {
            episodes: self.episodes.unwrap_or(recipe.episodes),
            layers: self.layers.clone().unwrap_or(recipe.layers),
            way: self.way.unwrap_or(recipe.way),
            rank: self.rank.unwrap_or(recipe.rank),
            share_of_mixed_episodes: self.mixed.unwrap_or(recipe.share_of_mixed_episodes),
            learning_rate: self.learning_rate.unwrap_or(recipe.learning_rate),
            seed: self.seed.unwrap_or(recipe.seed),
            shots: self.shots.unwrap_or(recipe.shots),
            sparsity: self.sparsity.unwrap_or(recipe.sparsity),
            start: start.unwrap_or(recipe.start),
            merge_coefficients,
            ..recipe
        })
    }

    fn start(&self) -> Result<Option<Start>, CliError> {
        match (self.start.as_deref(), self.scale) {
            (None, None) => Ok(None),
            (Some("zero"), None) => Ok(Some(Start::Zero)),
            (None | Some("merge"), scale) => Ok(Some(Start::Merge { scale })),
            (Some("zero"), Some(_)) => Err(CliError::usage(
                "--scale is of the sum that --start merge begins with; leave it out with --start zero",
            )),
            (Some(other), _) => Err(CliError::usage(format!(
                "--start {other} is not known: zero or merge"
            ))),
        }
    }

    fn inversion(&self) -> Result<InversionRecipe, CliError> {
        let recipe: InversionRecipe = match (self.inversion.as_deref(), self.recipe.as_str()) {
            (Some(chosen), _) => preset_or_file(chosen)?,
            (None, "paper") => InversionRecipe::paper(),
            (None, _) => InversionRecipe::default(),
        };
        Ok(InversionRecipe {
            images_per_class: self.images_per_class.unwrap_or(recipe.images_per_class),
            steps: self.inversion_steps.unwrap_or(recipe.steps),
            seed: self.seed.unwrap_or(recipe.seed),
            ..recipe
        })
    }
}

/// [`AFTER_HELP`], and the values of both presets.
fn after_long_help() -> String {
    let [standard, paper] = MetaTrainRecipe::PRESETS.map(|own| (own.name, json!((own.recipe)())));
    let words = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = standard.1.as_object().into_iter().flatten();
    let lines = fields.map(|(field, value)| {
        let other = &paper.1[field];
        let other = match other == value {
            true => String::new(),
            false => format!("; {}: {}", paper.0, words(other)),
        };
        format!("\n  {field:<24}{}{other}", words(value))
    });
    let lines: String = lines.collect();
    format!(
        "{AFTER_HELP}\n\nFields of --recipe {}, and what {} has in their place:{lines}",
        standard.0, paper.0
    )
}

/// A folder of labelled pictures as a request carries it.
fn folder_as_zip(folder: Option<&Path>) -> Result<Option<Base64Bytes>, CliError> {
    let zipped = |folder| images::zip_of(images::labelled_files(folder, &[])?).map(Base64Bytes);
    folder.map(zipped).transpose()
}

/// `3`, or `1-5` with both ends.
fn shots(text: &str) -> Result<Shots, String> {
    let number = |part: &str| part.trim().parse::<usize>().ok();
    let read = match text.split_once('-') {
        None => number(text).map(Shots::Fixed),
        Some((fewest, most)) => number(fewest)
            .zip(number(most))
            .map(|(fewest, most)| Shots::Between([fewest, most])),
    };
    read.ok_or_else(|| format!("\"{text}\" is neither a number nor a range such as 1-5"))
}

/// A share, or the word `stored`.
fn sparsity(text: &str) -> Result<Sparsity, String> {
    match text.parse() {
        Ok(share) => Ok(Sparsity::Share(share)),
        Err(_) if text == "stored" => Ok(Sparsity::STORED),
        Err(_) => Err(format!(
            "\"{text}\" is neither a share such as 0.5 nor the word stored"
        )),
    }
}

fn recipe_file(path: &Path) -> Result<RecipeFile, CliError> {
    serde_json::from_slice(&read_file(path)?).map_err(|error| {
        CliError::user(format!("{} is not a recipe file: {error}", path.display()))
            .hint("`recycle … --save-recipe FILE` writes one")
    })
}

fn write_recipe(path: &Path, file: &RecipeFile) -> Result<(), CliError> {
    let mut text =
        serde_json::to_vec_pretty(file).map_err(|error| CliError::internal(error.to_string()))?;
    text.push(b'\n');
    std::fs::write(path, text)
        .map_err(|error| CliError::user(format!("{}: {error}", path.display())))
}

/// The estimate for people.
fn print_estimate(estimate: &RecycleEstimate) -> Result<(), CliError> {
    let minutes = |seconds: f64| {
        let seconds = seconds.ceil() as u64;
        format!("{}:{:02} min", seconds / 60, seconds % 60)
    };
    let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    print_line(&format!(
        "images to make\tof {} of {} adapters",
        estimate.inversions, estimate.adapters
    ))?;
    print_line(&format!(
        "time\t{}, of it {} for the images and {} to measure the result",
        minutes(estimate.seconds),
        minutes(estimate.inversion_seconds),
        minutes(estimate.evaluation_seconds)
    ))?;
    print_line(&format!(
        "memory\t{} in addition to what the program holds",
        estimate
            .memory_bytes
            .map_or_else(|| "not known here".to_owned(), mebibytes)
    ))?;
    print_line(&format!("disk\tat most {}", mebibytes(estimate.disk_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Display;

    /// What help says about a field of the recipes.
    fn defaults<T: Display + PartialEq>(of: impl Fn(&MetaTrainRecipe) -> T) -> String {
        let [standard, paper] = MetaTrainRecipe::PRESETS.map(|preset| of(&(preset.recipe)()));
        match standard == paper {
            true => format!("(default: {standard})"),
            false => format!("(default: {standard}, in paper {paper})"),
        }
    }

    fn dropped(recipe: &MetaTrainRecipe) -> f64 {
        match recipe.sparsity {
            Sparsity::Share(share) => share,
            Sparsity::Stored(_) => f64::NAN,
        }
    }

    #[test]
    fn help_names_the_defaults_of_the_recipes() {
        let command = Recycle::augment_args(clap::Command::new("recycle"));
        let tasks = EvaluationRecipe::default();
        let one = |value: &dyn Display| format!("(default: {value})");
        let shots = |own: &MetaTrainRecipe| match own.shots {
            Shots::Fixed(shots) => shots.to_string(),
            Shots::Between([fewest, most]) => format!("{fewest}-{most}"),
        };
        let steps = |own: &MetaTrainRecipe| own.merge_coefficients.map_or(0, |own| own.steps);
        for (option, expected) in [
            ("episodes", defaults(|own| own.episodes)),
            ("layers", defaults(|own| own.layers.to_string())),
            ("sparsity", defaults(dropped)),
            ("way", defaults(|own| own.way)),
            ("shots", defaults(shots)),
            ("rank", defaults(|own| own.rank)),
            ("merge_coefficients", defaults(steps)),
            ("mixed", defaults(|own| own.share_of_mixed_episodes)),
            ("learning_rate", defaults(|own| own.learning_rate)),
            (
                "images_per_class",
                one(&InversionRecipe::default().images_per_class),
            ),
            ("evaluate_tasks", one(&tasks.tasks)),
            ("evaluate_way", one(&tasks.way)),
            ("evaluate_shot", one(&tasks.shot)),
            ("evaluate_queries", one(&tasks.queries)),
        ] {
            let mut all = command.get_arguments();
            let argument = all.find(|own| own.get_id() == option).expect(option);
            let help = argument.get_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            assert!(help.ends_with(&expected), "{option}: {help} {expected}");
        }
        assert_eq!(dropped(&MetaTrainRecipe::standard()), 0.5);
        assert!(AFTER_HELP.contains("sees half of each image's tokens"));
        let episodes = MetaTrainRecipe::paper().episodes.to_string();
        assert!(AFTER_HELP.contains(&episodes));
        let whole = after_long_help() + "\n";
        for field in [
            "rank                    16; paper: 4",
            "way                     5\n",
        ] {
            assert!(whole.contains(field), "{whole}");
        }
    }
}
