//! The identity of an adapter: the same low-rank pairs and head have the same digest, however they were named and stored.

use super::{Adapter, Head};
use crate::digest::hex;
use crate::tensor::Tensor;
use sha2::{Digest, Sha256};

impl Adapter {
    /// Lower-case hexadecimal SHA-256 over LoRA matrices, scales, head and labels in one fixed order; values as little-endian `f32`.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for (site, pair) in &self.pairs {
            hasher.update((site.layer as u64).to_le_bytes());
            text(&mut hasher, site.target.name());
            tensor(&mut hasher, &pair.a);
            tensor(&mut hasher, &pair.b);
            hasher.update(pair.scale.to_le_bytes());
        }
        if let Some(head) = &self.head {
            self::head(&mut hasher, head);
        }
        hex(&hasher.finalize())
    }
}

fn head(hasher: &mut Sha256, head: &Head) {
    text(
        hasher,
        match head.input {
            super::HeadInput::Feature => "head.feature",
            super::HeadInput::Cls => "head.cls",
            super::HeadInput::ClsMean => "head.cls_mean",
        },
    );
    tensor(hasher, &head.weight);
    hasher.update([u8::from(head.bias.is_some())]);
    if let Some(bias) = &head.bias {
        tensor(hasher, bias);
    }
    for label in &head.labels {
        text(hasher, label);
    }
}

/// With its length in front, so that no two different sequences give the same bytes.
fn text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn tensor(hasher: &mut Sha256, tensor: &Tensor) {
    hasher.update((tensor.shape().len() as u64).to_le_bytes());
    for &axis in tensor.shape() {
        hasher.update((axis as u64).to_le_bytes());
    }
    let bytes: Vec<u8> = tensor.data().iter().flat_map(|v| v.to_le_bytes()).collect();
    hasher.update(&bytes);
}
