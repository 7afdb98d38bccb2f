//! Integration tests, one binary.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

mod api;
mod api_examples;
mod architecture;
mod batches_api;
mod batches_server;
mod bounds;
mod browser;
mod classifier;
mod classifier_export;
mod classifiers_answering;
mod classifiers_api;
mod classifiers_automatic;
mod classifiers_cli;
mod classifiers_kill;
mod classifiers_undo;
mod cli;
#[cfg(unix)]
mod connections;
mod data_folder;
mod device_cli;
mod device_jobs_cli;
mod encoder_contract;
mod evaluation_cli;
mod golden;
mod health;
mod image_formats;
mod jobs_api;
mod jobs_cli;
mod jobs_runner;
mod jobs_support;
mod making_cli;
mod onnx;
mod onnx_classifier;
mod openapi;
mod openapi_client;
mod pool_quality_api;
mod provisional;
mod recycle_cli;
mod registry_api;
mod registry_cli;
mod registry_serving;
mod server;
mod support;
mod test_app;
