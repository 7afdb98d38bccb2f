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
mod server;
mod store;
mod store_alias;
mod store_folder;
mod store_kill;
mod store_model;
mod store_support;
mod support;
mod test_app;
