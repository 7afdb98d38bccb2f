//! Optimisers and learning rates. Knows parameters as flat slices, nothing of what they mean.

mod adam;
mod schedule;

pub use adam::{Adam, AdamSettings, AdamState, AdamStateError};
pub use schedule::CyclicSchedule;
