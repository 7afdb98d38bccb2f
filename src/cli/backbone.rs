//! `backbone`: which vision transformers there are.

use super::CliError;
use super::options::{Common, print_json, print_line};
use crate::app::open_backbone;
use crate::backbone::{Backbone, EMBEDDED_NAME};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum BackboneCommand {
    /// List the backbones
    List,
    /// Show one backbone
    Show(Show),
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
        }
    }
}

fn list(common: &Common) -> Result<(), CliError> {
    let backbone = open_backbone(EMBEDDED_NAME)?;
    if common.json {
        return print_json(&json!([describe(EMBEDDED_NAME, &backbone)]));
    }
    print_line(&format!(
        "{EMBEDDED_NAME}\t{}\t{:.1} million parameters\t{}",
        backbone.config.architecture.name(),
        backbone.weights.parameter_count() as f64 / 1e6,
        backbone.digest
    ))
}

impl Show {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let backbone = open_backbone(&self.name)?;
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
