//! Integration tests, one binary.

mod backbone;
mod golden;
mod onnx;
mod support;
