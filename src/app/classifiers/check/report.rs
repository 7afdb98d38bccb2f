//! What a check found, as it is sent.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// How good a classifier is by its own examples.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ClassifierCheck)]
pub struct Check {
    /// Of the classifier.
    pub revision: u64,
    /// How many it has.
    pub pictures: usize,
    /// How many have pictures.
    pub classes: usize,
    /// Null where fewer than two classes have two different pictures.
    pub accuracy: Option<Accuracy>,
    /// What a better check needs, a sentence.
    pub missing: Option<String>,
    /// What examples of a class are sorted into: all pairs of classes up to 15 classes, otherwise the 20 worst mistakes.
    pub confusion: Vec<Confusion>,
    /// Ids of pictures that are nearly the same, the most alike first.
    pub near_duplicates: Vec<[Uuid; 2]>,
    /// What would help, what is worth most first.
    pub hints: Vec<Hint>,
}

/// How many examples are sorted right by a classifier that has seen neither them nor their near-duplicates: of each class one of at most
/// five parts after the other is left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Accuracy {
    pub right: usize,
    /// Examples that could be left out.
    pub of: usize,
    pub share: f64,
    /// Of Wilson's 95 % interval.
    pub low: f64,
    /// Of Wilson's 95 % interval.
    pub high: f64,
}

/// Examples of one class by what they are sorted into.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Confusion {
    /// Id of the class that they are in.
    #[serde(rename = "true")]
    pub labelled: Uuid,
    /// Id of the class that they are sorted into.
    pub answered: Uuid,
    pub count: usize,
    /// Ids of the pictures.
    pub images: Vec<Uuid>,
}

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HintKind {
    /// Another class is far more probable than the picture's own.
    WrongLabel,
    /// The same picture, or nearly, is in two classes.
    InTwoClasses,
    /// Two classes are taken for each other.
    AlikeClasses,
    /// Nearly the same picture is in a class twice.
    NearDuplicate,
    /// More pictures of this class are worth most.
    NeedsMore,
}

/// Something that would make a classifier better.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Hint {
    /// What it is about.
    pub kind: HintKind,
    /// For people.
    pub sentence: String,
    /// Ids of the pictures that it is about.
    pub images: Vec<Uuid>,
    /// Ids of the classes that it is about.
    pub classes: Vec<Uuid>,
    /// From 0 to 1; within a kind the larger is the surer.
    pub score: f64,
    /// What to do about it.
    pub change: HintChange,
}

/// A change that follows a hint.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HintChange {
    /// Move the picture to the class.
    Move {
        /// Id of the picture.
        image: Uuid,
        /// Id of the class.
        class: Uuid,
    },
    /// Delete the picture.
    Delete {
        /// Id of the picture.
        image: Uuid,
    },
    /// Merge the class into the other.
    Merge {
        /// Id of the class that goes.
        class: Uuid,
        /// Id of the class that gets its pictures.
        into: Uuid,
    },
    /// Add pictures to the class.
    Add {
        /// Id of the class.
        class: Uuid,
        /// How many.
        count: usize,
    },
}
