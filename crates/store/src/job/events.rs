//! The events of jobs, kept so that a client that comes later or reconnects misses nothing. Bounded: progress is thinned out, the oldest
//! lines of a log give way.

use super::{JobRecord, JobState, Progress, read};
use crate::{Store, StoreError, now_ms, parse, parse_json};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use std::str::FromStr;
use thiserror::Error;
use uuid::Uuid;

/// Progress events that are kept of a job; where there would be more, every second one goes.
const MOST_PROGRESS: i64 = 4000;
/// Lines that are kept of a job's log.
const MOST_LOG: i64 = 1000;

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The whole job as it was then.
    State,
    /// Where the work stood.
    Progress,
    /// A line for people.
    Log,
}

#[derive(Debug, Error)]
#[error("\"{0}\" is not a kind of event")]
pub struct EventKindError(String);

impl EventKind {
    /// As it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Progress => "progress",
            Self::Log => "log",
        }
    }
}

impl FromStr for EventKind {
    type Err = EventKindError;

    fn from_str(text: &str) -> Result<Self, EventKindError> {
        [Self::State, Self::Progress, Self::Log]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| EventKindError(text.to_owned()))
    }
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What happens.
    Info,
    /// Something that people should know of; the job goes on.
    Warning,
    /// Why a run failed.
    Error,
}

/// Something that a job told.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEvent {
    /// Grows within a job; has gaps.
    pub number: i64,
    /// Says what `data` is.
    pub kind: EventKind,
    /// The job, its progress, or a line with its level; each with the time where it matters (`at_ms`).
    pub data: serde_json::Value,
}

impl JobEvent {
    /// Whether it is the last one of its job for now.
    pub fn is_final(&self) -> bool {
        self.kind == EventKind::State
            && self.data["state"]
                .as_str()
                .and_then(|state| state.parse::<JobState>().ok())
                .is_some_and(JobState::is_final)
    }
}

impl FromRow<'_, SqliteRow> for JobEvent {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            number: row.try_get("number")?,
            kind: parse(row.try_get("kind")?)?,
            data: parse_json(row.try_get("data")?)?,
        })
    }
}

impl Store {
    /// The events of a job after the one with number `after` (0: all), in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] of the database; an unknown job has no events.
    pub async fn job_events(
        &self,
        id: Uuid,
        after: i64,
        limit: u32,
    ) -> Result<Vec<JobEvent>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT number, kind, data FROM job_events WHERE job_id = ? AND number > ? ORDER BY number LIMIT ?",
        )
        .bind(id.to_string())
        .bind(after)
        .bind(limit)
        .fetch_all(self.inner.database.readers())
        .await?)
    }

    /// The number of the newest event of a job; 0 where there is none.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`].
    pub async fn last_job_event(&self, id: Uuid) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT last_event FROM jobs WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(self.inner.database.readers())
            .await?
            .ok_or(StoreError::UnknownJob(id))
    }

    /// Records the progress of a job. `true` when earlier progress was thinned out, so that telling half as often is enough.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`], or of the database.
    pub async fn add_job_progress(
        &self,
        id: Uuid,
        progress: &Progress,
    ) -> Result<bool, StoreError> {
        let text = json!(progress).to_string();
        let mut data = json!(progress);
        let now = now_ms();
        data["at_ms"] = now.into();
        let mut transaction = self.inner.database.begin().await?;
        // What has been reported is work that was done, even if the process dies now.
        sqlx::query(
            "UPDATE jobs SET progress = ?1, worked_ms = worked_ms + max(0, ?2 - coalesce(counted_ms, ?2)),
                counted_ms = iif(state = 'running', ?2, NULL)
             WHERE id = ?3",
        )
        .bind(text)
        .bind(now)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        let thinned = thin_progress(&mut transaction, id, MOST_PROGRESS).await?;
        add(&mut transaction, id, EventKind::Progress, &data).await?;
        transaction.commit().await?;
        self.jobs_changed();
        Ok(thinned)
    }

    /// Adds a line to the log of a job.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`], or of the database.
    pub async fn add_job_log(
        &self,
        id: Uuid,
        level: LogLevel,
        message: &str,
    ) -> Result<(), StoreError> {
        let data = json!({"level": level, "message": message, "at_ms": now_ms()});
        let mut transaction = self.inner.database.begin().await?;
        add(&mut transaction, id, EventKind::Log, &data).await?;
        sqlx::query(
            "DELETE FROM job_events WHERE job_id = ?1 AND kind = 'log' AND number <= (SELECT number FROM job_events
                WHERE job_id = ?1 AND kind = 'log' ORDER BY number DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(id.to_string())
        .bind(MOST_LOG)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.jobs_changed();
        Ok(())
    }

    pub(super) fn jobs_changed(&self) {
        self.inner.jobs_changed.send_replace(());
    }
}

/// Removes every second progress event where there are `most`; first and last of each phase stay.
async fn thin_progress(
    connection: &mut SqliteConnection,
    id: Uuid,
    most: i64,
) -> Result<bool, StoreError> {
    let id = id.to_string();
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM job_events WHERE job_id = ? AND kind = 'progress'",
    )
    .bind(&id)
    .fetch_one(&mut *connection)
    .await?;
    if count < most {
        return Ok(false);
    }
    sqlx::query(
        "DELETE FROM job_events WHERE job_id = ?1 AND number IN (
            SELECT number FROM (
                SELECT number, data, row_number() OVER (PARTITION BY data ->> 'phase' ORDER BY number) AS place
                FROM job_events WHERE job_id = ?1 AND kind = 'progress')
            WHERE place % 2 = 0 AND data ->> 'step' < data ->> 'total')",
    )
    .bind(&id)
    .execute(connection)
    .await?;
    Ok(true)
}

/// Adds an event under the next number.
async fn add(
    connection: &mut SqliteConnection,
    id: Uuid,
    kind: EventKind,
    data: &serde_json::Value,
) -> Result<(), StoreError> {
    let number: Option<i64> = sqlx::query_scalar(
        "UPDATE jobs SET last_event = last_event + 1 WHERE id = ? RETURNING last_event",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO job_events (job_id, number, kind, data) VALUES (?, ?, ?, ?)")
        .bind(id.to_string())
        .bind(number.ok_or(StoreError::UnknownJob(id))?)
        .bind(kind.as_str())
        .bind(data.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Tells the state that a job has within this transaction, and gives the job.
pub(super) async fn add_state(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<JobRecord, StoreError> {
    let job = read(connection, id).await?;
    add(connection, id, EventKind::State, &json!(job)).await?;
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Digest, NewJob};

    #[tokio::test]
    async fn where_there_is_much_progress_every_second_event_goes_but_no_end_of_a_phase() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let new = NewJob {
            kind: "test".to_owned(),
            title: "test".to_owned(),
            recipe: json!({}),
            deduplication_key: Digest::of(b""),
            priority: 0,
            most_attempts: 1,
            waits_for: Vec::new(),
            inputs: Vec::new(),
        };
        let id = store.submit_job(new).await.expect("submit").job.id;
        for (phase, total) in [("first", 6), ("second", 9)] {
            for step in 1..=5 {
                let progress = Progress {
                    phase: phase.to_owned(),
                    step: if step == 5 && phase == "first" {
                        6
                    } else {
                        step
                    },
                    total,
                    rate_per_second: None,
                    eta_seconds: None,
                    figures: [("loss".to_owned(), 0.5)].into(),
                };
                store.add_job_progress(id, &progress).await.expect("add");
            }
        }
        let mut transaction = store.inner.database.begin().await.expect("begin");
        for (most, thinned) in [(11, false), (10, true)] {
            let done = thin_progress(&mut transaction, id, most).await;
            assert_eq!(done.expect("thin"), thinned);
        }
        transaction.commit().await.expect("commit");
        let left: Vec<(i64, String, u64)> = store
            .job_events(id, 1, 100)
            .await
            .expect("events")
            .into_iter()
            .map(|event| {
                let phase = event.data["phase"].as_str().expect("phase").to_owned();
                (
                    event.number,
                    phase,
                    event.data["step"].as_u64().expect("step"),
                )
            })
            .collect();
        let expected = [
            (2, "first", 1),
            (4, "first", 3),
            (6, "first", 6),
            (7, "second", 1),
            (9, "second", 3),
            (11, "second", 5),
        ]
        .map(|(number, phase, step)| (number, phase.to_owned(), step));
        assert_eq!(left, expected);
        let job = store.job(id).await.expect("job");
        assert_eq!(job.progress.expect("progress").step, 5);
    }
}
