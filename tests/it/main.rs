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
mod evaluation_cli;
mod golden;
mod image_input;
mod jobs_api;
mod jobs_cli;
mod jobs_model;
mod jobs_runner;
mod jobs_support;
mod making_cli;
mod onnx;
mod recycle_inversion;
mod recycle_pool;
mod recycle_tune;
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
