//! `doctor`: whether this installation works, and what to mend where it does not.

use super::CliError;
use super::options::{Common, block_on, print_json, print_line};
use crate::app::find_backbone;
use crate::app::registry::{Registry, WhenNew};
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
        let checks = block_on(async {
            // As the commands open it that answer.
            let opened = common.read_registry(WhenNew::Begin).await;
            let registry = opened.as_ref().map_err(|error| error.message().to_owned());
            vec![
                check("onnx runtime", onnx_runtime()),
                check("data folder", data(&data_folder, registry.clone())),
                check("backbone", backbone(common, registry.clone()).await),
                check("inference", inference(common, registry).await),
            ]
        })?;
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

/// Whether the data folder can be opened and written.
fn data(folder: &Path, registry: Result<&Registry, String>) -> Result<String, String> {
    registry?;
    let fail = |error: std::io::Error| format!("{} cannot be written: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(fail)?;
    tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    Ok(format!("{} can be written", folder.display()))
}

async fn backbone(common: &Common, registry: Result<&Registry, String>) -> Result<String, String> {
    // Where the data folder is at fault, another check says so.
    let found = find_backbone(&common.backbone, registry.ok()).await;
    let (name, backbone) = found.map_err(|error| error.to_string())?;
    Ok(format!(
        "{name}: {}, {} layers, {} px, digest {}",
        backbone.config.architecture.name(),
        backbone.config.layers,
        backbone.image_size(),
        &backbone.digest[..12]
    ))
}

async fn inference(common: &Common, registry: Result<&Registry, String>) -> Result<String, String> {
    let probed = async {
        let app = common.open_app_with(registry?.clone()).await;
        let app = app.map_err(|error| error.message().to_owned())?;
        let start = Instant::now();
        app.probe().await.map_err(|error| error.to_string())?;
        let took = start.elapsed();
        let served = app.adapter(None).await.map_err(|error| error.to_string())?;
        let answering = app.answering(served.as_ref());
        Ok::<_, String>((app.encoder_info().clone(), took, answering))
    };
    let (info, took, answering) = probed.await?;
    Ok(format!(
        "{} {} on {} with {} threads, one picture in {:.0} ms; answers by {answering}",
        info.engine,
        info.version,
        info.device,
        info.threads,
        took.as_secs_f64() * 1e3
    ))
}
