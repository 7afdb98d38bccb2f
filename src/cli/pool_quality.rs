//! `pool quality`: what synthetic images are worth, and what each adapter adds.

use super::evaluate::print_left_out;
use super::options::{Common, TaskShape, print_json, print_line, progress_bar, show};
use super::{CliError, images};
use crate::app::App;
use crate::app::evaluation::{Evaluation, EvaluationRecipe};
use crate::app::pool_quality::PoolQuality;
use clap::Args;
use recycle::episode::EpisodeShape;
use serde_json::json;
use std::path::PathBuf;
use store::PoolRecord;

#[derive(Debug, Args)]
pub struct QualityOptions {
    /// Folder of real pictures, one sub-folder a class, to compare the images with
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    /// Folder of real pictures of classes that no adapter has seen, to say what each adapter adds to the sum of all
    #[arg(long, value_name = "DIR")]
    validation: Option<PathBuf>,
    /// Scale of that sum [default: the best on synthetic tasks]
    #[arg(long, alias = "factor", value_name = "X", requires = "validation")]
    scale: Option<f64>,
    #[command(flatten)]
    shape: TaskShape,
    /// Labelled examples a class
    #[arg(long, env = "LORA_RECYCLE_SHOT", default_value_t = 1)]
    shot: usize,
    /// Number of random tasks on --validation
    #[arg(long, value_name = "N", default_value_t = 200)]
    tasks: usize,
    /// The same seed draws the same tasks
    #[arg(long, env = "LORA_RECYCLE_SEED", default_value_t = 0)]
    seed: u64,
}

impl QualityOptions {
    /// Measures `pools`, which `app` has in its registry.
    pub async fn run(
        &self,
        common: &Common,
        app: &App,
        pools: &[PoolRecord],
    ) -> Result<(), CliError> {
        if self.tasks == 0 {
            return Err(CliError::usage("--tasks must be at least 1"));
        }
        let preprocess = &app.backbone.preprocess;
        let load = |folder: &PathBuf| images::labelled(&images::class_folders(folder)?, preprocess);
        let real = self.real.as_ref().map(load).transpose()?;
        let validation = self.validation.as_ref().map(load).transpose()?;
        let real = match &real {
            Some(real) => Some(app.bare_features(real).await?),
            None => None,
        };
        let mut measured = Vec::with_capacity(pools.len());
        for pool in pools {
            measured.push(app.pool_quality(pool, real.as_deref()).await?);
        }
        let left_out = match &validation {
            Some(validation) => {
                let bar = progress_bar();
                let progress = |phase: &'static str, done, total| show(&bar, phase, done, total);
                let request = self.request(common, pools);
                let left_out = app.leave_one_out(validation, &request, self.scale, &progress);
                let left_out = left_out.await?;
                bar.finish_and_clear();
                Some(left_out)
            }
            None => None,
        };
        if common.json {
            return print_json(&json!({ "pools": measured, "leave_one_out": left_out }));
        }
        for pool in &measured {
            print_pool(pool)?;
        }
        left_out.as_ref().map_or(Ok(()), print_left_out)
    }

    fn request(&self, common: &Common, pools: &[PoolRecord]) -> Evaluation {
        let mut adapters: Vec<String> = Vec::new();
        for pool in pools {
            let id = pool.adapter_id.to_string();
            if !adapters.contains(&id) {
                adapters.push(id);
            }
        }
        let EpisodeShape { way, shot, queries } = self.shape.with_shot(self.shot);
        Evaluation {
            recipe: EvaluationRecipe {
                way,
                shot,
                queries,
                tasks: self.tasks,
                seed: self.seed,
                ..EvaluationRecipe::default()
            },
            pool: adapters,
            threads: common.threads,
            ..Evaluation::default()
        }
    }
}

fn print_pool(pool: &PoolQuality) -> Result<(), CliError> {
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |own| format!("{own:.3}"));
    print_line(&format!(
        "pool\t{}\t{}\t{} images",
        pool.pool, pool.adapter, pool.images
    ))?;
    print_line(&format!(
        "  teacher\taccuracy {:.1} %\tcross-entropy {:.3}",
        100.0 * pool.teacher_accuracy,
        pool.teacher_cross_entropy
    ))?;
    print_line(&format!(
        "  bare cross-entropy\t{}",
        number(pool.bare_cross_entropy)
    ))?;
    print_line(&format!("  diversity\t{}", number(pool.diversity)))?;
    for class in &pool.classes {
        print_line(&format!(
            "  class\t{}\t{} images\tdiversity {}",
            class.label,
            class.images,
            number(class.diversity)
        ))?;
    }
    if let Some(real) = pool.real {
        print_line(&format!(
            "  beside {} real images\tFréchet distance {:.3}\tprecision {:.1} %\trecall {:.1} %",
            real.real_images,
            real.frechet_distance,
            100.0 * real.precision,
            100.0 * real.recall
        ))?;
    }
    for other in &pool.similar {
        let duplicate = if other.near_duplicate {
            "\tnearly the same"
        } else {
            ""
        };
        let shared = if other.shared_classes.is_empty() {
            "no class in common".to_owned()
        } else {
            format!("classes in common: {}", other.shared_classes.join(", "))
        };
        print_line(&format!(
            "  other adapter\t{}\tcosine of changes {}\t{shared}{duplicate}",
            other.adapter,
            number(other.similarity)
        ))?;
    }
    Ok(())
}
