//! Serving: the encoder contract, its implementations, batching, and few-shot classification on features.
//! Knows backbones and adapters; knows no HTTP, no SQL and no job.

pub mod classify;
mod encoder;

pub use encoder::{EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs};
