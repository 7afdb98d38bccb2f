//! What computes in LoRA Recycle: encoded images to tensors, backbones, adapters, mathematics with gradients, and the method.
//! A crate of its own so that it is always optimised and seldom rebuilt. Knows no SQL, no HTTP, no terminal and no async runtime.

pub mod adapter;
pub mod backbone;
pub mod engine;
pub mod image_input;
pub mod process_memory;
pub mod recycle;
pub mod tensor;
pub mod tensor_file;
