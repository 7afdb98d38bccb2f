//! Integration tests, one binary.

mod golden;
mod store;
mod store_folder;
mod store_kill;
mod store_model;
