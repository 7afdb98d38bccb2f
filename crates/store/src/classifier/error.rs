//! What can be wrong with a request about classifiers.

use super::change::ChangeRecord;
use super::{LONGEST_HEAD_BYTES, LONGEST_TITLE, MOST_BATCH_PICTURES, MOST_CLASSES, MOST_PICTURES};
use crate::StoreError;
use crate::error::MayBeFullDisk;
use thiserror::Error;
use uuid::Uuid;

#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum ClassifierError {
    #[error(transparent)]
    Store(#[from] StoreError),

    #[error("there is no classifier {0}")]
    UnknownClassifier(Uuid),
    #[error("the classifier has no class {0}")]
    UnknownClass(Uuid),
    #[error("the classifier has no picture {0}")]
    UnknownPicture(Uuid),
    #[error("the classifier has no batch {0}")]
    UnknownBatch(Uuid),
    #[error(
        "somebody else changed the classifier: revision {expected} was expected, and it is at {present}{}",
        since(changes)
    )]
    RevisionConflict {
        expected: u64,
        present: u64,
        /// What changed since, oldest first; without what is too long ago.
        changes: Vec<ChangeRecord>,
    },

    #[error("the name of a {what} is empty; give at least one character")]
    EmptyTitle { what: &'static str },
    #[error(
        "the name of a {what} has {characters} characters; at most {LONGEST_TITLE} are allowed"
    )]
    TitleTooLong {
        what: &'static str,
        characters: usize,
    },
    #[error("the name of a {what} has the control character {character:?}")]
    ControlCharacter { what: &'static str, character: char },
    #[error("there is a class \"{0}\" already; names of classes differ in more than case")]
    ClassNameTaken(String),
    #[error("a classifier has at most {MOST_CLASSES} classes; this would make {0}")]
    TooManyClasses(usize),
    #[error("a classifier has at most {MOST_PICTURES} pictures; this would make {0}")]
    TooManyPictures(usize),
    #[error("the settings of the head take {0} bytes; at most {LONGEST_HEAD_BYTES} are allowed")]
    HeadTooLong(usize),
    #[error("an order names each class once: {0}")]
    BadOrder(&'static str),
    #[error("a class cannot be merged into itself")]
    MergeIntoItself,
    #[error("a picture has at least one pixel in each direction")]
    EmptyPicture,
    #[error("there is nothing left to undo")]
    NothingToUndo,
    #[error("there is nothing to redo")]
    NothingToRedo,
    #[error(
        "the picture \"{0}\" itself is not here: its classifier keeps features and thumbnails only"
    )]
    OriginalNotKept(String),
    #[error(
        "a batch has at most {MOST_BATCH_PICTURES} pictures and at least one; this one would have {0}"
    )]
    BadBatchSize(u32),
    #[error("this batch has {pictures} pictures, so there is no position {position}")]
    NoSuchPosition { position: u32, pictures: u32 },
}

fn since(changes: &[ChangeRecord]) -> String {
    let sentences: Vec<String> = changes.iter().map(|done| done.change.to_string()).collect();
    if sentences.is_empty() {
        String::new()
    } else {
        format!(" (since then: {})", sentences.join("; "))
    }
}

impl MayBeFullDisk for ClassifierError {
    fn is_full_disk(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_full_disk())
    }
}

impl From<sqlx::Error> for ClassifierError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<tokio::task::JoinError> for ClassifierError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Store(error.into())
    }
}
