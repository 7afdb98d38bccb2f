//! Integration tests, one binary.

mod golden;
mod losses;
