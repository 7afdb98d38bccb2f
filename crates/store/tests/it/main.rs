//! Integration tests, one binary.

mod adapters;
mod alias;
mod folder;
mod jobs_model;
mod kill;
mod model;
