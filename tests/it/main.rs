//! Integration tests, one binary.

mod api;
mod backbone;
mod browser;
mod cli;
mod golden;
mod image_input;
mod onnx;
mod support;
mod test_app;
