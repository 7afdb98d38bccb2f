//! `verify`: a backbone folder and the adapters in it against the reference values they carry.

use super::CliError;
use super::images::sub_folders;
use super::options::{Common, print_json, print_line};
use crate::adapter::{Adapter, Candidate, FileLimits, import, read_folder};
use crate::app::graph_cache;
use crate::backbone::{Backbone, load_folder};
use crate::inference::verify::{ReferenceAdapter, verify};
use crate::inference::{OrtOptions, open_encoder};
use crate::tensor_file::TensorFile;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Args)]
#[command(
    after_help = "The folder holds a Hugging Face checkpoint and reference.safetensors; each sub-folder with an adapter goes through the serving path too. Exit status 1 means that a tensor is past its tolerance.

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
        let backbone = Arc::new(backbone);
        let found = adapter_folders(&self.folder, &backbone)?;
        let adapters = found
            .iter()
            .map(|folder| {
                let own_reference = folder
                    .own_reference
                    .as_deref()
                    .map(TensorFile::parse)
                    .transpose()
                    .map_err(|error| fail(format!("{}: {error}", folder.name)))?;
                Ok(ReferenceAdapter {
                    name: folder.name.clone(),
                    adapter: Arc::clone(&folder.adapter),
                    own_reference,
                })
            })
            .collect::<Result<Vec<_>, CliError>>()?;
        let architecture = backbone.config.architecture;
        let mut encoder =
            open_encoder(backbone, common.encoder, options).map_err(crate::app::AppError::from)?;
        let result = verify(encoder.as_mut(), architecture, &reference, &adapters)
            .map_err(|error| fail(error.to_string()))?;
        if common.json {
            print_json(&result)?;
        } else {
            for check in &result.tensors {
                let verdict = if check.ok { "ok" } else { "PAST THE TOLERANCE" };
                print_line(&format!(
                    "{:<40} {:.2e} of {:.0e}  {verdict}",
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

/// A sub-folder with an adapter.
struct AdapterFolder {
    name: String,
    adapter: Arc<Adapter>,
    /// `reference.safetensors` beside it.
    own_reference: Option<Vec<u8>>,
}

/// The sub-folders of `folder` that hold an adapter, by name.
fn adapter_folders(folder: &Path, backbone: &Backbone) -> Result<Vec<AdapterFolder>, CliError> {
    let candidate = Candidate::of(&folder.display().to_string(), backbone);
    let mut found = Vec::new();
    for path in sub_folders(folder)? {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let files = read_folder(&path, &FileLimits::default())
            .map_err(|error| CliError::user(error.to_string()))?;
        let (own, files): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|file| file.path == "reference.safetensors");
        let imported = import(&files, std::slice::from_ref(&candidate)).map_err(|report| {
            CliError::user(format!("{}: {}", path.display(), report.errors.join("; ")))
                .hint("each sub-folder of the checked folder is taken for an adapter")
        })?;
        found.push(AdapterFolder {
            name,
            adapter: Arc::new(imported.adapter),
            own_reference: own.into_iter().next().map(|file| file.bytes),
        });
    }
    Ok(found)
}
