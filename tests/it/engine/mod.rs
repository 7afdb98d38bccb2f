//! The engine against the reference values and against itself.

mod inversion;
mod native_encoder;
mod parity;
mod properties;
mod reference;
