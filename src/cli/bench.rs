//! `bench`: how fast this machine is at the steps that everything else is made of.

use super::CliError;
use super::options::{Common, block_on, print_json, print_line};
use crate::app::find_backbone;
use crate::app::registry::WhenNew;
use crate::inference::{
    Device, EncodeRow, Encoder, EncoderChoice, OrtOptions, Outputs, open_encoder,
};
use clap::Args;
use clap::builder::PossibleValuesParser;
use engine::measure::{Prepared, SIZES, STEPS, Size, Step};
use engine::process_memory::{peak_mebibytes, reset_peak};
use model::tensor::Tensor;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Images of an encoder's batches: one picture, a few, a full batch.
const BATCHES: [usize; 3] = [1, 8, 40];

#[derive(Debug, Args)]
#[command(
    after_help = "Engine steps run on random weights, encoders on the chosen backbone; nothing is stored. Other programs that run at the same time make the figures worse.

Examples:
  lora-recycle bench
  lora-recycle bench --size vit-s-98 --step meta-dense --step meta-sparse-75
  lora-recycle bench --rounds 15 --json > this-machine.json"
)]
pub struct Bench {
    /// Only engine steps on this size; may be given several times
    #[arg(long, env = "LORA_RECYCLE_SIZE", value_delimiter = ',', value_parser = PossibleValuesParser::new(SIZES.map(|size| size.name)))]
    size: Vec<String>,
    /// Only this engine step; may be given several times
    #[arg(long, env = "LORA_RECYCLE_STEP", value_delimiter = ',', value_parser = PossibleValuesParser::new(STEPS.map(|(name, _)| name)))]
    step: Vec<String>,
    /// Timed runs of each, after one that is not timed
    #[arg(long, value_name = "N", env = "LORA_RECYCLE_ROUNDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

#[derive(Debug, Serialize)]
struct Report {
    threads: usize,
    rounds: u16,
    encoders: Vec<Measured>,
    engine: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    batch: usize,
    median_milliseconds: f64,
    fastest_milliseconds: f64,
    images_per_second: f64,
    /// Of the whole process, with the weights; null where the system does not record it.
    peak_mebibytes: Option<f64>,
}

impl Bench {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let threads = match common.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut report = Report {
            threads,
            rounds: self.rounds,
            encoders: Vec::new(),
            engine: Vec::new(),
        };
        if !common.json {
            print_line(&format!(
                "{threads} threads, median of {} runs",
                self.rounds
            ))?;
        }
        if self.size.is_empty() && self.step.is_empty() {
            self.encoders(common, threads, &mut report)?;
        }
        for size in SIZES
            .into_iter()
            .filter(|size| wanted(&self.size, size.name))
        {
            for (name, step) in STEPS {
                if wanted(&self.step, name) {
                    let measured = self.engine(size, name, step, threads)?;
                    show(common, &measured)?;
                    report.engine.push(measured);
                }
            }
        }
        if common.json {
            print_json(&report)?;
        }
        Ok(())
    }

    /// Encoders take turns, so that a slow moment of the machine meets all.
    fn encoders(
        &self,
        common: &Common,
        threads: usize,
        report: &mut Report,
    ) -> Result<(), CliError> {
        let (_, backbone) = block_on(async {
            let registry = common.read_registry(WhenNew::Imagine).await?;
            Ok::<_, CliError>(find_backbone(&common.backbone, Some(&registry)).await?)
        })??;
        let backbone = Arc::new(backbone);
        let mut opened: Vec<(String, Box<dyn Encoder>)> = Vec::new();
        for (name, choice, device) in [
            ("onnxruntime", EncoderChoice::Ort, common.device),
            ("native", EncoderChoice::Native, Device::Cpu),
        ] {
            let options = OrtOptions {
                threads,
                device,
                ..OrtOptions::default()
            };
            match open_encoder(Arc::clone(&backbone), choice, options) {
                Ok(encoder) => {
                    let device = encoder.info().device;
                    let on = if device == "cpu" { "" } else { " on cuda" };
                    opened.push((format!("{name}{on}"), encoder));
                }
                Err(error) => eprintln!("left out: {name}: {error}"),
            }
        }
        let size = backbone.image_size();
        for batch in BATCHES {
            let rows: Vec<EncodeRow> = (0..batch)
                .map(|_| EncodeRow::bare(Arc::new(Tensor::zeros([3, size, size]))))
                .collect();
            let mut times = vec![Vec::new(); opened.len()];
            for round in 0..=self.rounds {
                for ((_, encoder), times) in opened.iter_mut().zip(&mut times) {
                    let start = Instant::now();
                    encoder
                        .encode(&rows, Outputs::default())
                        .map_err(|error| CliError::internal(error.to_string()))?;
                    if round > 0 {
                        times.push(start.elapsed().as_secs_f64() * 1e3);
                    }
                }
            }
            for ((name, _), times) in opened.iter().zip(times) {
                // Both live in one process, so that its memory says nothing of either.
                let measured = Measured::of(format!("encode {name}"), batch, times, None);
                show(common, &measured)?;
                report.encoders.push(measured);
            }
        }
        Ok(())
    }

    fn engine(
        &self,
        size: Size,
        name: &str,
        step: Step,
        threads: usize,
    ) -> Result<Measured, CliError> {
        fn failed(size: &str, step: &str, error: impl std::fmt::Display) -> CliError {
            CliError::internal(format!("{size} {step}: {error}"))
        }
        let counts = reset_peak();
        let mut prepared =
            Prepared::new(size, step, threads).map_err(|error| failed(size.name, name, error))?;
        let mut times = Vec::new();
        for round in 0..=self.rounds {
            let start = Instant::now();
            prepared
                .run()
                .map_err(|error| failed(size.name, name, error))?;
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let peak = if counts { peak_mebibytes() } else { None };
        let name = format!("{} {name}", size.name);
        Ok(Measured::of(name, size.batch, times, peak))
    }
}

fn wanted(chosen: &[String], name: &str) -> bool {
    chosen.is_empty() || chosen.iter().any(|chosen| chosen == name)
}

impl Measured {
    fn of(name: String, batch: usize, mut milliseconds: Vec<f64>, peak: Option<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        let at = |index: usize| milliseconds.get(index).copied().unwrap_or(f64::NAN);
        let median = at(milliseconds.len() / 2);
        Self {
            name,
            batch,
            median_milliseconds: median,
            fastest_milliseconds: at(0),
            images_per_second: batch as f64 / median * 1e3,
            peak_mebibytes: peak,
        }
    }
}

fn show(common: &Common, measured: &Measured) -> Result<(), CliError> {
    if common.json {
        return Ok(());
    }
    let peak = measured
        .peak_mebibytes
        .map(|peak| format!("{peak:7.0} MiB"))
        .unwrap_or_default();
    print_line(&format!(
        "{:<34} batch {:<3} {:9.1} ms {:8.1} images/s {peak}",
        measured.name, measured.batch, measured.median_milliseconds, measured.images_per_second
    ))
}
