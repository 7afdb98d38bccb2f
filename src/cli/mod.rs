//! The command line: what it accepts, one file per command, and how errors reach the user.
//! Knows `App` and the terminal; does no work that the server would do differently.

mod adapter;
mod backbone;
mod bench;
mod classifier;
mod classify;
mod config_file;
mod doctor;
mod embed;
mod error;
mod evaluate;
mod images;
mod invert;
mod job_device;
mod jobs;
mod options;
mod pool;
mod pool_quality;
mod prior;
mod recycle;
mod serve;
mod sorted_table;
mod tune;
mod verify;

pub use error::CliError;

use crate::base64_bytes::Base64Bytes;
use ::recycle::over_preset::Recipe;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use options::Common;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use store::Retention;

/// Classify pictures from a few examples, and recycle LoRA adapters into one meta-LoRA.
#[derive(Debug, Parser)]
#[command(name = "lora-recycle", version, max_term_width = 120, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  lora-recycle serve                                  open the page at http://127.0.0.1:8080
  lora-recycle classify --support pets/ new.jpg       each sub-folder of pets/ is a class
  lora-recycle evaluate pictures/ --shot 5 --json     accuracy on 600 random tasks
  lora-recycle doctor                                 check this installation";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the page and the REST interface
    Serve(serve::Serve),
    /// Classify pictures from labelled examples; each sub-folder of the support folder is a class
    Classify(classify::Classify),
    /// Make, fill, list and delete classifiers that stay
    #[command(subcommand)]
    Classifier(classifier::ClassifierCommand),
    /// Print the feature vector of each picture
    Embed(embed::Embed),
    /// List, show and add backbones
    #[command(subcommand)]
    Backbone(backbone::BackboneCommand),
    /// Import, list, merge and export adapters
    #[command(subcommand)]
    Adapter(adapter::AdapterCommand),
    /// Tune adapters on labelled folders
    Tune(tune::Tune),
    /// Make synthetic images from adapters
    Invert(invert::Invert),
    /// Make one meta-LoRA from several adapters
    Recycle(Box<recycle::Recycle>),
    /// List, look at and delete synthetic images
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// List, follow, cancel and retry jobs
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Prepare statistics that inversion compares its images with
    #[command(subcommand)]
    Prior(prior::PriorCommand),
    /// Compare a backbone folder with the reference values it carries
    Verify(verify::Verify),
    /// Measure few-shot accuracy on a folder whose sub-folders are classes
    Evaluate(evaluate::Evaluate),
    /// Time the steps that serving and recycling are made of
    Bench(bench::Bench),
    /// Check this installation and say what to fix
    Doctor(doctor::Doctor),
}

/// Runs the program with the arguments it was started with.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn run() -> Result<(), CliError> {
    let command = config_file::apply(Cli::command())?;
    let matches = command.get_matches();
    let cli =
        Cli::from_arg_matches(&matches).map_err(|error| CliError::usage(error.to_string()))?;
    cli.common.start_logging();
    match cli.command {
        Command::Serve(command) => command.run(&cli.common),
        Command::Classify(command) => command.run(&cli.common),
        Command::Classifier(command) => command.run(&cli.common),
        Command::Embed(command) => command.run(&cli.common),
        Command::Backbone(command) => command.run(&cli.common),
        Command::Adapter(command) => command.run(&cli.common, named_backbone(&matches)),
        Command::Tune(command) => command.run(&cli.common, named_backbone(&matches)),
        Command::Invert(command) => command.run(&cli.common),
        Command::Recycle(command) => command.run(&cli.common),
        Command::Pool(command) => command.run(&cli.common),
        Command::Jobs(command) => command.run(&cli.common),
        Command::Prior(command) => command.run(&cli.common),
        Command::Verify(command) => command.run(&cli.common),
        Command::Evaluate(command) => command.run(&cli.common),
        Command::Bench(command) => command.run(&cli.common),
        Command::Doctor(command) => command.run(&cli.common),
    }
}

/// The backbone that was named on the command line; one that only a file or the environment names is for encoders.
fn named_backbone(matches: &clap::ArgMatches) -> Option<&str> {
    let is_typed = matches.value_source("backbone") == Some(ValueSource::CommandLine);
    let name = matches.get_one::<String>("backbone");
    name.filter(|_| is_typed).map(String::as_str)
}

/// A recipe by the name of one of its presets, or from a JSON file with its fields.
fn preset_or_file<R: Recipe>(chosen: &str) -> Result<R, CliError> {
    let json = if R::presets().iter().any(|preset| preset.is_called(chosen)) {
        json!({ "preset": chosen })
    } else {
        serde_json::from_slice(&read_file(Path::new(chosen))?).map_err(|error| {
            CliError::user(format!("{chosen} is not a recipe: {error}"))
                .hint("a recipe is a JSON object, such as {\"preset\": \"paper\", \"seed\": 1}")
        })?
    };
    R::from_json(&json).map_err(|error| CliError::user(error.to_string()))
}

/// A value that is one of a few words, as in JSON.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(json!(text)).map_err(|error| error.to_string())
}

/// How long images are kept; words of the command line have hyphens.
fn retention(text: &str) -> Result<Retention, String> {
    let words = text.replace('-', "_");
    words.parse().map_err(|_| {
        format!("\"{text}\" is not a retention: keep, after-meta-training or memory-only")
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| CliError::user(format!("{}: {error}", path.display())))
}

/// In place of a file of token statistics: those inside the program.
const SHIPPED_STATISTICS: &str = "shipped";

/// A file as a request carries it.
fn attached(path: Option<&Path>) -> Result<Option<Base64Bytes>, CliError> {
    path.map(|path| read_file(path).map(Base64Bytes))
        .transpose()
}

/// The file of token statistics, unless it is the word for those inside the program.
fn attached_statistics(path: Option<&Path>) -> Result<Option<Base64Bytes>, CliError> {
    attached(path.filter(|path| path.as_os_str() != SHIPPED_STATISTICS))
}
