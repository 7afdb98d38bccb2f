//! `verify`: a folder's reference values against what is computed from it.

use super::CliError;
use super::job_device::JobDeviceArgument;
use super::options::{Common, print_json, print_line};
use crate::app::{AppError, graph_cache};
use crate::inference::{OrtOptions, open_encoder};
use crate::verify::{VerifyError, verify_folder};
use clap::Args;
use engine::session::SessionOptions;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(
    after_help = "The folder holds a Hugging Face checkpoint and reference.safetensors, and sub-folders with adapters, each with or without reference values; or a ResNet in torchvision's names. Values without gradients come from the encoder that serves (--encoder), the others from the built-in engine on --job-device; TF32 (--job-device cuda) is past the tolerances. Exit status 1 means that a tensor is past its tolerance.

Examples:
  lora-recycle verify tests/golden/vit-tiny
  lora-recycle verify tests/golden/resnet-tiny
  lora-recycle verify tests/golden/vit-tiny --job-device cuda-fp32
  lora-recycle verify assets/dinov2-s8 --json"
)]
pub struct Verify {
    /// Folder with the checkpoint and reference.safetensors
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    device: JobDeviceArgument,
}

impl Verify {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let options = OrtOptions {
            threads: common.threads,
            device: common.device,
            cache_folder: Some(graph_cache(&common.data_folder()?)),
        };
        let engine = SessionOptions {
            device: self.device.open(common)?,
            ..SessionOptions::on_threads(common.threads)
        };
        let result = verify_folder(&self.folder, &engine, |backbone| {
            open_encoder(backbone, common.encoder, options)
        })?;
        if common.json {
            print_json(&result)?;
        } else {
            let names = result.tensors.iter().map(|check| check.name.len());
            let width = names.max().unwrap_or(0);
            for check in &result.tensors {
                let verdict = if check.ok { "ok" } else { "PAST THE TOLERANCE" };
                let detail = check.detail.as_ref();
                let detail = detail
                    .map(|detail| format!(": {detail}"))
                    .unwrap_or_default();
                print_line(&format!(
                    "{:<width$} {:.2e} of {:.0e}  {verdict}{detail}",
                    check.name, check.max_error, check.tolerance
                ))?;
            }
            for (what, names) in [("inputs", &result.inputs), ("not checked", &result.skipped)] {
                if !names.is_empty() {
                    eprintln!("{what}: {}", names.join(", "));
                }
            }
        }
        if result.ok {
            Ok(())
        } else if result.tensors.is_empty() {
            Err(CliError::user(format!(
                "{}: no tensor in it is one that can be compared",
                self.folder.join("reference.safetensors").display()
            )))
        } else {
            let failed = result.tensors.iter().filter(|check| !check.ok).count();
            Err(CliError::user(format!(
                "what is computed does not agree with the reference values: {failed} of {} tensors are past their tolerance",
                result.tensors.len()
            ))
            .hint("`lora-recycle doctor` shows which library and device computed"))
        }
    }
}

impl From<VerifyError> for CliError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Backbone(error) => Self::from(AppError::from(error)),
            VerifyError::Encode(error) => Self::from(AppError::from(error)),
            VerifyError::Adapter { .. } => Self::user(error.to_string())
                .hint("each sub-folder of the checked folder is taken for an adapter"),
            VerifyError::Read { .. }
            | VerifyError::File { .. }
            | VerifyError::Tensor { .. }
            | VerifyError::Content { .. }
            | VerifyError::ResNet { .. }
            | VerifyError::Files(_)
            | VerifyError::Head { .. }
            | VerifyError::Operation(_)
            | VerifyError::Inversion(_) => Self::user(error.to_string()),
        }
    }
}
