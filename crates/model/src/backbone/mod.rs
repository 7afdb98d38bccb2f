//! What a vision transformer is: configuration, weights, how Hugging Face folders hold them, and its identity.
//! Knows nothing of adapters, of how a forward pass is computed, of HTTP or of SQL.

mod checkpoint;
mod config;
mod embedded;
pub mod onnx;
mod position;
mod preprocess;
mod target;
mod weights;

pub use checkpoint::{BackboneError, load_folder, load_parts};
pub use config::{Activation, Architecture, BackboneConfig, Pooling};
pub use embedded::{
    EMBEDDED_DIGEST, EMBEDDED_NAME, EMBEDDED_TOKEN_STATISTICS, embedded, embedded_config,
};
pub use position::interpolate_position_embedding;
pub use preprocess::{Preprocess, Resample, ResizeTarget};
pub use target::Target;
pub use weights::{LayerNorm, LayerWeights, Linear, Weights};

use crate::digest::hex;
use sha2::{Digest, Sha256};

/// A vision transformer with everything that is needed to run it.
#[derive(Debug, Clone)]
pub struct Backbone {
    /// Its shapes.
    pub config: BackboneConfig,
    /// How a picture becomes its input.
    pub preprocess: Preprocess,
    /// As `f32`, whatever type they were stored in.
    pub weights: Weights,
    /// Lower-case hexadecimal SHA-256 over the tensors that are used: see [`Weights::visit`].
    pub digest: String,
}

impl Backbone {
    /// Computes the digest of `weights` and joins the parts.
    pub fn new(config: BackboneConfig, preprocess: Preprocess, weights: Weights) -> Self {
        let digest = digest(&weights);
        Self {
            config,
            preprocess,
            weights,
            digest,
        }
    }

    /// Side in pixels of the square image that the preprocessing makes, else of the one the position embedding belongs to.
    pub fn image_size(&self) -> usize {
        self.preprocess
            .image_size()
            .unwrap_or(self.config.native_image_size)
    }

    /// Length of the feature that an image is reduced to.
    pub fn feature_width(&self) -> usize {
        self.config.feature_width()
    }
}

/// Identity of a set of weights: for each tensor in canonical order its name, its shape and its values as
/// little-endian `f32`, so that the same values in another storage type have the same identity.
fn digest(weights: &Weights) -> String {
    let mut hasher = Sha256::new();
    weights.visit(&mut |name, shape, values| {
        hasher.update(name.as_bytes());
        hasher.update([0]);
        for &axis in shape {
            hasher.update((axis as u64).to_le_bytes());
        }
        hasher.update([0]);
        let mut bytes = [0u8; 4096];
        for chunk in values.chunks(bytes.len() / 4) {
            for (slot, value) in bytes.chunks_exact_mut(4).zip(chunk) {
                slot.copy_from_slice(&value.to_le_bytes());
            }
            hasher.update(&bytes[..chunk.len() * 4]);
        }
    });
    hex(&hasher.finalize())
}
