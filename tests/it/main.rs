//! Integration tests, one binary.

mod backbone;
mod engine_parts;
mod golden;
mod image_input;
mod losses;
mod onnx;
mod reference;
mod support;
