//! Integration tests, one binary.

mod api;
mod backbone;
mod browser;
mod cli;
mod engine_parts;
mod golden;
mod image_input;
mod losses;
mod onnx;
mod reference;
mod support;
mod test_app;
