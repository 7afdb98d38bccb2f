//! `backbone`: which vision transformers there are.

use super::CliError;
use super::adapter::{change, read};
use super::options::{Common, print_json, print_line};
use crate::app::registry::{EMBEDDED_SOURCE, RegistryError};
use crate::app::{find_backbone, open_backbone};
use clap::{Args, Subcommand};
use model::backbone::{Backbone, EMBEDDED_NAME};
use serde_json::{Value, json};
use std::path::PathBuf;
use store::Name;

#[derive(Debug, Subcommand)]
pub enum BackboneCommand {
    /// List the backbones
    List,
    /// Show one backbone
    Show(Show),
    /// Register the backbone in a folder, which stays where it is
    Add(Add),
    /// Forget a registered backbone; its folder stays
    Rm(Remove),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle backbone add dinov2-small/ --name dinov2-small")]
pub struct Add {
    /// A Hugging Face folder of a ViT, DINOv2 or CLIP vision model
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// What it shall be called
    #[arg(long, value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle backbone rm dinov2-small")]
pub struct Remove {
    /// Name of a registered backbone that no adapter uses
    name: String,
}

#[derive(Debug, Args)]
pub struct Show {
    /// Name of a backbone, or a folder with one
    #[arg(value_name = "NAME|DIR", default_value = EMBEDDED_NAME)]
    name: String,
}

impl BackboneCommand {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        match self {
            Self::List => list(common),
            Self::Show(show) => show.run(common),
            Self::Add(add) => add.run(common),
            Self::Rm(remove) => remove.run(common),
        }
    }
}

fn list(common: &Common) -> Result<(), CliError> {
    let records = read(common, async |registry| {
        let listed = registry.store().list_backbones().await;
        Ok(listed.map_err(RegistryError::from)?)
    })?;
    let mut rows = vec![(EMBEDDED_NAME.to_owned(), open_backbone(EMBEDDED_NAME)?)];
    for record in records {
        if record.source == EMBEDDED_SOURCE {
            continue;
        }
        match open_backbone(&record.source) {
            Ok(backbone) => rows.push((record.name.to_string(), backbone)),
            Err(error) => eprintln!("warning: {}: {error}", record.name),
        }
    }
    if common.json {
        let described: Vec<Value> = rows
            .iter()
            .map(|(name, backbone)| describe(name, backbone))
            .collect();
        return print_json(&described);
    }
    rows.iter().try_for_each(|(name, backbone)| {
        print_line(&format!(
            "{name}\t{}\t{:.1} million parameters\t{}",
            backbone.config.architecture.name(),
            backbone.weights.parameter_count() as f64 / 1e6,
            backbone.digest
        ))
    })
}

impl Add {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let name: Name = self.name.parse().map_err(RegistryError::from)?;
        let record = change(common, async |registry| {
            Ok(registry.add_backbone(&self.folder, &name).await?)
        })?;
        if common.json {
            return print_json(&record);
        }
        print_line(&format!("{}\t{}", record.name, record.digest))
    }
}

impl Remove {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let name: Name = self.name.parse().map_err(RegistryError::from)?;
        if name.as_str() == EMBEDDED_NAME {
            return Err(CliError::user(format!(
                "{EMBEDDED_NAME} is part of the program and cannot be removed"
            )));
        }
        change(common, async |registry| {
            let deleted = registry.store().delete_backbone(&name).await;
            Ok(deleted.map_err(RegistryError::from)?)
        })
    }
}

impl Show {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let (_, backbone) = read(common, async |registry| {
            Ok(find_backbone(&self.name, Some(registry)).await?)
        })?;
        let described = describe(&self.name, &backbone);
        if common.json {
            return print_json(&described);
        }
        let Value::Object(fields) = described else {
            return Err(CliError::internal(
                "a backbone was not described as an object",
            ));
        };
        for (key, value) in fields {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            print_line(&format!("{key:<14} {value}"))?;
        }
        Ok(())
    }
}

fn describe(name: &str, backbone: &Backbone) -> Value {
    let config = &backbone.config;
    json!({
        "name": name,
        "digest": backbone.digest,
        "architecture": config.architecture,
        "width": config.width,
        "layers": config.layers,
        "heads": config.heads,
        "patch_size": config.patch_size,
        "image_size": backbone.preprocess.image_size(),
        "pooling": config.pooling,
        "feature_width": backbone.feature_width(),
        "parameters": backbone.weights.parameter_count(),
        "embedded": name == EMBEDDED_NAME,
    })
}
