//! Integration tests, one binary.

mod adapter;
mod backbone;
mod image_input;
