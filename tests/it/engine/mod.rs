//! The engine against the reference values and against itself.

mod parity;
mod properties;
mod reference;
