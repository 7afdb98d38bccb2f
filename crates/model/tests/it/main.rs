//! Integration tests, one binary.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

mod adapter;
mod backbone;
mod image_input;
mod picture_memory;
mod tensor_limits;
mod thread_memory;
