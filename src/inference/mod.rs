//! Serving: the encoder contract, its implementations, and batching.
//! Knows backbones and adapters; knows no HTTP, no SQL and no job.

mod adapter_slots;
mod encoder;
mod head;
mod native_encoder;
mod open;
mod ort_encoder;
mod ort_library;
mod service;

pub use encoder::{EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs};
pub use head::head_logits;
pub use native_encoder::NativeEncoder;
pub use open::{EncoderChoice, open_encoder};
pub use ort_encoder::{Device, OrtEncoder, OrtOptions};
pub use ort_library::{ORT_VERSION, OrtLibraryError, load_ort_library};
pub use service::{EncoderService, ServiceLimits};
