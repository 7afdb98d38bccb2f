//! Integration tests, one binary.

mod backbone;
mod golden;
mod image_input;
mod onnx;
mod store;
mod store_alias;
mod store_folder;
mod store_kill;
mod store_model;
mod store_support;
mod support;
