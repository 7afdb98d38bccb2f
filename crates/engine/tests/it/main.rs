//! Integration tests, one binary.

mod coupled;
mod parity;
mod parts;
mod properties;
mod refusals;
