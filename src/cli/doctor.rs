//! `doctor`: whether this installation works, and what to fix where it does not.

use super::CliError;
use super::options::{Common, block_on, print_json, print_line};
use crate::app::find_backbone;
use crate::app::registry::{Registry, WhenNew};
use crate::inference::{Device, Loaded, cuda_parts, load_for, nodes_off_cuda};
use clap::Args;
use engine::cuda::{Availability, availability};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct Doctor {}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// Whether the program is at fault without it.
    needed: bool,
    detail: String,
}

impl Doctor {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let data_folder = common.data_folder()?;
        let needs_cuda = common.device == Device::Cuda;
        let cuda = cuda_parts();
        let all_there = cuda.iter().all(|part| part.found.is_ok());
        let loaded = match needs_cuda && !all_there {
            true => Err("not tried: CUDA is asked for, and not all of it is there".to_owned()),
            false => load_for(common.device).map_err(|error| error.to_string()),
        };
        let checks = block_on(async {
            // As the commands open it that answer.
            let opened = common.read_registry(WhenNew::Begin).await;
            let registry = opened.as_ref().map_err(|error| error.message().to_owned());
            let mut checks = vec![
                check("onnx runtime", onnx_runtime(&loaded)),
                check("data folder", data(&data_folder, registry.clone())),
                check("backbone", backbone(common, registry.clone()).await),
            ];
            checks.push(match &loaded {
                // Said already.
                Err(error) if needs_cuda => check("inference", Err(error.clone())),
                _ => check("inference", inference(common, registry.clone()).await),
            });
            let of_all = checks.len();
            checks.extend(cuda.into_iter().map(|part| check(part.name, part.found)));
            let device = cuda_device();
            let is_tried = matches!(&loaded, Ok(Loaded { cuda: true, .. })) && device.is_ok();
            checks.push(check("cuda device", device));
            if all_there && is_tried {
                checks.push(check("cuda graph", cuda_graph(common, registry).await));
            }
            for check in &mut checks[of_all..] {
                check.needed = needs_cuda;
            }
            checks
        })?;
        let failed = |check: &&Check| check.needed && !check.ok;
        let failed = checks.iter().filter(failed).count();
        if common.json {
            print_json(&checks)?;
        } else {
            for check in &checks {
                let verdict = match (check.ok, check.needed) {
                    (true, _) => "ok",
                    (false, true) => "FAIL",
                    (false, false) => "-",
                };
                let detail = check.detail.replace('\n', "\n                   ");
                print_line(&format!("{verdict:<4} {:<13} {detail}", check.name))?;
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
    Check {
        name,
        ok,
        needed: true,
        detail,
    }
}

fn onnx_runtime(loaded: &Result<Loaded, String>) -> Result<String, String> {
    let Loaded { library, cuda } = loaded.as_ref().map_err(Clone::clone)?;
    Ok(format!(
        "version {} loads from {}{}",
        library.version,
        library.path.display(),
        if *cuda { ", with CUDA" } else { "" }
    ))
}

/// The device that jobs can be computed on, as the driver describes it.
fn cuda_device() -> Result<String, String> {
    match availability(0) {
        Availability::Ready(device) => Ok(format!(
            "{}, compute capability {}.{}, {:.0} GiB, driver for CUDA {}.{}, cuBLAS {}.{}, NVRTC {}.{}",
            device.name,
            device.capability.0,
            device.capability.1,
            device.memory as f64 / (1u64 << 30) as f64,
            device.driver.0,
            device.driver.1,
            device.cublas.0,
            device.cublas.1,
            device.nvrtc.0,
            device.nvrtc.1
        )),
        Availability::Missing(missing) => Err(format!(
            "jobs are computed on the processor:\n{}",
            missing.join("\n")
        )),
    }
}

/// Whether CUDA computes all of the backbone's graph.
async fn cuda_graph(
    common: &Common,
    registry: Result<&Registry, String>,
) -> Result<String, String> {
    let found = find_backbone(&common.backbone, registry.ok()).await;
    let (_, backbone) = found.map_err(|error| error.to_string())?;
    let nodes = nodes_off_cuda(&backbone).map_err(|error| error.to_string())?;
    match nodes.is_empty() {
        true => Ok("all nodes are computed on CUDA".into()),
        false => Err(format!(
            "{} nodes stay on the CPU, which makes answers slower: {}",
            nodes.len(),
            nodes.join(", ")
        )),
    }
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
        "{info}{} with {} threads, one picture in {:.0} ms; answers by {answering}",
        match info.providers.is_empty() {
            true => String::new(),
            false => format!(" ({})", info.providers.join(", ")),
        },
        info.threads,
        took.as_secs_f64() * 1e3
    ))
}
