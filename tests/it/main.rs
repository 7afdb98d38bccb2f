//! Integration tests, one binary.

mod backbone;
mod golden;
mod losses;
mod onnx;
mod support;
