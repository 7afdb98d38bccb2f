//! Integration tests, one binary.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

mod coupled;
mod images;
mod parity;
mod parts;
mod properties;
mod refusals;
