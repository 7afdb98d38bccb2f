//! Integration tests, one binary.

mod golden;
mod image_input;
