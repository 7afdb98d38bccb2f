//! Integration tests, one binary.

mod backbone;
mod browser;
mod golden;
mod image_input;
mod onnx;
mod support;
