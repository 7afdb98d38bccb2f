//! The queue: every change of a job's state is one short transaction. Who runs a job holds a lease on it; whoever lost the lease
//! changes nothing any more.

use super::events::add_state;
use super::inputs::release;
use super::{JobFault, JobRecord, JobState, read};
use crate::database::Database;
use crate::error::is_unique_violation;
use crate::{Digest, Store, StoreError, now_ms, parse};
use sqlx::{Sqlite, SqliteConnection, Transaction};
use std::collections::HashSet;
use std::time::Duration;
use uuid::Uuid;

/// A process that dies this often during a job, without a checkpoint between, is not started with it again.
const MOST_INTERRUPTIONS: u32 = 10;

/// Who takes a job, and which.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Nobody else has this name.
    pub owner: &'a str,
    pub lease: Duration,
    /// Only one of these jobs; `None`: any.
    pub only: Option<&'a [Uuid]>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    Succeeded(serde_json::Value),
    /// Not tried again.
    Failed(JobFault),
    /// Tried again after this time where attempts are left.
    Retry(JobFault, Duration),
    Cancelled,
    /// Back to the queue as if this run had not been.
    PutBack,
}

impl Store {
    /// Takes the next job whose turn it is: largest priority, then the oldest.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn claim_job(&self, claim: Claim<'_>) -> Result<Option<JobRecord>, StoreError> {
        let now = now_ms();
        let mut transaction = self.inner.database.begin().await?;
        let only = claim.only.map(|ids| serde_json::json!(ids).to_string());
        let claimed: Option<String> = sqlx::query_scalar(
            "UPDATE jobs SET state = 'running', lease_owner = ?1, lease_until_ms = ?2, attempts = attempts + 1,
                retry_at_ms = NULL, started_ms = coalesce(started_ms, ?3), counted_ms = ?3, progress = NULL
             WHERE id = (
                SELECT id FROM jobs
                WHERE state = 'queued' AND (retry_at_ms IS NULL OR retry_at_ms <= ?3)
                  AND (?4 IS NULL OR id IN (SELECT value FROM json_each(?4)))
                  AND NOT EXISTS (SELECT 1 FROM job_dependencies JOIN jobs AS earlier ON earlier.id = waits_for
                        WHERE job_id = jobs.id AND earlier.state <> 'succeeded')
                ORDER BY priority DESC, id LIMIT 1)
             RETURNING id",
        )
        .bind(claim.owner)
        .bind(after(now, claim.lease))
        .bind(now)
        .bind(only)
        .fetch_optional(&mut *transaction)
        .await?;
        let job = match claimed {
            Some(id) => Some(add_state(&mut transaction, parse(&id)?).await?),
            None => None,
        };
        self.commit(transaction).await?;
        Ok(job)
    }

    /// When the next waiting attempt may begin, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn next_retry_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT min(retry_at_ms) FROM jobs WHERE state = 'queued'")
                .fetch_one(self.inner.database.readers())
                .await?,
        )
    }

    /// Renews the lease. `false`: it is lost, and the run must end.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn renew_lease(
        &self,
        id: Uuid,
        owner: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let now = now_ms();
        let done = sqlx::query(
            "UPDATE jobs SET lease_until_ms = ?1, worked_ms = worked_ms + max(0, ?2 - coalesce(counted_ms, ?2)), counted_ms = ?2
             WHERE id = ?3 AND lease_owner = ?4",
        )
        .bind(after(now, lease))
        .bind(now)
        .bind(id.to_string())
        .bind(owner)
        .execute(self.inner.database.writer()?)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes that the job has a checkpoint: deaths of the process before it no longer count.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn note_checkpoint(&self, id: Uuid) -> Result<(), StoreError> {
        sqlx::query("UPDATE jobs SET interruptions = 0 WHERE id = ? AND interruptions > 0")
            .bind(id.to_string())
            .execute(self.inner.database.writer()?)
            .await?;
        Ok(())
    }

    /// Ends a run. `None`: the lease was lost meanwhile and nothing changed. Works on a full disk.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn finish_job(
        &self,
        id: Uuid,
        owner: &str,
        finish: Finish,
    ) -> Result<Option<JobRecord>, StoreError> {
        let owner = owner.to_owned();
        self.to_the_end(move |store| async move {
            let finished = store
                .with_reserve(|| store.finish(id, &owner, &finish))
                .await;
            let finished = match finished? {
                Some((job, released)) => {
                    store.let_go(&job, released).await;
                    Some(job)
                }
                None => None,
            };
            store.inner.folder.keep_reserve();
            Ok(finished)
        })
        .await
    }

    async fn finish(
        &self,
        id: Uuid,
        owner: &str,
        finish: &Finish,
    ) -> Result<Option<(JobRecord, HashSet<Digest>)>, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let held: Option<(u32, u32)> = sqlx::query_as(
            "SELECT attempts, most_attempts FROM jobs WHERE id = ? AND state = 'running' AND lease_owner = ?",
        )
        .bind(id.to_string())
        .bind(owner)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some((attempts, most_attempts)) = held else {
            return Ok(None);
        };
        sqlx::query(
            "UPDATE jobs SET worked_ms = worked_ms + max(0, ?1 - coalesce(counted_ms, ?1)), counted_ms = NULL WHERE id = ?2",
        )
        .bind(now_ms())
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        let mut released = HashSet::new();
        match finish {
            Finish::Succeeded(result) => {
                sqlx::query(
                    "UPDATE jobs SET state = 'succeeded', result = ?, error = NULL, cancel_requested = 0, finished_ms = ?,
                        lease_owner = NULL, lease_until_ms = NULL WHERE id = ?",
                )
                .bind(result.to_string())
                .bind(now_ms())
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
                released = release(&mut transaction, id).await?;
            }
            Finish::Retry(fault, delay) if attempts < most_attempts => {
                sqlx::query(
                    "UPDATE jobs SET state = 'queued', error = ?, retry_at_ms = ?, lease_owner = NULL, lease_until_ms = NULL
                     WHERE id = ?",
                )
                .bind(serde_json::json!(fault).to_string())
                .bind(after(now_ms(), *delay))
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
            }
            Finish::Failed(fault) | Finish::Retry(fault, _) => {
                fail(&mut transaction, id, fault).await?;
            }
            Finish::Cancelled => released = cancel(&mut transaction, id).await?,
            Finish::PutBack => {
                sqlx::query(
                    "UPDATE jobs SET state = 'queued', attempts = attempts - 1, lease_owner = NULL, lease_until_ms = NULL
                     WHERE id = ?",
                )
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
            }
        }
        let job = add_state(&mut transaction, id).await?;
        fail_dependents(&mut transaction, &job).await?;
        self.commit(transaction).await?;
        Ok(Some((job, released)))
    }

    /// Cancels a job: at once where it is queued, else as soon as its runner sees it. A failed job can be cancelled too: what it
    /// was given is removed then.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`]; [`StoreError::JobState`] where it has succeeded or was cancelled.
    pub async fn cancel_job(&self, id: Uuid) -> Result<JobRecord, StoreError> {
        self.to_the_end(move |store| async move {
            let mut transaction = store.inner.database.begin().await?;
            let job = read(&mut transaction, id).await?;
            let mut released = HashSet::new();
            match job.state {
                JobState::Queued | JobState::Failed => {
                    released = cancel(&mut transaction, id).await?;
                }
                JobState::Running => {
                    sqlx::query("UPDATE jobs SET cancel_requested = 1 WHERE id = ?")
                        .bind(id.to_string())
                        .execute(&mut *transaction)
                        .await?;
                }
                JobState::Succeeded | JobState::Cancelled => {
                    return Err(StoreError::JobState {
                        id,
                        state: job.state,
                        action: "cancelled",
                    });
                }
            }
            let job = add_state(&mut transaction, id).await?;
            fail_dependents(&mut transaction, &job).await?;
            store.commit(transaction).await?;
            store.let_go(&job, released).await;
            Ok(job)
        })
        .await
    }

    /// Queues a job again that failed or was cancelled; it goes on from its checkpoint where it has one.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`]; [`StoreError::JobState`] where it is in another state; [`StoreError::JobInputsGone`],
    /// [`StoreError::JobReplaced`], [`StoreError::JobBlocked`].
    pub async fn retry_job(&self, id: Uuid) -> Result<JobRecord, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let job = read(&mut transaction, id).await?;
        if !matches!(job.state, JobState::Failed | JobState::Cancelled) {
            return Err(StoreError::JobState {
                id,
                state: job.state,
                action: "tried again",
            });
        }
        for &earlier in &job.waits_for {
            let earlier = read(&mut transaction, earlier).await?;
            if matches!(earlier.state, JobState::Failed | JobState::Cancelled) {
                return Err(StoreError::JobBlocked {
                    id,
                    by: earlier.id,
                    title: earlier.title,
                    state: earlier.state,
                });
            }
        }
        let is_released: bool = sqlx::query_scalar("SELECT inputs_released FROM jobs WHERE id = ?")
            .bind(id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        if is_released {
            return Err(StoreError::JobInputsGone(id));
        }
        sqlx::query(
            "UPDATE jobs SET state = 'queued', attempts = 0, interruptions = 0, cancel_requested = 0, retry_at_ms = NULL,
                finished_ms = NULL, error = NULL WHERE id = ?",
        )
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(|error| {
            if is_unique_violation(&error, "jobs.deduplication_key") {
                StoreError::JobReplaced(id)
            } else {
                error.into()
            }
        })?;
        let job = add_state(&mut transaction, id).await?;
        self.commit(transaction).await?;
        Ok(job)
    }

    pub(super) async fn commit(
        &self,
        transaction: Transaction<'static, Sqlite>,
    ) -> Result<(), StoreError> {
        transaction.commit().await?;
        self.jobs_changed();
        Ok(())
    }

    /// What a job was given, and its checkpoints, go at once and not with the next clean-up: people may count on it.
    async fn let_go(&self, job: &JobRecord, released: HashSet<Digest>) {
        let (store, id) = (self.clone(), job.id);
        let removed = match job.state {
            JobState::Succeeded | JobState::Cancelled => async {
                tokio::task::spawn_blocking(move || store.remove_job_files(id)).await??;
                self.free(released).await
            }
            .await
            .map(drop),
            JobState::Queued | JobState::Running | JobState::Failed => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(job = %job.id, %error, "files of a finished job stay until the next start");
        }
    }
}

fn after(now_ms: i64, time: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// Jobs that a process was running when it died wait for their turn again. For whoever has just taken the lock on the data folder,
/// which says that nobody runs any.
pub(crate) async fn put_back_abandoned(database: &Database) -> Result<(), StoreError> {
    let mut transaction = database.begin().await?;
    let connection = &mut *transaction;
    let abandoned: Vec<(String, u32, bool)> = sqlx::query_as(
        "UPDATE jobs SET state = 'queued', attempts = attempts - 1, interruptions = interruptions + 1, lease_owner = NULL,
            lease_until_ms = NULL, counted_ms = NULL
         WHERE state = 'running' RETURNING id, interruptions, cancel_requested",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (id, interruptions, is_cancelled) in abandoned {
        let id: Uuid = parse(&id)?;
        if is_cancelled {
            // What it was given is removed by the clean-up that follows at every start.
            cancel(connection, id).await?;
        } else if interruptions >= MOST_INTERRUPTIONS {
            let fault = JobFault {
                code: "interrupted".to_owned(),
                message: format!(
                    "the program ended unexpectedly {interruptions} times while this job ran, without a checkpoint between"
                ),
                hint: Some(
                    "if memory was short, use fewer threads or smaller images, then try the job again".to_owned(),
                ),
            };
            fail(connection, id, &fault).await?;
        }
        let job = add_state(connection, id).await?;
        fail_dependents(connection, &job).await?;
    }
    Ok(transaction.commit().await?)
}

async fn fail(
    connection: &mut SqliteConnection,
    id: Uuid,
    fault: &JobFault,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET state = 'failed', error = ?, finished_ms = ?, retry_at_ms = NULL, lease_owner = NULL,
            lease_until_ms = NULL WHERE id = ?",
    )
    .bind(serde_json::json!(fault).to_string())
    .bind(now_ms())
    .bind(id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

async fn cancel(
    connection: &mut SqliteConnection,
    id: Uuid,
) -> Result<HashSet<Digest>, StoreError> {
    sqlx::query(
        "UPDATE jobs SET state = 'cancelled', cancel_requested = 1, finished_ms = ?, retry_at_ms = NULL, lease_owner = NULL,
            lease_until_ms = NULL WHERE id = ?",
    )
    .bind(now_ms())
    .bind(id.to_string())
    .execute(&mut *connection)
    .await?;
    release(connection, id).await
}

/// A job that was lost takes those that wait for it along, and those that wait for them.
async fn fail_dependents(
    connection: &mut SqliteConnection,
    lost: &JobRecord,
) -> Result<(), StoreError> {
    let mut all_lost = vec![lost.clone()];
    while let Some(lost) = all_lost.pop() {
        if !matches!(lost.state, JobState::Failed | JobState::Cancelled) {
            continue;
        }
        let waiting: Vec<String> = sqlx::query_scalar(
            "SELECT job_id FROM job_dependencies JOIN jobs ON jobs.id = job_id WHERE waits_for = ? AND state = 'queued'",
        )
        .bind(lost.id.to_string())
        .fetch_all(&mut *connection)
        .await?;
        for id in waiting {
            all_lost.push(fail_for(connection, parse(&id)?, &lost).await?);
        }
    }
    Ok(())
}

/// Fails the job `id` because `earlier` was lost.
pub(super) async fn fail_for(
    connection: &mut SqliteConnection,
    id: Uuid,
    earlier: &JobRecord,
) -> Result<JobRecord, StoreError> {
    let fault = JobFault {
        code: "dependency_failed".to_owned(),
        message: format!(
            "it waited for \"{}\" ({}), which {}",
            earlier.title,
            earlier.id,
            match &earlier.error {
                Some(error) if earlier.state == JobState::Failed =>
                    format!("failed: {}", error.message),
                _ => format!("was {}", earlier.state),
            }
        ),
        hint: Some(format!("try job {} again first, then this one", earlier.id)),
    };
    fail(connection, id, &fault).await?;
    add_state(connection, id).await
}
