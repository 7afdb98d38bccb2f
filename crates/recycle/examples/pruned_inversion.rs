//! What token pruning does to inversion: the same adapters inverted without it, with it, and with it and the residual where the
//! published code takes it by mistake. The three runs take their steps in turns, so that what else the machine does meets all alike.
//!
//!     cargo run --release -p recycle --example pruned_inversion -- [--layer 4] [--ratio 0.75] [--steps 60] [--threads 2] FOLDER…
//!
//! A FOLDER is an adapter with a head on the embedded backbone, as `lora-recycle adapter export` writes it. A line of JSON for
//! each adapter and mode.

#![allow(clippy::print_stdout, reason = "figures go to stdout")]

use clap::Parser;
use engine::session::SessionOptions;
use model::adapter::{Adapter, BackboneCandidate, FileLimits, import, read_folder};
use model::backbone::{EMBEDDED_NAME, embedded};
use recycle::inversion::{Inversion, InversionRecipe, PriorData};
use recycle::steps::Steps;
use serde_json::json;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
struct Arguments {
    /// 0-based layer that patches are dropped in
    #[arg(long, default_value_t = 4)]
    layer: usize,
    /// Share of the patches that is dropped
    #[arg(long, default_value_t = 0.75)]
    ratio: f64,
    /// Of the recipe `fast`, whose number is the default
    #[arg(long, default_value_t = InversionRecipe::fast().steps)]
    steps: u64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(required = true)]
    folders: Vec<PathBuf>,
}

fn median(milliseconds: &mut [f64]) -> f64 {
    milliseconds.sort_by(f64::total_cmp);
    milliseconds
        .get(milliseconds.len() / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let backbone = embedded()?;
    let candidate = BackboneCandidate::of(EMBEDDED_NAME, &backbone);
    let options = SessionOptions::on_threads(arguments.threads);
    for folder in &arguments.folders {
        let files = read_folder(folder, &FileLimits::default())?;
        let imported = import(&files, std::slice::from_ref(&candidate));
        let adapter: Adapter = imported.map_err(|report| report.errors.join("; "))?.adapter;
        let mut runs = Vec::new();
        for (mode, prunes, published_residual) in [
            ("dense", false, false),
            ("pruned", true, false),
            ("pruned, published residual", true, true),
        ] {
            let mut recipe = InversionRecipe {
                seed: arguments.seed,
                steps: arguments.steps,
                published_residual,
                ..InversionRecipe::fast()
            };
            if prunes {
                recipe.pruning.insert(arguments.layer, arguments.ratio);
            }
            let pruned_from = (recipe.pruning_start * recipe.steps as f64).ceil() as u64;
            let data = PriorData::default();
            let inversion =
                Inversion::new(&backbone, adapter.clone(), data, recipe, options.clone())?;
            runs.push((mode, inversion, pruned_from, Vec::new()));
        }
        let mut number = 0;
        while runs.iter().any(|(_, inversion, ..)| !inversion.is_done()) {
            for (_, inversion, pruned_from, milliseconds) in &mut runs {
                if inversion.is_done() {
                    continue;
                }
                let start = Instant::now();
                let report = inversion.step()?;
                let judged = report
                    .figures
                    .iter()
                    .any(|(name, _)| name.starts_with("judged"));
                // A step that also judges the images takes longer, the same in every mode.
                if number >= *pruned_from && report.phase == "inverting" && !judged {
                    milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
            number += 1;
        }
        for (mode, mut inversion, _, mut milliseconds) in runs {
            let outcome = inversion
                .outcome()?
                .ok_or("an inversion without a result")?;
            let line = json!({
                "adapter": folder.file_name().map(|name| name.to_string_lossy()),
                "mode": mode,
                "milliseconds_a_step": median(&mut milliseconds),
                "teacher_accuracy": outcome.quality.teacher_accuracy,
                "teacher_cross_entropy": outcome.quality.teacher_cross_entropy,
                "bare_cross_entropy": outcome.quality.bare_cross_entropy,
            });
            println!("{line}");
        }
    }
    Ok(())
}
