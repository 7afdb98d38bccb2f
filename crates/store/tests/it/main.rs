//! Integration tests, one binary.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

mod adapters;
mod alias;
mod batches;
mod classifier_fixtures;
mod classifier_storage;
mod classifiers;
mod classifiers_model;
mod classifiers_state;
mod features;
mod folder;
mod idempotency;
mod job_times;
mod jobs_model;
mod kill;
mod model;
mod seeds;
