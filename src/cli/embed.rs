//! `embed`: features of pictures.

use super::options::{Common, block_on, print_answers, print_line};
use super::{CliError, images};
use crate::app::Embedding;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle embed photo.jpg --json
  lora-recycle embed holiday/ > features.tsv")]
pub struct Embed {
    /// Adapter that the pictures go through: name, name:version or name@alias; "none" is the bare backbone [default: the
    /// backbone's default adapter, if it has one]
    #[arg(long, value_name = "NAME", env = "LORA_RECYCLE_ADAPTER")]
    adapter: Option<String>,
    /// Pictures; a folder stands for all files in it
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

impl Embed {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let images = images::expand(&self.images)?
            .iter()
            .map(|path| images::read(path))
            .collect::<Result<Vec<_>, _>>()?;
        let (encoder, embeddings) = block_on(async {
            let app = common.open_app().await?;
            let served = app.adapter(self.adapter.as_deref()).await?;
            let encoder = app.encoder_info().clone();
            eprintln!("answered by {}, {encoder}", app.answering(served.as_ref()));
            Ok::<_, CliError>((encoder, app.embed(images, served.as_ref()).await?))
        })??;
        if common.json {
            return print_answers(&embeddings, &encoder);
        }
        for embedding in &embeddings {
            match embedding {
                Embedding::Embedded { image, feature } => {
                    let values: Vec<String> = feature.iter().map(f32::to_string).collect();
                    print_line(&format!("{image}\t{}", values.join("\t")))?;
                }
                Embedding::Failed { image, error } => {
                    eprintln!("error: {image}: {}", error.message)
                }
            }
        }
        if embeddings
            .iter()
            .all(|one| matches!(one, Embedding::Failed { .. }))
        {
            return Err(CliError::user("none of the pictures could be used"));
        }
        Ok(())
    }
}
