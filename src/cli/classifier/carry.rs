//! `classifier export` and `import`: classifiers as files.

use super::place::{Place, find};
use crate::cli::CliError;
use crate::cli::options::{Common, print_json, print_line};
use crate::web::ClassifierFormat;
use clap::Args;
use model::adapter::write_zip;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Largest bundle that is read, in bytes.
const LARGEST_BUNDLE_BYTES: u64 = 1 << 30;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier export Trees -o trees.zip                  for another LoRA Recycle
  lora-recycle classifier export Trees --format onnx -o trees.zip    for other programs, with examples")]
pub struct Export {
    /// The classifier
    name: String,
    /// bundle for another LoRA Recycle, or onnx for other programs: a model from pixels to scores, with examples in Python and JavaScript
    #[arg(long, value_enum, default_value_t)]
    format: ClassifierFormat,
    /// The zip to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier import trees.zip
  lora-recycle classifier import trees.zip --name \"Trees of Berlin\"")]
pub struct Import {
    /// The zip that `classifier export` wrote on another installation
    file: PathBuf,
    /// Name of the classifier; without it the name that it had
    #[arg(long)]
    name: Option<String>,
}

impl Export {
    pub async fn run(&self, common: &Common) -> Result<(), CliError> {
        let place = Place::open(common).await?;
        let record = find(place.store(), &self.name).await?;
        let zip = match place.app(common).await? {
            None => place.download(record.id, self.format).await?,
            Some(app) => {
                let files = match self.format {
                    ClassifierFormat::Bundle => app.classifier_as_bundle(&record).await?,
                    ClassifierFormat::Onnx => app.classifier_as_onnx(&record).await?,
                };
                write_zip(&files).map_err(crate::app::registry::RegistryError::from)?
            }
        };
        std::fs::write(&self.output, zip).map_err(|error| unwritable(&self.output, &error))?;
        eprintln!("{} is in {}", record.name, self.output.display());
        Ok(())
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::user(format!("{} cannot be written: {error}", path.display()))
}

impl Import {
    pub async fn run(&self, common: &Common) -> Result<(), CliError> {
        let unreadable = |error: std::io::Error| {
            CliError::user(format!("{} cannot be read: {error}", self.file.display()))
        };
        let size = std::fs::metadata(&self.file).map_err(unreadable)?.len();
        if size > LARGEST_BUNDLE_BYTES {
            return Err(CliError::user(format!(
                "{} has {size} bytes, more than the {LARGEST_BUNDLE_BYTES} allowed",
                self.file.display()
            )));
        }
        let zip = std::fs::read(&self.file).map_err(unreadable)?;
        let place = Place::open(common).await?;
        let app = place.app(common).await?;
        let (id, is_exact) = place.import(app.as_ref(), zip, self.name.clone()).await?;
        let record = place.store().classifier(id).await?;
        if common.json {
            return print_json(&json!({ "classifier": record, "is_exact": is_exact }));
        }
        let equal = match is_exact {
            true => "answers with the same bits as where it was made",
            false => "answers as where it was made, to five digits",
        };
        print_line(&format!("{}\t{}\t{equal}", record.name, record.id))
    }
}
