//! The engine against the reference values and against itself.

mod inversion;
mod native_encoder;
pub mod parity;
mod properties;
pub mod reference;
