//! Integration tests, one binary.

mod adapter;
#[path = "../support/broken_adapters.rs"]
mod broken_adapters;
mod golden;
