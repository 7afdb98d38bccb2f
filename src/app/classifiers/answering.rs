//! How a classifier answers where a question does not say.

use crate::app::{ClassifyOptions, CopiesWanted};
use recycle::head::HeadChoice;
use serde::{Deserialize, Serialize};
use store::ClassifierRecord;

/// What is stored with a classifier; a question may ask for something else.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Answering {
    /// What reads the features.
    pub head: HeadChoice,
    /// Share of pictures of known classes that may be refused; `None` refuses nothing.
    pub reject: Option<f32>,
}

/// What is to change of [`Answering`]; `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AnsweringPatch {
    /// What reads the features.
    pub head: Option<HeadChoice>,
    /// A share, or `Some(None)` to refuse nothing.
    pub reject: Option<Option<f32>>,
}

impl AnsweringPatch {
    /// `stored` with these changes; `None` where there are none.
    pub(super) fn applied(self, stored: Answering) -> Option<Answering> {
        (self != Self::default()).then(|| Answering {
            head: self.head.unwrap_or(stored.head),
            reject: self.reject.unwrap_or(stored.reject),
        })
    }
}

impl Answering {
    /// That of the classifier `record`.
    pub fn of(record: &ClassifierRecord) -> Self {
        Self::deserialize(&record.head).unwrap_or_else(|error| {
            tracing::warn!(%error, "classifier {}: its settings cannot be read and the usual ones answer", record.id);
            Self::default()
        })
    }

    /// With what a question asks for; its share 0 refuses nothing.
    pub fn asked(self, head: Option<HeadChoice>, reject: Option<f32>) -> Self {
        Self {
            head: head.unwrap_or(self.head),
            reject: reject.or(self.reject).filter(|share| *share != 0.0),
        }
    }

    /// For work on the whole classifier, which waits for all copies.
    pub fn whole(self) -> ClassifyOptions {
        ClassifyOptions {
            head: self.head,
            reject: self.reject,
            copies: CopiesWanted::Always,
            ..ClassifyOptions::default()
        }
    }
}
