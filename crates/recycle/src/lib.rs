//! The method: tuning, inversion and meta-training, few-shot episodes, classifiers and their evaluation.
//! Works on pixels, features and numbers; knows no SQL, no HTTP, no jobs and no async runtime.

pub mod check;
pub mod classifier;
pub mod episode;
pub mod evaluate;
mod fresh_adapter;
pub mod head;
pub mod head_pass;
pub mod inversion;
pub mod kept_tokens;
pub mod labelled_images;
pub mod layers;
pub mod meta_train;
pub mod over_preset;
pub mod pool;
pub mod prototype;
pub mod quality;
mod random;
pub mod recipe;
mod saved_state;
pub mod steps;
pub mod token_statistics;
pub mod tune;

pub use saved_state::SavedStateError;
