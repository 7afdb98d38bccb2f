//! The engine against the reference values and against itself.

mod coupled;
mod parity;
mod properties;
pub mod reference;
mod refusals;
