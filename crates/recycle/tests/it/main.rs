//! Integration tests, one binary.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

mod inversion;
mod meta_train;
mod old_state;
mod on_device;
mod pool;
mod tune;
