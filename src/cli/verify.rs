//! `verify`: a backbone folder against the reference values it carries.

use super::CliError;
use super::options::{Common, print_json, print_line};
use crate::app::graph_cache;
use crate::backbone::load_folder;
use crate::inference::verify::verify;
use crate::inference::{OrtEncoder, OrtOptions};
use crate::tensor_file::TensorFile;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
#[command(
    after_help = "The folder holds a Hugging Face checkpoint and reference.safetensors. Exit status 1 means that a tensor is past its tolerance.

Examples:
  lora-recycle verify tests/golden/vit-tiny
  lora-recycle verify assets/dinov2-s8 --json"
)]
pub struct Verify {
    /// Folder with the checkpoint and reference.safetensors
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Verify {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let path = self.folder.join("reference.safetensors");
        let backbone = load_folder(&self.folder).map_err(crate::app::AppError::from)?;
        let fail = |error: String| CliError::user(format!("{}: {error}", path.display()));
        let bytes = std::fs::read(&path).map_err(|error| fail(error.to_string()))?;
        let reference = TensorFile::parse(&bytes).map_err(|error| fail(error.to_string()))?;
        let options = OrtOptions {
            threads: common.threads,
            device: common.device,
            cache_folder: Some(graph_cache(&common.data_folder()?)),
        };
        let mut encoder =
            OrtEncoder::open(Arc::new(backbone), options).map_err(crate::app::AppError::from)?;
        let result = verify(&mut encoder, &reference).map_err(|error| fail(error.to_string()))?;
        if common.json {
            print_json(&result)?;
        } else {
            for check in &result.tensors {
                let verdict = if check.ok { "ok" } else { "PAST THE TOLERANCE" };
                print_line(&format!(
                    "{:<20} {:.2e} of {:.0e}  {verdict}",
                    check.name, check.max_error, check.tolerance
                ))?;
            }
            if !result.skipped.is_empty() {
                eprintln!("skipped, not compared: {}", result.skipped.join(", "));
            }
        }
        if result.ok {
            Ok(())
        } else if result.tensors.is_empty() {
            Err(fail("no tensor in it is one that can be compared".into()))
        } else {
            Err(
                CliError::user("the encoder does not agree with the reference values")
                    .hint("`lora-recycle doctor` shows which library and device computed"),
            )
        }
    }
}
