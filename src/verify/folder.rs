//! A folder with reference values: a backbone with adapters in sub-folders, or a ResNet.

use super::adapter_folder::AdapterFolder;
use super::checks::ReferenceChecks;
use super::published::Published;
use super::{Verification, VerifyError, batch_norm, gradients, serving};
use crate::inference::{EncodeError, Encoder};
use engine::operation::OperationError;
use engine::resnet::ResNet;
use engine::session::{Session, SessionOptions};
use model::adapter::{BackboneCandidate, FileLimits, Head, HeadInput, import, read_folder};
use model::backbone::{Backbone, load_folder};
use model::tensor_file::TensorFile;
use std::path::Path;
use std::sync::Arc;

const REFERENCE: &str = "reference.safetensors";

/// Compares what is computed with every tensor of `folder`'s `reference.safetensors`, and of those beside its adapters.
/// `open` gives the encoder; gradients are computed as `engine` says, those of a ResNet on the processor.
///
/// # Errors
/// [`VerifyError`] where the folder cannot be read or something refuses to compute.
pub fn verify_folder(
    folder: &Path,
    engine: &SessionOptions,
    open: impl FnOnce(Arc<Backbone>) -> Result<Box<dyn Encoder>, EncodeError>,
) -> Result<Verification, VerifyError> {
    let mut verification = Verification {
        ok: false,
        tensors: Vec::new(),
        inputs: Vec::new(),
        skipped: Vec::new(),
    };
    match resnet_weights(folder) {
        Some(weights) => verify_resnet(folder, &weights, engine.threads, &mut verification)?,
        None => verify_backbone(folder, engine, open, &mut verification)?,
    }
    let tensors = &verification.tensors;
    verification.ok = !tensors.is_empty() && tensors.iter().all(|check| check.ok);
    Ok(verification)
}

fn verify_backbone(
    folder: &Path,
    engine: &SessionOptions,
    open: impl FnOnce(Arc<Backbone>) -> Result<Box<dyn Encoder>, EncodeError>,
    verification: &mut Verification,
) -> Result<(), VerifyError> {
    let backbone = Arc::new(load_folder(folder)?);
    let path = folder.join(REFERENCE);
    let bytes = read(&path)?;
    let mut checks = ReferenceChecks::parse(&bytes, &path, "")?;
    let adapters = adapter_folders(folder, &backbone)?;
    let mut encoder = open(Arc::clone(&backbone))?;
    serving::bare(&mut checks, encoder.as_mut())?;
    let mut own_checks = Vec::new();
    if !adapters.is_empty() && checks.has("pixel_values") {
        let (pixels, [images, ..]) = checks.input_pixels("pixel_values")?;
        let labels = checks.input_labels(images)?;
        let mut session = Session::new(&backbone, engine.clone())?;
        let encoder = encoder.as_mut();
        for of in &adapters {
            match &of.own_reference {
                None => {
                    let head = head_of(&mut checks, of)?;
                    let architecture = backbone.config.architecture;
                    let (head, labels) = (head.as_ref(), labels.as_deref());
                    serving::adapted(&mut checks, encoder, architecture, of, head, labels)?;
                    if let Some(labels) = labels {
                        gradients::adapted(&mut checks, &mut session, of, head, labels)?;
                    }
                }
                Some(bytes) => {
                    let path = of.path.join(REFERENCE);
                    let mut own = ReferenceChecks::parse(bytes, &path, &of.label())?;
                    if let (Some(head), Some(labels)) = (&of.adapter.head, &labels) {
                        let published = Published {
                            of,
                            pixels: &pixels,
                            labels,
                            head,
                            engine,
                        };
                        published.compare(&mut own, &backbone, encoder, &mut session)?;
                    }
                    own_checks.push(own);
                }
            }
        }
    }
    checks.finish(verification);
    for own in own_checks {
        own.finish(verification);
    }
    Ok(())
}

/// The adapter's head, or the one in the reference because the adapter's files have no place for it.
fn head_of(
    checks: &mut ReferenceChecks<'_>,
    of: &AdapterFolder,
) -> Result<Option<Head>, VerifyError> {
    const NAME: &str = "head_weight";
    if let Some(head) = &of.adapter.head {
        let weight = &head.weight;
        checks.compare(&of.label(), NAME, weight.shape(), weight.data(), 0.0)?;
        return Ok(Some(head.clone()));
    }
    if !checks.has(NAME) {
        return Ok(None);
    }
    let weight = checks.input(NAME)?;
    if weight.shape().len() != 2 {
        return Err(checks.wrong(format!(
            "{NAME} has the shape {:?}, expected [classes, inputs]",
            weight.shape()
        )));
    }
    Ok(Some(Head {
        weight,
        bias: None,
        input: HeadInput::Feature,
        labels: Vec::new(),
    }))
}

/// The sub-folders of `folder` that hold an adapter, by name.
fn adapter_folders(folder: &Path, backbone: &Backbone) -> Result<Vec<AdapterFolder>, VerifyError> {
    let candidate = BackboneCandidate::of(&folder.display().to_string(), backbone);
    let unreadable = |source| VerifyError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() && !name_of(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let files = read_folder(&path, &FileLimits::default())?;
        let (own, files): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.path == REFERENCE);
        let imported = import(&files, std::slice::from_ref(&candidate)).map_err(|report| {
            VerifyError::Adapter {
                path: path.clone(),
                reasons: report.errors.join("; "),
            }
        })?;
        found.push(AdapterFolder {
            name: name_of(&path),
            path,
            adapter: Arc::new(imported.adapter),
            own_reference: own.into_iter().next().map(|file| file.bytes),
        });
    }
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

const WEIGHTS: &str = "model.safetensors";

/// The weights of a folder with a ResNet: without a configuration, and with the name that torchvision gives the first layer.
fn resnet_weights(folder: &Path) -> Option<Vec<u8>> {
    if folder.join("config.json").exists() {
        return None;
    }
    let weights = std::fs::read(folder.join(WEIGHTS)).ok()?;
    let named = TensorFile::parse(&weights).is_ok_and(|file| file.shape("conv1.weight").is_some());
    named.then_some(weights)
}

fn verify_resnet(
    folder: &Path,
    weights: &[u8],
    threads: usize,
    verification: &mut Verification,
) -> Result<(), VerifyError> {
    let network = ResNet::read(weights).map_err(|source| VerifyError::ResNet {
        path: folder.join(WEIGHTS),
        source,
    })?;
    let path = folder.join(REFERENCE);
    let bytes = read(&path)?;
    let mut checks = ReferenceChecks::parse(&bytes, &path, "")?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| OperationError::Threads {
            threads,
            reason: error.to_string(),
        })?;
    pool.install(|| batch_norm::compare(&mut checks, network))?;
    checks.finish(verification);
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    std::fs::read(path).map_err(|source| VerifyError::Read {
        path: path.to_owned(),
        source,
    })
}
