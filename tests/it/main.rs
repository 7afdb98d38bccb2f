//! Integration tests, one binary.

mod engine_parts;
mod golden;
mod losses;
mod reference;
