//! The contract between those who have pixels and those who compute features.

use model::adapter::Adapter;
use model::backbone::BackboneConfig;
use model::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use utoipa::ToSchema;

/// One image of a batch.
#[derive(Debug, Clone)]
pub struct EncodeRow {
    /// `[3, S, S]`, normalised as the backbone's preprocessing says. All rows of a batch have the same `S`.
    pub pixels: Arc<Tensor>,
    /// The adapter this row goes through; `None` is the bare backbone.
    pub adapter: Option<Arc<Adapter>>,
    /// Keeps the adapter ready while others come and go: for those that are asked for all the time.
    pub pinned: bool,
}

impl EncodeRow {
    /// An image for the bare backbone.
    pub fn bare(pixels: Arc<Tensor>) -> Self {
        Self {
            pixels,
            adapter: None,
            pinned: false,
        }
    }

    /// An image for an adapter that other adapters may displace.
    pub fn adapted(pixels: Arc<Tensor>, adapter: Arc<Adapter>) -> Self {
        Self {
            pixels,
            adapter: Some(adapter),
            pinned: false,
        }
    }

    /// The adapter where it changes anything.
    pub(super) fn changing_adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter
            .as_ref()
            .filter(|adapter| !adapter.pairs.is_empty())
    }
}

/// Outputs that cost extra and are made on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Outputs {
    /// All tokens after the last LayerNorm.
    pub last_hidden_state: bool,
}

/// What an encoder returns for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// `[feature_width]`
    pub feature: Vec<f32>,
    /// Attention of the class token over the patches in the last layer, mean over heads, row by row: `[grid²]`.
    pub cls_attention: Vec<f32>,
    /// `[1 + grid², width]`: after the final LayerNorm, for CLIP before it. Only where asked for.
    pub last_hidden_state: Option<Tensor>,
}

impl Encoded {
    /// The class token and the mean of the patch tokens of the last hidden state, each `[width]`.
    pub fn cls_and_mean(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        let hidden = self.last_hidden_state.as_ref()?;
        let (tokens, width) = (hidden.shape()[0], hidden.shape()[1]);
        let (cls, patches) = hidden.data().split_at(width);
        let mean = (0..width).map(|column| {
            let values = patches.iter().skip(column).step_by(width);
            let sum: f64 = values.map(|&value| f64::from(value)).sum();
            (sum / (tokens - 1) as f64) as f32
        });
        Some((cls.to_vec(), mean.collect()))
    }

    /// Whether the feature and every distance to another such feature are finite: squares must add up without overflow.
    pub fn is_finite(&self) -> bool {
        let squares = self
            .feature
            .iter()
            .map(|&own| f64::from(own) * f64::from(own));
        // NaN is not smaller. Of two features, the square of a difference is at most four times the larger square.
        squares.sum::<f64>() < f64::from(f32::MAX) / 16.0
    }

    /// Row `row` of a batch's outputs, each with the batch as its first axis.
    ///
    /// # Errors
    /// [`EncodeError::Engine`] where the hidden state's shape does not hold its values.
    pub(super) fn of_row(
        row: usize,
        features: &Tensor,
        cls_attention: &Tensor,
        last_hidden_state: Option<&Tensor>,
    ) -> Result<Self, EncodeError> {
        let last_hidden_state = last_hidden_state
            .map(|state| Tensor::new(&state.shape()[1..], state.row(row).to_vec()))
            .transpose()
            .map_err(|error| EncodeError::Engine(error.to_string()))?;
        Ok(Self {
            feature: features.row(row).to_vec(),
            cls_attention: cls_attention.row(row).to_vec(),
            last_hidden_state,
        })
    }
}

/// Which engine computes, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EncoderInfo {
    /// `onnxruntime` or `native`
    pub engine: String,
    /// `cpu` or `cuda`: where most of the graph is computed.
    pub device: String,
    /// The execution providers that ONNX Runtime has given nodes of the graph to, the one with the most first; empty for the
    /// built-in engine.
    pub providers: Vec<String>,
    /// Of the engine.
    pub version: String,
    /// Threads of one computation.
    pub threads: usize,
}

impl fmt::Display for EncoderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (engine, version) = (&self.engine, &self.version);
        write!(f, "{engine} {version} on {}", self.device)
    }
}

/// Why a batch was not encoded.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum EncodeError {
    #[error("encode: {0}")]
    BadInput(String),
    #[error("the queue of the encoder is full")]
    Overloaded,
    #[error("the encoder has stopped")]
    Stopped,
    #[error("{0}")]
    Engine(String),
}

/// Turns a batch of pixels into features. Runs on a separate thread, one batch at a time.
pub trait Encoder: Send {
    /// Which engine computes, and where.
    fn info(&self) -> EncoderInfo;

    /// Encodes `rows`, which all have the same image size; the answer has one entry per row, in order.
    ///
    /// # Errors
    /// [`EncodeError::BadInput`] names the operation and the shapes; nothing has been computed then.
    fn encode(&mut self, rows: &[EncodeRow], outputs: Outputs)
    -> Result<Vec<Encoded>, EncodeError>;

    /// Gives back what is kept for adapters that nobody holds any more; called while there is nothing to encode.
    fn tidy(&mut self) {}
}

/// The image size that `rows` share, `None` for no rows.
///
/// # Errors
/// [`EncodeError::BadInput`] where pixels are not `[3, size, size]`, not of one size, or not finite.
pub(super) fn common_image_size(rows: &[EncodeRow]) -> Result<Option<usize>, EncodeError> {
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let expected = first.pixels.shape();
    for (index, row) in rows.iter().enumerate() {
        let shape = row.pixels.shape();
        if shape.len() != 3 || shape[0] != 3 || shape[1] != shape[2] || shape[1] == 0 {
            return Err(EncodeError::BadInput(format!(
                "pixels of image {index} are {shape:?}, expected [3, size, size]"
            )));
        }
        if shape != expected {
            return Err(EncodeError::BadInput(format!(
                "pixels of image {index} are {shape:?}, those of image 0 are {expected:?}"
            )));
        }
        if let Some(at) = row.pixels.first_non_finite() {
            return Err(EncodeError::BadInput(format!(
                "pixel value {at} of image {index} is not a finite number"
            )));
        }
    }
    Ok(Some(expected[1]))
}

/// Every adapter of `rows` is for a backbone of this `config`.
///
/// # Errors
/// [`EncodeError::BadInput`] names the linear map and both shapes.
pub(super) fn check_adapters(
    rows: &[EncodeRow],
    config: &BackboneConfig,
) -> Result<(), EncodeError> {
    for row in rows {
        if let Some(adapter) = row.changing_adapter() {
            adapter
                .check_shapes(config)
                .map_err(|error| EncodeError::BadInput(error.to_string()))?;
        }
    }
    Ok(())
}
