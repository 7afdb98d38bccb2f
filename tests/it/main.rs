//! Integration tests, one binary.

mod adapter;
mod api;
mod backbone;
#[path = "../support/broken_adapters.rs"]
mod broken_adapters;
mod browser;
mod cli;
mod encoder_contract;
mod engine;
mod engine_parts;
mod golden;
mod image_input;
mod onnx;
mod reference;
mod registry_api;
mod registry_cli;
mod registry_serving;
mod server;
mod store;
mod store_alias;
mod store_folder;
mod store_kill;
mod store_model;
mod store_support;
mod support;
mod test_app;
