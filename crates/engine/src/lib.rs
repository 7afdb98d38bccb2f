//! Mathematics with gradients: what inversion and meta-training compute, and how.
//! Knows backbones and adapters as numbers; knows no SQL, no HTTP and no async runtime.

pub mod augment;
pub mod backend;
pub mod cpu;
pub mod cuda;
pub mod distance;
pub mod image_backend;
pub mod image_parameters;
pub mod images;
pub mod loss;
mod matrix;
pub mod measure;
pub mod operation;
pub mod optimise;
pub mod process_memory;
pub mod resnet;
pub mod session;
pub mod tolerance;
#[cfg(test)]
mod twins;
pub mod vit;
