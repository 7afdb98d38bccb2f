//! What an `App` is asked and what it answers, also as JSON.

use recycle::classifier::{self, Classifier, Score};
use recycle::head::{Calibration, HeadChoice, HeadKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An encoded image and the name that answers call it by.
#[derive(Debug, Clone)]
pub struct NamedImage {
    /// For people; need not be unique.
    pub name: String,
    /// As they were sent, not decoded.
    pub bytes: Vec<u8>,
}

/// A class with its labelled examples.
#[derive(Debug, Clone)]
pub struct SupportClass {
    /// Of the class, not empty.
    pub label: String,
    /// Its examples.
    pub images: Vec<NamedImage>,
}

/// Why one image of a batch was refused; the rest of the batch is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Stable machine-readable name.
    pub code: String,
    /// What is wrong, a sentence without its full stop.
    pub message: String,
}

/// Where the backbone looked: attention of the class token over the patches, row by row, scaled so that the largest is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attention {
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub columns: usize,
    /// `rows·columns` values from 0 to 1.
    pub values: Vec<f32>,
}

/// How sure an answer is. With calibrated probabilities it means the same however many classes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The probability is at least 0.9: right nine times in ten or more.
    Sure,
    /// At least 0.6.
    Probably,
    /// Below that.
    Unsure,
    /// The image is rejected.
    None,
}

impl Certainty {
    const SURE: f32 = 0.9;
    const PROBABLE: f32 = 0.6;

    /// Of an answer that is not rejected, from the probability of its class.
    pub fn of(probability: f32) -> Self {
        if probability >= Self::SURE {
            Self::Sure
        } else if probability >= Self::PROBABLE {
            Self::Probably
        } else {
            Self::Unsure
        }
    }
}

/// A labelled image near to the classified one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Neighbour {
    /// Id of the picture, where a classifier in the store has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Name of the image.
    pub image: String,
    /// Of its class.
    pub label: String,
    /// Between its feature and the classified one's.
    pub distance: f32,
}

impl Neighbour {
    /// `ids` are those of the classifier's supports, in their order, or empty.
    pub(super) fn new(near: classifier::Neighbour, ids: &[Uuid]) -> Self {
        Self {
            id: ids.get(near.support).copied(),
            image: near.image,
            label: near.label,
            distance: near.distance,
        }
    }
}

/// The answer for one query image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Answer {
    /// The image was classified.
    Classified {
        /// Name of the image.
        image: String,
        /// The most probable class; null where the image is rejected.
        label: Option<String>,
        /// All classes, most probable first.
        scores: Vec<Score>,
        /// How sure the most probable class is; `none` where the image is rejected.
        certainty: Certainty,
        /// The nearest support images, nearest first.
        nearest: Vec<Neighbour>,
        /// The nearest support images of the most probable class, nearest first.
        nearest_in_class: Vec<Neighbour>,
        /// The nearest support image of all, where it is of another class than the most probable one.
        closest_elsewhere: Option<Neighbour>,
        /// What read the features.
        head: HeadKind,
        /// Where the probabilities' temperature comes from; with `none` they are rough.
        calibration: Calibration,
        /// From 0 to 1: the share of images of known classes that are nearer to their class. Null where there are too few labelled
        /// images to tell.
        novelty: Option<f32>,
        /// Where the scale of novelty comes from; `none` where there is none.
        novelty_calibration: Calibration,
        /// Whether the class means were moved towards the queries before.
        transductive: bool,
        /// Whether the image looks like none of the classes; only where `reject` asks for it.
        rejected: bool,
        /// Only where asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        attention: Option<Attention>,
    },
    /// The image could not be used.
    Failed {
        /// Name of the image.
        image: String,
        /// Why.
        error: Fault,
    },
}

/// A support image that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedSupport {
    /// Name of the image.
    pub image: String,
    /// Of the class that it was sent for.
    pub label: String,
    /// Why it could not be used.
    pub error: Fault,
}

/// A classifier made of labelled images.
#[derive(Debug, Clone, PartialEq)]
pub struct FittedClassifier {
    /// Made of the images that could be used.
    pub classifier: Classifier,
    /// The others.
    pub refused: Vec<RefusedSupport>,
    /// Of the pictures that it is made of, in their order; empty where they are in no store.
    pub ids: Vec<Uuid>,
    /// Whether copies of its pictures are still to be encoded, in the background; a head without copies answers until then.
    pub is_provisional: bool,
}

/// Answers for a batch of query images.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// In the order of the queries.
    pub answers: Vec<Answer>,
    /// Support images that could not be used.
    pub refused: Vec<RefusedSupport>,
    /// Whether the same question has a better answer once work in the background is done.
    pub is_provisional: bool,
}

/// Whether copies are waited for, however many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopiesWanted {
    /// As for a command, which answers once.
    Always,
    /// As for a server: many are encoded in the background.
    Soon,
}

/// What `classify` also returns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassifyOptions {
    /// Adds the attention map to each answer.
    pub attention: bool,
    /// How many nearest support images are named.
    pub nearest: usize,
    /// What reads the features.
    pub head: HeadChoice,
    /// Whether many copies of the examples are waited for.
    pub copies: CopiesWanted,
    /// Moves the class means towards all queries together first.
    pub transductive: bool,
    /// Share of images of known classes that may be refused so that others are; `None` refuses nothing.
    pub reject: Option<f32>,
}

impl ClassifyOptions {
    /// What is wrong with them; `None` if nothing is.
    pub fn problem(&self) -> Option<&'static str> {
        let is_nearest_mean = self.head.settings().kind == HeadKind::NearestMean;
        (self.transductive && is_nearest_mean).then_some(
            "transductive needs the head lda or lda-augmented; nearest-mean has no metric to group the pictures in",
        )
    }
}

impl Default for ClassifyOptions {
    fn default() -> Self {
        Self {
            attention: false,
            nearest: 3,
            head: HeadChoice::Auto,
            copies: CopiesWanted::Soon,
            transductive: false,
            reject: None,
        }
    }
}

/// The feature of one image, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Embedding {
    /// The feature of an image that could be used.
    Embedded {
        /// Name of the image.
        image: String,
        /// `[dimensions]`
        feature: Vec<f32>,
    },
    /// The image could not be used.
    Failed {
        /// Name of the image.
        image: String,
        /// Why.
        error: Fault,
    },
}
