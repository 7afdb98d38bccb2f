//! Classifiers that stay: named classes with their pictures, who changed them, and what undoes the last changes.
//! Takes and gives pictures as bytes with what is known of them; knows nothing of features' meaning, heads or HTTP.
//!
//! Each change is one transaction and one revision. It is written as edits, the state of each class and picture before and after it;
//! doing, undoing and redoing apply the same edits. What is deleted stays, without place, until no edit names it any more.

mod add;
mod arrange;
mod change;
mod classes;
mod delete;
mod error;
mod history;
mod kept_features;
mod known;
mod pictures;
mod read;
mod record;
mod results;
mod settings;
mod step;
#[cfg(test)]
mod tests;
mod title;

pub use add::{AddedPicture, AddedPictures, NewPicture};
pub use change::{Change, ChangeRecord, ChangeState, Names};
pub use classes::{AddedClasses, ClassRecord, NewClass};
pub use error::ClassifierError;
pub use known::KnownPicture;
pub use pictures::{PictureFilter, PictureRecord};
pub(super) use read::exists;
pub use read::{ClassifierFilter, ClassifierUse};
pub use record::{AdapterChoice, ClassifierRecord, Privacy};
pub use results::ClassifierResult;
pub use settings::{ClassifierPatch, NewClassifier};
pub use step::{Author, Changed};
pub(super) use title::Title;
pub use title::class_name_key;

/// Most classes of a classifier.
pub const MOST_CLASSES: usize = 1000;
/// Most pictures of a classifier.
pub const MOST_PICTURES: usize = 20_000;
/// Most pictures of a batch.
pub const MOST_BATCH_PICTURES: u32 = 10_000;
/// Most characters of the name of a classifier, class, picture or batch.
pub const LONGEST_TITLE: usize = 200;
/// Most bytes of head settings, as JSON.
pub const LONGEST_HEAD_BYTES: usize = 16 << 10;
/// Changes that can be undone.
pub const MOST_UNDO: u32 = 50;
