//! Integration tests, one binary.

mod inversion;
mod meta_train;
mod pool;
mod tune;
