//! A job as the interface shows it.

use crate::jobs::{
    Evaluate, EvaluateResult, Invert, InvertResult, Recycle, RecycleEstimate, RecycleResult, Sort,
    SortResult, Tune, TuneResult,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{JobFault, JobRecord, JobState, Progress};
use utoipa::ToSchema;
use uuid::Uuid;

/// Work in the background.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// UUID v7: ids have the order in which jobs were made.
    pub id: Uuid,
    /// `tune`, `invert`, `recycle`, `evaluate` or `sort`.
    #[schema(example = "tune")]
    pub kind: String,
    /// For people, one line.
    pub title: String,
    /// Where it stands.
    pub state: JobState,
    /// It stops as soon as its current step is done.
    pub cancel_requested: bool,
    /// Larger comes first.
    pub priority: i32,
    /// Runs that ended in an error, and the current one.
    pub attempts: u32,
    /// It has failed after this many runs that ended in an error.
    pub most_attempts: u32,
    /// Milliseconds since 1970 (UTC), as all times.
    pub created_ms: i64,
    /// When the first attempt began.
    pub started_ms: Option<i64>,
    /// When it succeeded, failed for good or was cancelled.
    pub finished_ms: Option<i64>,
    /// Milliseconds that all attempts have worked together; those of the one that goes on are added now and then.
    #[serde(default)]
    pub worked_ms: i64,
    /// It is not tried again before.
    pub retry_at_ms: Option<i64>,
    /// Jobs that must succeed before this one begins.
    pub waits_for: Vec<Uuid>,
    /// Of the current run, or the last one.
    pub progress: Option<Progress>,
    /// Why it failed, or why its last run did.
    pub error: Option<JobFault>,
    /// What it made, by its kind; null until it has succeeded.
    #[schema(value_type = Option<JobResult>)]
    pub result: Option<Value>,
    /// What it does, by its kind.
    #[schema(value_type = JobRecipe)]
    pub recipe: Value,
}

/// What a job made. A job `recycle` gives the third, or the fourth where it only measured what it would cost.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(
    dead_code,
    clippy::large_enum_variant,
    reason = "the shape of what is stored, for the document alone"
)]
enum JobResult {
    Tune(TuneResult),
    Invert(InvertResult),
    Recycle(RecycleResult),
    Estimate(RecycleEstimate),
    Evaluate(EvaluateResult),
    Sort(SortResult),
}

/// What a job does.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(
    dead_code,
    clippy::large_enum_variant,
    reason = "the shape of what is stored, for the document alone"
)]
enum JobRecipe {
    Tune(Tune),
    Invert(Invert),
    Recycle(Recycle),
    Evaluate(Evaluate),
    Sort(Sort),
}

/// The jobs that a request has made, or that do the same work already; at least one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StartedJobs {
    /// In the order of the request.
    pub jobs: Vec<Job>,
}

impl From<JobRecord> for Job {
    fn from(record: JobRecord) -> Self {
        Self {
            id: record.id,
            kind: record.kind,
            title: record.title,
            state: record.state,
            cancel_requested: record.cancel_requested,
            priority: record.priority,
            attempts: record.attempts,
            most_attempts: record.most_attempts,
            created_ms: record.created_ms,
            started_ms: record.started_ms,
            finished_ms: record.finished_ms,
            worked_ms: record.worked_ms,
            retry_at_ms: record.retry_at_ms,
            waits_for: record.waits_for,
            progress: record.progress,
            error: record.error,
            result: record.result,
            recipe: record.recipe,
        }
    }
}
