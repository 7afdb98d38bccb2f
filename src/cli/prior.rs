//! `prior`: statistics that inversion compares its images with.

use super::job_device::JobDeviceArgument;
use super::options::{Common, block_on, print_json, print_line};
use super::{CliError, images};
use crate::app::find_backbone;
use crate::app::registry::WhenNew;
use clap::{Args, Subcommand};
use engine::loss::TokenStatisticsCollector;
use engine::operation::OperationError;
use engine::session::{Session, SessionOptions};
use indicatif::{ProgressBar, ProgressStyle};
use model::backbone::Backbone;
use model::image_input::{ImageLimits, load_pixels};
use model::tensor::Tensor;
use rayon::prelude::*;
use recycle::token_statistics::add_pictures;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum PriorCommand {
    /// Take statistics of the backbone's tokens over generic pictures, for `invert`
    Build(Build),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Any pictures of many different things will do; a few hundred are enough. They are not stored.

Examples:
  lora-recycle prior build holiday/ --out statistics.safetensors"
)]
pub struct Build {
    /// Folder of pictures, at any depth
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE", env = "LORA_RECYCLE_OUT")]
    out: PathBuf,
    #[command(flatten)]
    device: JobDeviceArgument,
}

#[derive(Debug, Serialize)]
struct Report {
    file: String,
    sha256: String,
    backbone_digest: String,
    pictures: usize,
    left_out: usize,
}

/// Pictures that are read and looked at together.
const PICTURES_AT_ONCE: usize = 64;

impl PriorCommand {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        match self {
            Self::Build(build) => build.run(common),
        }
    }
}

impl Build {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let paths = images::expand(std::slice::from_ref(&self.folder))?;
        let (_, backbone) = block_on(async {
            let registry = common.read_registry(WhenNew::Imagine).await?;
            Ok::<_, CliError>(find_backbone(&common.backbone, Some(&registry)).await?)
        })??;
        let (statistics, pictures) = self.collect(common, &backbone, &paths)?;
        if pictures == 0 {
            return Err(CliError::user(format!(
                "{} has no usable pictures",
                self.folder.display()
            ))
            .hint("name a folder with a few hundred photographs"));
        }
        let bytes = statistics
            .finish(&backbone.digest)
            .write()
            .map_err(|error| CliError::internal(error.to_string()))?;
        write(&self.out, &bytes)?;
        let report = Report {
            file: self.out.display().to_string(),
            sha256: model::digest::hex(&Sha256::digest(&bytes)),
            backbone_digest: backbone.digest,
            pictures,
            left_out: paths.len() - pictures,
        };
        if common.json {
            return print_json(&report);
        }
        print_line(&format!(
            "{}: statistics of {} pictures, {} left out",
            report.file, report.pictures, report.left_out
        ))
    }

    /// The statistics and how many pictures they are of.
    fn collect(
        &self,
        common: &Common,
        backbone: &Backbone,
        paths: &[PathBuf],
    ) -> Result<(TokenStatisticsCollector, usize), CliError> {
        let side = common.image_size.unwrap_or_else(|| backbone.image_size());
        let preprocess = backbone.preprocess.with_image_size(side);
        let options = SessionOptions {
            device: self.device.open(common)?,
            ..SessionOptions::on_threads(common.threads)
        };
        let failed = |error: OperationError| CliError::user(error.to_string());
        let mut session = Session::new(backbone, options).map_err(failed)?;
        let bar = ProgressBar::new(paths.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} pictures, {eta} left")
        {
            bar.set_style(style);
        }
        let limits = ImageLimits::default();
        let mut collector = TokenStatisticsCollector::default();
        let mut pictures = 0;
        for chunk in paths.chunks(PICTURES_AT_ONCE) {
            let load = |path: &PathBuf| {
                let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
                load_pixels(&bytes, &limits, &preprocess).map_err(|error| error.to_string())
            };
            let loaded: Vec<_> = chunk.par_iter().map(load).collect();
            let mut values = Vec::new();
            let mut count = 0;
            for (path, pixels) in chunk.iter().zip(loaded) {
                match pixels {
                    Ok(pixels) => {
                        values.extend_from_slice(pixels.data());
                        count += 1;
                    }
                    Err(reason) => {
                        bar.suspend(|| eprintln!("warning: {}: {reason}", path.display()));
                    }
                }
            }
            if count > 0 {
                let pixels = Tensor::new([count, 3, side, side], values)
                    .map_err(|error| CliError::internal(error.to_string()))?;
                add_pictures(&mut session, &pixels, &mut collector).map_err(failed)?;
            }
            pictures += count;
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok((collector, pictures))
    }
}

/// Writes beside `path` first, so that a file that is there is never half of the new one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    let failed = |error: &dyn std::fmt::Display| {
        CliError::user(format!("{} cannot be written: {error}", path.display()))
            .hint("choose another --out, or free some space")
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .map_err(|error| failed(&error))?;
    file.write_all(bytes).map_err(|error| failed(&error))?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    file.persist(path).map_err(|error| failed(&error))?;
    Ok(())
}
