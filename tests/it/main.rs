//! Integration tests, one binary.

mod backbone;
mod engine;
mod golden;
mod losses;
mod onnx;
mod support;
