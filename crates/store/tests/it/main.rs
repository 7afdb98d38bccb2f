//! Integration tests, one binary.

mod adapters;
mod alias;
mod folder;
mod job_times;
mod jobs_model;
mod kill;
mod model;
