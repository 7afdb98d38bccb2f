//! Features of pictures as rows: how they are keyed, stored and kept within bounds. Knows nothing of what computes them.

mod cache;
mod space;

pub(super) use cache::{FeatureCache, forget_pictures};
pub use space::{FeatureSpace, Variant};
pub(super) use space::{adapter_text, from_bytes, to_bytes};
