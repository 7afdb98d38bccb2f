//! Integration tests, one binary.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

mod adapters;
mod alias;
mod folder;
mod job_times;
mod jobs_model;
mod kill;
mod model;
