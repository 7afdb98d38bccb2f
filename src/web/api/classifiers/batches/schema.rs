//! Batches and their pictures as they are sent.

use crate::web::api::jobs::Job;
use serde::Serialize;
use serde_json::Value;
use store::{BatchRecord, BatchRow, BatchStatus, BatchSummary};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::Fault;

/// Many pictures that a classifier sorts.
#[derive(Serialize, ToSchema)]
pub struct Batch {
    id: Uuid,
    /// Id of the classifier.
    classifier: Uuid,
    /// For people.
    #[schema(example = "holiday")]
    name: String,
    /// Pictures that were sent.
    picture_count: u32,
    /// Those that are sorted.
    done_count: u32,
    /// Milliseconds since 1970 (UTC).
    created_ms: i64,
    created_by: String,
    /// The job that sorts it, with its progress and the time that is left; null where it was deleted.
    job: Option<Job>,
}

impl Batch {
    pub fn new(record: BatchRecord, job: Option<Job>) -> Self {
        Self {
            id: record.id,
            classifier: record.classifier,
            name: record.name,
            picture_count: record.pictures,
            done_count: record.done,
            created_ms: record.created_ms,
            created_by: record.created_by,
            job,
        }
    }
}

/// A batch with what it came to so far, and a page of its pictures.
#[derive(Serialize, ToSchema)]
pub struct BatchPage {
    #[serde(flatten)]
    batch: Batch,
    /// Of the whole batch, whatever the filter.
    summary: BatchSummary,
    /// Those that pass the filter, in the order in which they were sent.
    pictures: Vec<BatchPicture>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

impl BatchPage {
    pub fn new(
        batch: Batch,
        summary: BatchSummary,
        pictures: Vec<BatchPicture>,
        next_cursor: Option<String>,
    ) -> Self {
        Self {
            batch,
            summary,
            pictures,
            next_cursor,
        }
    }
}

/// A likely class of a picture.
#[derive(Serialize, ToSchema)]
pub struct BatchScore {
    /// Id of the class; it may be gone by now.
    class: Uuid,
    /// As the class was called.
    label: String,
    /// From 0 to 1.
    probability: f32,
}

/// What came of a picture of a batch.
#[derive(Serialize, ToSchema)]
pub struct BatchPicture {
    /// From 0 within the batch.
    pub position: u32,
    /// As it was sent, with its folders.
    #[schema(example = "holiday/1.jpg")]
    pub image: String,
    pub status: BatchStatus,
    /// The most probable class; null where the picture is rejected or could not be sorted.
    pub label: Option<String>,
    /// The probability of the most probable class; null where the picture could not be sorted.
    pub confidence: Option<f32>,
    /// The five most probable classes.
    pub scores: Vec<BatchScore>,
    /// From 0 to 1: the share of pictures of known classes that are nearer to their class.
    pub novelty: Option<f32>,
    /// It looks like none of the classes.
    pub rejected: bool,
    /// Why it could not be sorted.
    #[schema(value_type = Option<Fault>)]
    pub error: Option<Value>,
    /// Whether its bytes are kept as they were sent.
    is_kept: bool,
    /// Whether it has a thumbnail.
    has_thumbnail: bool,
}

impl From<BatchRow> for BatchPicture {
    fn from(row: BatchRow) -> Self {
        let best = row.labels.first().map(|best| best.name.clone());
        let scores = row.labels.into_iter().map(|score| BatchScore {
            class: score.class,
            label: score.name,
            // They were made as such.
            probability: score.probability as f32,
        });
        Self {
            position: row.position,
            image: row.name,
            status: row.status,
            label: best.filter(|_| !row.rejected),
            confidence: row.confidence.map(|confidence| confidence as f32),
            scores: scores.collect(),
            novelty: row.novelty.map(|novelty| novelty as f32),
            rejected: row.rejected,
            error: row.fault,
            is_kept: row.original.is_some(),
            has_thumbnail: row.thumbnail.is_some(),
        }
    }
}

impl BatchPicture {
    /// Class and probability of the second most probable class.
    pub fn second(&self) -> Option<(&str, f32)> {
        let second = self.scores.get(1)?;
        Some((&second.label, second.probability))
    }
}
