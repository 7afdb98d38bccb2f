//! `doctor`: whether this installation works, and what to mend where it does not.

use super::CliError;
use super::options::{Common, block_on, print_json, print_line};
use crate::app::open_backbone;
use crate::inference::{ORT_VERSION, load_ort_library};
use clap::Args;
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct Doctor {}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

impl Doctor {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let data_folder = common.data_folder()?;
        let checks = vec![
            check("onnx runtime", onnx_runtime()),
            check("data folder", writable(&data_folder)),
            check("backbone", backbone(&common.backbone)),
            check("inference", inference(common)),
        ];
        let failed = checks.iter().filter(|check| !check.ok).count();
        if common.json {
            print_json(&checks)?;
        } else {
            for check in &checks {
                let verdict = if check.ok { "ok  " } else { "FAIL" };
                print_line(&format!("{verdict} {:<13} {}", check.name, check.detail))?;
            }
        }
        match failed {
            0 => Ok(()),
            _ => Err(CliError::user(format!(
                "{failed} of {} checks failed",
                checks.len()
            ))),
        }
    }
}

fn check(name: &'static str, result: Result<String, String>) -> Check {
    let ok = result.is_ok();
    let (Ok(detail) | Err(detail)) = result;
    Check { name, ok, detail }
}

fn onnx_runtime() -> Result<String, String> {
    load_ort_library()
        .map(|_| format!("version {ORT_VERSION} loads"))
        .map_err(|error| error.to_string())
}

fn writable(folder: &Path) -> Result<String, String> {
    let fail = |error: std::io::Error| format!("{} cannot be written: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(fail)?;
    tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    Ok(format!("{} can be written", folder.display()))
}

fn backbone(name: &str) -> Result<String, String> {
    let backbone = open_backbone(name).map_err(|error| error.to_string())?;
    Ok(format!(
        "{name}: {}, {} layers, {} px, digest {}",
        backbone.config.architecture.name(),
        backbone.config.layers,
        backbone.image_size(),
        &backbone.digest[..12]
    ))
}

fn inference(common: &Common) -> Result<String, String> {
    let probed = block_on(async {
        let app = common.open_app().await?;
        let start = Instant::now();
        app.probe().await?;
        Ok::<_, CliError>((app.encoder_info().clone(), start.elapsed()))
    });
    let (info, took) = probed
        .and_then(|probed| probed)
        .map_err(|error| error.message().to_owned())?;
    Ok(format!(
        "{} {} on {} with {} threads, one picture in {:.0} ms",
        info.engine,
        info.version,
        info.device,
        info.threads,
        took.as_secs_f64() * 1e3
    ))
}
