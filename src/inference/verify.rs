//! Compares an encoder with the reference values that a backbone folder carries.

use super::encoder::{EncodeError, EncodeRow, Encoder, Outputs};
use crate::tensor::Tensor;
use crate::tensor_file::{TensorError, TensorFile};
use serde::Serialize;
use std::sync::Arc;
use thiserror::Error;

/// Allowed error of a forward pass in `f32`, relative to the tensor's largest absolute value: about 160 rounding steps of a
/// value of that size, what different orders of summation over a few layers cost.
pub const FORWARD_TOLERANCE: f32 = 2e-5;

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
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Runs the pixels of `reference` through `encoder` and compares what comes out with the tensors that are known:
/// `features`, `cls_attention` and `last_hidden_state` of `pixel_values`, `cls_SIZE` and `mean_patch_SIZE` of `pixels_SIZE`.
///
/// # Errors
/// [`VerifyError`] where the reference cannot be read or the encoder refuses.
pub fn verify(
    encoder: &mut dyn Encoder,
    reference: &TensorFile,
) -> Result<Verification, VerifyError> {
    let mut tensors = Vec::new();
    let mut seen = Vec::new();
    for name in reference.names() {
        if name == "pixel_values" {
            let states = run(encoder, reference, name)?;
            seen.push(name.to_owned());
            for (name, computed) in [
                ("features", &states.feature),
                ("cls_attention", &states.cls_attention),
                ("last_hidden_state", &states.last_hidden_state),
            ] {
                compare(reference, name, computed, &mut tensors, &mut seen)?;
            }
        } else if let Some(size) = name.strip_prefix("pixels_") {
            let states = run(encoder, reference, name)?;
            seen.push(name.to_owned());
            let (cls, mean) = states.cls_and_mean();
            compare(
                reference,
                &format!("cls_{size}"),
                &cls,
                &mut tensors,
                &mut seen,
            )?;
            compare(
                reference,
                &format!("mean_patch_{size}"),
                &mean,
                &mut tensors,
                &mut seen,
            )?;
        }
    }
    let skipped = reference
        .names()
        .filter(|name| !seen.iter().any(|seen| seen == name))
        .map(str::to_owned)
        .collect();
    Ok(Verification {
        ok: !tensors.is_empty() && tensors.iter().all(|check| check.ok),
        tensors,
        skipped,
    })
}

/// Outputs of a whole batch, joined.
struct States {
    feature: Vec<f32>,
    cls_attention: Vec<f32>,
    last_hidden_state: Vec<f32>,
    /// `[tokens, width]` of one image's last hidden state.
    token_shape: [usize; 2],
}

impl States {
    /// The class token and the mean of the patch tokens of each image.
    fn cls_and_mean(&self) -> (Vec<f32>, Vec<f32>) {
        let [tokens, width] = self.token_shape;
        let mut cls = Vec::new();
        let mut mean = Vec::new();
        for image in self.last_hidden_state.chunks_exact(tokens * width) {
            let (first, patches) = image.split_at(width);
            cls.extend_from_slice(first);
            mean.extend((0..width).map(|column| {
                let sum: f64 = patches
                    .iter()
                    .skip(column)
                    .step_by(width)
                    .map(|&value| f64::from(value))
                    .sum();
                (sum / (tokens - 1) as f64) as f32
            }));
        }
        (cls, mean)
    }
}

fn run(
    encoder: &mut dyn Encoder,
    reference: &TensorFile,
    name: &str,
) -> Result<States, VerifyError> {
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
            adapter: None,
        })
        .collect();
    let outputs = Outputs {
        last_hidden_state: true,
    };
    let mut states = States {
        feature: Vec::new(),
        cls_attention: Vec::new(),
        last_hidden_state: Vec::new(),
        token_shape: [1, 1],
    };
    for encoded in encoder.encode(&rows, outputs)? {
        states.feature.extend(encoded.feature);
        states.cls_attention.extend(encoded.cls_attention);
        if let Some(hidden) = encoded.last_hidden_state {
            states.token_shape = [hidden.shape()[0], hidden.shape()[1]];
            states.last_hidden_state.extend(hidden.into_data());
        }
    }
    Ok(states)
}

fn compare(
    reference: &TensorFile,
    name: &str,
    computed: &[f32],
    tensors: &mut Vec<TensorCheck>,
    seen: &mut Vec<String>,
) -> Result<(), VerifyError> {
    if reference.shape(name).is_none() {
        return Ok(());
    }
    let expected = reference.read(name)?;
    seen.push(name.to_owned());
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
    tensors.push(TensorCheck {
        name: name.to_owned(),
        max_error,
        tolerance: FORWARD_TOLERANCE,
        ok: max_error <= FORWARD_TOLERANCE,
    });
    Ok(())
}
