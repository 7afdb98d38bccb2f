//! Jobs as rows: what they are, reading and finding them. Knows no kind of job and runs none.

pub(super) mod checkpoint;
mod events;
mod inputs;
mod queue;
pub(super) mod state;
mod submit;

pub use events::{EventKind, JobEvent, LogLevel};
pub use inputs::{JobInput, NewInput};
pub(super) use queue::put_back_abandoned;
pub use queue::{Claim, Finish, JobKinds};
pub use state::{JobState, JobStateError};
pub use submit::{NewJob, Submitted};

use super::database::Database;
use super::{Store, StoreError, parse, parse_json};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use std::collections::{BTreeMap, HashSet};
use tokio::sync::watch;
use uuid::Uuid;

/// The progress of the computation of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = JobProgress))]
pub struct Progress {
    /// What it is doing, a short phrase.
    #[cfg_attr(feature = "openapi", schema(example = "inverting"))]
    pub phase: String,
    /// Steps of this phase that are done.
    pub step: u64,
    /// Steps of this phase.
    pub total: u64,
    /// `null` until two steps are done.
    pub rate_per_second: Option<f64>,
    /// Until the end of this phase.
    pub eta_seconds: Option<f64>,
    /// Losses and other figures of the step by name.
    pub figures: BTreeMap<String, f64>,
}

/// Why a job failed, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = JobError))]
pub struct JobFault {
    /// Stable machine-readable name.
    #[cfg_attr(feature = "openapi", schema(example = "disk_full"))]
    pub code: String,
    /// What went wrong, a sentence without its full stop.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// UUID v7: ids have the order in which jobs were made.
    pub id: Uuid,
    /// Stable name of what it does.
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
    /// Milliseconds that all attempts have worked together; those of the current one are added now and then.
    #[serde(default)]
    pub worked_ms: i64,
    /// It is not tried again before.
    pub retry_at_ms: Option<i64>,
    /// Jobs that must succeed before this one begins.
    pub waits_for: Vec<Uuid>,
    /// Of the run that goes on, or the last one.
    pub progress: Option<Progress>,
    /// Why it failed, or why its last run did.
    pub error: Option<JobFault>,
    /// What it made; which fields there are depends on the kind.
    pub result: Option<serde_json::Value>,
    /// All that decides the result, besides its inputs; belongs to the kind.
    pub recipe: serde_json::Value,
}

impl FromRow<'_, SqliteRow> for JobRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let waits_for: Vec<String> = parse_json(row.try_get("waits_for")?)?;
        let optional = |column: &str| row.try_get::<Option<String>, _>(column);
        Ok(Self {
            id: parse(row.try_get("id")?)?,
            kind: row.try_get("kind")?,
            title: row.try_get("title")?,
            state: parse(row.try_get("state")?)?,
            cancel_requested: row.try_get("cancel_requested")?,
            priority: row.try_get("priority")?,
            attempts: row.try_get("attempts")?,
            most_attempts: row.try_get("most_attempts")?,
            created_ms: row.try_get("created_ms")?,
            started_ms: row.try_get("started_ms")?,
            finished_ms: row.try_get("finished_ms")?,
            worked_ms: row.try_get("worked_ms")?,
            retry_at_ms: row.try_get("retry_at_ms")?,
            waits_for: waits_for
                .iter()
                .map(|id| parse(id))
                .collect::<Result<_, _>>()?,
            progress: optional("progress")?
                .map(|text| parse_json(&text))
                .transpose()?,
            error: optional("error")?
                .map(|text| parse_json(&text))
                .transpose()?,
            result: optional("result")?
                .map(|text| parse_json(&text))
                .transpose()?,
            recipe: parse_json(row.try_get("recipe")?)?,
        })
    }
}

/// A query for whole [`JobRecord`]s; `$tail` comes after the FROM clause.
macro_rules! select_jobs {
    ($tail:literal) => {
        concat!(
            "SELECT jobs.*, (SELECT json_group_array(waits_for ORDER BY waits_for) FROM job_dependencies
                WHERE job_id = jobs.id) AS waits_for FROM jobs ",
            $tail
        )
    };
}
use select_jobs;

/// Which jobs a list shows; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub state: Option<JobState>,
    /// Only jobs of this kind.
    pub kind: Option<String>,
    /// Only jobs older than this one: the last of the page before.
    pub before: Option<Uuid>,
    /// Most jobs of the list; without it all.
    pub limit: Option<u32>,
}

impl Store {
    /// The job `id`.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`].
    pub async fn job(&self, id: Uuid) -> Result<JobRecord, StoreError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        read(&mut connection, id).await
    }

    /// Jobs that pass `filter`, newest first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRecord>, StoreError> {
        Ok(sqlx::query_as(select_jobs!(
            "WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR id < ?3)
             ORDER BY id DESC LIMIT ?4"
        ))
        .bind(filter.state.map(JobState::as_str))
        .bind(filter.kind.as_deref())
        .bind(filter.before.map(|id| id.to_string()))
        // A negative limit is none.
        .bind(filter.limit.map_or(-1, i64::from))
        .fetch_all(self.inner.database.readers())
        .await?)
    }

    /// Changes whenever something about a job changed through this store: wait for it, then read again.
    pub fn watch_jobs(&self) -> watch::Receiver<()> {
        self.inner.jobs_changed.subscribe()
    }
}

async fn read(connection: &mut SqliteConnection, id: Uuid) -> Result<JobRecord, StoreError> {
    sqlx::query_as(select_jobs!("WHERE id = ?"))
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?
        .ok_or(StoreError::UnknownJob(id))
}

/// Jobs that may still run, so that what they left on disk is needed.
pub(super) async fn unfinished(database: &Database) -> Result<HashSet<Uuid>, StoreError> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM jobs WHERE state IN ('queued', 'running', 'failed')")
            .fetch_all(database.readers())
            .await?;
    Ok(ids.iter().map(|id| parse(id)).collect::<Result<_, _>>()?)
}
