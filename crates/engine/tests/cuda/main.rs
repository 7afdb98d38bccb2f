//! The CUDA backend on the emulated device, against the CPU backend, and what it does where memory ends or the device is lost.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]

mod faults;
mod golden;
mod images;
mod libraries;
mod on_paper;
mod pictures;
mod pieces;
mod session;
