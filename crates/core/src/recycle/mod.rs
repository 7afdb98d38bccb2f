//! The method: few-shot episodes, prototypes and their evaluation.
//! Works on features and numbers; knows no SQL, no HTTP and no async runtime.

pub mod episode;
pub mod evaluate;
pub mod prototype;
pub mod steps;
