//! Integration tests, one binary.

mod inversion;
mod meta_train;
mod old_state;
mod pool;
mod tune;
