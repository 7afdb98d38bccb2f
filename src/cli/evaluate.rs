//! `evaluate`: few-shot accuracy on a folder of classes.

use super::options::{Common, block_on, print_json, print_line};
use super::{CliError, images};
use crate::app::{App, Embedding};
use crate::recycle::episode::{EpisodeShape, draw_episodes};
use crate::recycle::evaluate::{accuracy, task_accuracies};
use crate::recycle::prototype::Distance;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle evaluate pictures/ --way 5 --shot 1
  lora-recycle evaluate pictures/ --shot 5 --tasks 600 --seed 0 --json")]
pub struct Evaluate {
    /// Folder whose sub-folders are the classes
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Classes in a task
    #[arg(long, env = "LORA_RECYCLE_WAY", default_value_t = 5)]
    way: usize,
    /// Labelled examples a class
    #[arg(long, env = "LORA_RECYCLE_SHOT", default_value_t = 1)]
    shot: usize,
    /// Pictures a class to classify
    #[arg(long, env = "LORA_RECYCLE_QUERIES", default_value_t = 15)]
    queries: usize,
    /// Number of random tasks
    #[arg(long, env = "LORA_RECYCLE_TASKS", default_value_t = 600)]
    tasks: usize,
    /// The same seed draws the same tasks
    #[arg(long, env = "LORA_RECYCLE_SEED", default_value_t = 0)]
    seed: u64,
    /// How features are compared
    #[arg(long, env = "LORA_RECYCLE_DISTANCE", value_enum, default_value_t)]
    distance: Distance,
}

#[derive(Debug, Serialize)]
struct Report {
    way: usize,
    shot: usize,
    queries: usize,
    tasks: usize,
    seed: u64,
    distance: Distance,
    classes: usize,
    images: usize,
    methods: Vec<Method>,
}

#[derive(Debug, Serialize)]
struct Method {
    name: &'static str,
    adapter: Option<String>,
    accuracy: f64,
    ci95: f64,
}

/// Pictures that are read and encoded together.
const CHUNK: usize = 64;

impl Evaluate {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        if self.tasks == 0 {
            return Err(CliError::usage("--tasks must be at least 1"));
        }
        let classes = images::class_folders(&self.folder)?;
        let shape = EpisodeShape {
            way: self.way,
            shot: self.shot,
            queries: self.queries,
        };
        let draw = |sizes: &[usize]| {
            draw_episodes(sizes, shape, self.tasks, self.seed).map_err(|error| {
                CliError::user(error.to_string())
                    .hint("choose a smaller --way, --shot or --queries, or add pictures")
            })
        };
        // Say that there are too few pictures before they are all encoded.
        draw(
            &classes
                .iter()
                .map(|(_, paths)| paths.len())
                .collect::<Vec<_>>(),
        )?;

        let features = block_on(async {
            let app = common.open_app().await?;
            features(&app, &classes).await
        })??;
        let sizes: Vec<usize> = features.iter().map(Vec::len).collect();
        let episodes = draw(&sizes)?;
        let result = accuracy(&task_accuracies(&features, &episodes, self.distance));
        let report = Report {
            way: self.way,
            shot: self.shot,
            queries: self.queries,
            tasks: self.tasks,
            seed: self.seed,
            distance: self.distance,
            classes: features.len(),
            images: sizes.iter().sum(),
            methods: vec![Method {
                name: "bare",
                adapter: None,
                accuracy: result.mean,
                ci95: result.ci95,
            }],
        };
        if common.json {
            return print_json(&report);
        }
        print_line(&format!(
            "{}-way {}-shot, {} queries a class, {} tasks, seed {}: {} pictures in {} classes",
            report.way,
            report.shot,
            report.queries,
            report.tasks,
            report.seed,
            report.images,
            report.classes
        ))?;
        for method in &report.methods {
            print_line(&format!(
                "{:<10} {:5.2} % ± {:.2}",
                method.name,
                100.0 * method.accuracy,
                100.0 * method.ci95
            ))?;
        }
        Ok(())
    }
}

/// `features[class][image]`; unusable pictures are left out with a warning.
async fn features(
    app: &App,
    classes: &[(String, Vec<PathBuf>)],
) -> Result<Vec<Vec<Vec<f32>>>, CliError> {
    let total: usize = classes.iter().map(|(_, paths)| paths.len()).sum();
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) =
        ProgressStyle::with_template("encoding {bar:30} {pos}/{len} pictures, {eta} left")
    {
        bar.set_style(style);
    }
    let mut features = Vec::with_capacity(classes.len());
    for (_, paths) in classes {
        let mut of_class = Vec::with_capacity(paths.len());
        for chunk in paths.chunks(CHUNK) {
            let read = chunk
                .iter()
                .map(|path| images::read(path))
                .collect::<Result<Vec<_>, _>>()?;
            for embedding in app.embed(read, None).await? {
                match embedding {
                    Embedding::Embedded { feature, .. } => of_class.push(feature),
                    Embedding::Failed { image, error } => {
                        bar.suspend(|| eprintln!("warning: {image}: {}", error.message));
                    }
                }
            }
            bar.inc(chunk.len() as u64);
        }
        features.push(of_class);
    }
    bar.finish_and_clear();
    Ok(features)
}
