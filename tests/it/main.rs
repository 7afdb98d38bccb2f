//! Integration tests, one binary.

mod backbone;
mod golden;
mod image_input;
mod onnx;
mod support;
