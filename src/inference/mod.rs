//! Serving: the encoder contract, its implementations, and batching.
//! Knows backbones and adapters; knows no HTTP, no SQL and no job.

mod adapter_slots;
mod cuda;
mod device;
mod encoder;
mod head;
mod native_encoder;
mod open;
mod ort_encoder;
mod ort_library;
mod ort_session;
mod service;
mod slot_table;

pub use cuda::{CudaPart, cuda_parts, preload_cuda};
pub use device::{Device, Loaded, load_for};
pub use encoder::{EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs};
pub use head::head_logits;
pub use native_encoder::NativeEncoder;
pub use open::{EncoderChoice, open_encoder};
pub use ort_encoder::{OrtEncoder, OrtOptions, nodes_off_cuda};
pub use ort_library::{OrtLibrary, OrtLibraryError};
pub use service::{EncoderService, ServiceLimits};
