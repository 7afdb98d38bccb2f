//! What a model is in LoRA Recycle: tensors and their files, pictures as tensors, backbones, LoRA adapters and their merges.
//! Computes no pass; knows no SQL, no HTTP, no terminal and no async runtime.

pub mod adapter;
pub mod backbone;
pub mod digest;
pub mod image_input;
pub mod tensor;
pub mod tensor_file;
