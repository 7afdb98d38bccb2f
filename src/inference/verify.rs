//! Compares an encoder with the reference values that a backbone folder and its adapters carry.

use super::encoder::{EncodeError, EncodeRow, Encoded, Encoder, Outputs};
use super::head::head_logits;
use crate::adapter::{Adapter, Head, HeadInput};
use crate::backbone::Architecture;
use crate::tensor::Tensor;
use crate::tensor_file::{TensorError, TensorFile};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use thiserror::Error;

/// Allowed error of a forward pass in `f32`, relative to the tensor's largest absolute value: about 160 rounding steps of a
/// value of that size, what different orders of summation over a few layers cost.
pub const FORWARD_TOLERANCE: f32 = 2e-5;

/// Allowed relative error of a loss: a mean over images, so that rounding errors of single ones cancel in part.
pub const LOSS_TOLERANCE: f32 = 1e-5;

/// One compared tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorCheck {
    pub name: String,
    /// Largest absolute difference, divided by the reference's largest absolute value.
    pub max_error: f32,
    pub tolerance: f32,
    pub ok: bool,
}

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Whether there was something to compare and all of it was within its tolerance.
    pub ok: bool,
    pub tensors: Vec<TensorCheck>,
    /// Reference tensors that are not compared.
    pub skipped: Vec<String>,
}

/// Why a comparison could not be made.
#[derive(Debug, Error)]
pub enum VerifyError {
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error("{name} has the shape {shape:?}, expected [batch, 3, size, size]")]
    Pixels { name: String, shape: Vec<usize> },
    #[error("labels has the value {label}, there are {classes} classes")]
    Label { label: i64, classes: usize },
    #[error("{adapter}: {images} images, {labels} labels")]
    Labels {
        adapter: String,
        images: usize,
        labels: usize,
    },
    #[error("{adapter}: its head reads what this backbone does not give")]
    Head { adapter: String },
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// An adapter beside the reference values.
pub struct ReferenceAdapter<'a> {
    /// Stands before the names of its tensors.
    pub name: String,
    pub adapter: Arc<Adapter>,
    /// Values of its own (`full.logits`, `full.ce`); without them `adapter_…` of the backbone's reference is compared.
    pub own_reference: Option<TensorFile<'a>>,
}

/// Runs the pixels of `reference` through `encoder` and compares what comes out with the tensors that are known:
/// `features`, `cls_attention` and `last_hidden_state` of `pixel_values`, `cls_SIZE` and `mean_patch_SIZE` of `pixels_SIZE`; and
/// for each of `adapters` its features, attention, logits and mean cross-entropy.
///
/// # Errors
/// [`VerifyError`] where the reference cannot be read or the encoder refuses.
pub fn verify(
    encoder: &mut dyn Encoder,
    architecture: Architecture,
    reference: &TensorFile<'_>,
    adapters: &[ReferenceAdapter<'_>],
) -> Result<Verification, VerifyError> {
    let mut checks = Checks::default();
    for name in reference.names() {
        if name == "pixel_values" {
            let encoded = run(encoder, reference, name, None)?;
            checks.seen.insert(name.to_owned());
            let hidden = joined(&encoded, |one| {
                one.last_hidden_state
                    .as_ref()
                    .map(Tensor::data)
                    .unwrap_or_default()
            });
            let feature = joined(&encoded, |one| &one.feature);
            let attention = joined(&encoded, |one| &one.cls_attention);
            for (name, computed) in [
                ("features", &feature),
                ("cls_attention", &attention),
                ("last_hidden_state", &hidden),
            ] {
                checks.compare(reference, name, "", computed, FORWARD_TOLERANCE)?;
            }
        } else if let Some(size) = name.strip_prefix("pixels_") {
            let encoded = run(encoder, reference, name, None)?;
            checks.seen.insert(name.to_owned());
            let (mut cls, mut mean) = (Vec::new(), Vec::new());
            for (of_cls, of_mean) in encoded.iter().filter_map(Encoded::cls_and_mean) {
                cls.extend(of_cls);
                mean.extend(of_mean);
            }
            for (name, computed) in [("cls", &cls), ("mean_patch", &mean)] {
                let name = format!("{name}_{size}");
                checks.compare(reference, &name, "", computed, FORWARD_TOLERANCE)?;
            }
        }
    }
    if reference.shape("pixel_values").is_some() {
        for adapter in adapters {
            checks.adapter(encoder, architecture, reference, adapter)?;
        }
    }
    let skipped = reference
        .names()
        .filter(|&name| !checks.seen.contains(name))
        .map(str::to_owned)
        .collect();
    Ok(Verification {
        ok: !checks.tensors.is_empty() && checks.tensors.iter().all(|check| check.ok),
        tensors: checks.tensors,
        skipped,
    })
}

#[derive(Default)]
struct Checks {
    tensors: Vec<TensorCheck>,
    /// Tensors of the backbone's reference that were read.
    seen: BTreeSet<String>,
}

impl Checks {
    fn adapter(
        &mut self,
        encoder: &mut dyn Encoder,
        architecture: Architecture,
        reference: &TensorFile<'_>,
        of: &ReferenceAdapter<'_>,
    ) -> Result<(), VerifyError> {
        let encoded = run(encoder, reference, "pixel_values", Some(&of.adapter))?;
        let prefix = format!("{}/", of.name);
        let (source, logits_name, loss_name) = match &of.own_reference {
            Some(own) => (own, "full.logits", "full.ce"),
            None => {
                let feature = joined(&encoded, |one| &one.feature);
                let attention = joined(&encoded, |one| &one.cls_attention);
                for (name, computed) in [
                    ("adapter_features", &feature),
                    ("adapter_cls_attention", &attention),
                ] {
                    self.compare(reference, name, &prefix, computed, FORWARD_TOLERANCE)?;
                }
                (reference, "adapter_logits", "adapter_ce")
            }
        };
        let Some(head) = head_of(&of.adapter, reference)? else {
            return Ok(());
        };
        self.seen.insert("head_weight".into());
        let logits: Option<Vec<Vec<f32>>> = encoded
            .iter()
            .map(|one| head_logits(&head, one, architecture))
            .collect();
        let logits = logits.ok_or_else(|| VerifyError::Head {
            adapter: of.name.clone(),
        })?;
        let all: Vec<f32> = logits.iter().flatten().copied().collect();
        self.compare(source, logits_name, &prefix, &all, FORWARD_TOLERANCE)?;
        if reference.shape("labels").is_some() {
            let labels = reference.read_integers("labels")?;
            self.seen.insert("labels".into());
            if labels.len() != logits.len() {
                return Err(VerifyError::Labels {
                    adapter: of.name.clone(),
                    images: logits.len(),
                    labels: labels.len(),
                });
            }
            let loss = mean_cross_entropy(&logits, &labels)?;
            self.compare(source, loss_name, &prefix, &[loss], LOSS_TOLERANCE)?;
        }
        Ok(())
    }

    /// Compares with `reference`'s tensor `name`, if it has it.
    fn compare(
        &mut self,
        reference: &TensorFile<'_>,
        name: &str,
        prefix: &str,
        computed: &[f32],
        tolerance: f32,
    ) -> Result<(), VerifyError> {
        if reference.shape(name).is_none() {
            return Ok(());
        }
        let expected = reference.read(name)?;
        self.seen.insert(name.to_owned());
        let largest = expected
            .data()
            .iter()
            .fold(0.0f32, |largest, value| largest.max(value.abs()));
        let max_error = if expected.data().len() == computed.len() {
            let difference = std::iter::zip(expected.data(), computed)
                .fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
            difference / largest.max(f32::MIN_POSITIVE)
        } else {
            f32::INFINITY
        };
        self.tensors.push(TensorCheck {
            name: format!("{prefix}{name}"),
            max_error,
            tolerance,
            ok: max_error <= tolerance,
        });
        Ok(())
    }
}

/// The adapter's head, or the one that stands in the reference because the adapter's files have no place for it.
fn head_of(adapter: &Adapter, reference: &TensorFile<'_>) -> Result<Option<Head>, VerifyError> {
    if adapter.head.is_some() {
        return Ok(adapter.head.clone());
    }
    if reference.shape("head_weight").is_none() {
        return Ok(None);
    }
    Ok(Some(Head {
        weight: reference.read("head_weight")?,
        bias: None,
        input: HeadInput::Feature,
        labels: Vec::new(),
    }))
}

fn mean_cross_entropy(logits: &[Vec<f32>], labels: &[i64]) -> Result<f32, VerifyError> {
    let mut sum = 0.0;
    for (logits, &label) in logits.iter().zip(labels) {
        let own = usize::try_from(label)
            .ok()
            .and_then(|label| logits.get(label))
            .ok_or(VerifyError::Label {
                label,
                classes: logits.len(),
            })?;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let normaliser: f64 = logits
            .iter()
            .map(|logit| f64::from(logit - largest).exp())
            .sum();
        sum += normaliser.ln() - f64::from(own - largest);
    }
    Ok((sum / labels.len().max(1) as f64) as f32)
}

/// One output of a whole batch, joined.
fn joined<'e>(encoded: &'e [Encoded], part: impl Fn(&'e Encoded) -> &'e [f32]) -> Vec<f32> {
    encoded.iter().flat_map(part).copied().collect()
}

fn run(
    encoder: &mut dyn Encoder,
    reference: &TensorFile<'_>,
    name: &str,
    adapter: Option<&Arc<Adapter>>,
) -> Result<Vec<Encoded>, VerifyError> {
    let pixels = reference.read(name)?;
    let shape = pixels.shape().to_vec();
    if shape.len() != 4 || shape[0] == 0 {
        return Err(VerifyError::Pixels {
            name: name.into(),
            shape,
        });
    }
    let rows: Vec<EncodeRow> = (0..shape[0])
        .filter_map(|row| Tensor::new(&shape[1..], pixels.row(row).to_vec()).ok())
        .map(|pixels| EncodeRow {
            pixels: Arc::new(pixels),
            adapter: adapter.cloned(),
            pinned: false,
        })
        .collect();
    let outputs = Outputs {
        last_hidden_state: true,
    };
    Ok(encoder.encode(&rows, outputs)?)
}
