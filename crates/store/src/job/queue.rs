//! The queue: every change of a job's state is one short transaction. Whatever runs a job holds a lease on it; a run that lost the lease
//! changes nothing any more.
//!
//! A lease runs out when its time is over without a renewal, or when the opening of the data folder ends in which it was given. The
//! lock on the folder says the second: its holder knows that every earlier opening has ended, however it ended, and need not
//! wait for the time. Only jobs whose lease has run out are put back into the queue.

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
    /// No other run has this name.
    pub owner: &'a str,
    /// How long the claim holds without a renewal.
    pub lease: Duration,
    /// Only one of these jobs; `None`: any.
    pub only: Option<&'a [Uuid]>,
    /// Of which kinds.
    pub kinds: JobKinds<'a>,
}

/// Kinds of jobs by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JobKinds<'a> {
    /// All of them.
    #[default]
    All,
    /// These.
    Of(&'a [&'a str]),
    /// All but these.
    But(&'a [&'a str]),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// With what it made.
    Succeeded(serde_json::Value),
    /// Not tried again.
    Failed(JobFault),
    /// Tried again after this time where attempts are left.
    Retry(JobFault, Duration),
    /// Somebody wanted it to end for good.
    Cancelled,
    /// Back to the queue as if this run had not been.
    PutBack,
}

impl Store {
    /// Takes the next job whose turn it is: largest priority, then the oldest. Jobs whose lease has run out are put back first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn claim_job(&self, claim: Claim<'_>) -> Result<Option<JobRecord>, StoreError> {
        let now = now_ms();
        let mut transaction = self.inner.database.begin().await?;
        let put_back = put_back(&mut transaction, RunOut::Time(now)).await?;
        let only = claim.only.map(|ids| serde_json::json!(ids).to_string());
        let (kinds, are_wanted) = match claim.kinds {
            JobKinds::All => (None, true),
            JobKinds::Of(kinds) => (Some(kinds), true),
            JobKinds::But(kinds) => (Some(kinds), false),
        };
        let kinds = kinds.map(|kinds| serde_json::json!(kinds).to_string());
        let claimed: Option<String> = sqlx::query_scalar(
            "UPDATE jobs SET state = 'running', lease_owner = ?1, lease_until_ms = ?2, lease_opening = ?5,
                attempts = attempts + 1, retry_at_ms = NULL, started_ms = coalesce(started_ms, ?3), counted_ms = ?3, progress = NULL
             WHERE state = 'queued' AND id = (
                SELECT id FROM jobs
                WHERE state = 'queued' AND (retry_at_ms IS NULL OR retry_at_ms <= ?3)
                  AND (?4 IS NULL OR id IN (SELECT value FROM json_each(?4)))
                  AND (?6 IS NULL OR (kind IN (SELECT value FROM json_each(?6))) = ?7)
                  AND NOT EXISTS (SELECT 1 FROM job_dependencies JOIN jobs AS earlier ON earlier.id = waits_for
                        WHERE job_id = jobs.id AND earlier.state <> 'succeeded')
                ORDER BY priority DESC, id LIMIT 1)
             RETURNING id",
        )
        .bind(claim.owner)
        .bind(after(now, claim.lease))
        .bind(now)
        .bind(only)
        .bind(self.inner.opening.to_string())
        .bind(kinds)
        .bind(are_wanted)
        .fetch_optional(&mut *transaction)
        .await?;
        let job = match claimed {
            Some(id) => Some(add_state(&mut transaction, parse(&id)?).await?),
            None => None,
        };
        transaction.commit().await?;
        // Only then: a runner that waits for a change would claim again at once, without end.
        if job.is_some() || !put_back.is_empty() {
            self.jobs_changed();
        }
        for (job, released) in put_back {
            self.remove_files_of(&job, released).await;
        }
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
        self.run_to_completion(move |store| async move {
            let finished = store
                .with_reserve(|| store.finish(id, &owner, &finish))
                .await;
            let finished = match finished? {
                Some((job, released)) => {
                    store.remove_files_of(&job, released).await;
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
                        lease_owner = NULL, lease_until_ms = NULL, lease_opening = NULL WHERE id = ?",
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
                    "UPDATE jobs SET state = 'queued', error = ?, retry_at_ms = ?, lease_owner = NULL, lease_until_ms = NULL,
                        lease_opening = NULL WHERE id = ?",
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
                    "UPDATE jobs SET state = 'queued', attempts = attempts - 1, lease_owner = NULL, lease_until_ms = NULL,
                        lease_opening = NULL WHERE id = ?",
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
        self.run_to_completion(move |store| async move {
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
            store.remove_files_of(&job, released).await;
            Ok(job)
        })
        .await
    }

    /// Queues a job again that failed or was cancelled; it resumes from its checkpoint where it has one.
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
    async fn remove_files_of(&self, job: &JobRecord, released: HashSet<Digest>) {
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

/// When a lease has run out.
#[derive(Debug, Clone, Copy)]
enum RunOut {
    /// Its time is over at this one.
    Time(i64),
    /// Its time is over, or it was given in another opening of the folder than this one.
    TimeOrOpening(i64, Uuid),
}

/// Puts back what earlier openings of the data folder were running when they ended. Only with the lock on the folder just taken.
pub(crate) async fn put_back_abandoned(
    database: &Database,
    opening: Uuid,
) -> Result<(), StoreError> {
    let mut transaction = database.begin().await?;
    // Files of cancelled jobs are removed by the clean-up that follows at every start.
    put_back(&mut transaction, RunOut::TimeOrOpening(now_ms(), opening)).await?;
    Ok(transaction.commit().await?)
}

/// Jobs whose lease has run out wait for their turn again; one that was to be cancelled is, and one during which the process has died
/// too often fails. Returns them as they are then, with the files that no longer belong to them.
async fn put_back(
    connection: &mut SqliteConnection,
    run_out: RunOut,
) -> Result<Vec<(JobRecord, HashSet<Digest>)>, StoreError> {
    let (now, opening) = match run_out {
        RunOut::Time(now) => (now, None),
        RunOut::TimeOrOpening(now, opening) => (now, Some(opening.to_string())),
    };
    let expired: Vec<(String, u32, bool)> = sqlx::query_as(
        "UPDATE jobs SET state = 'queued', attempts = attempts - 1, interruptions = interruptions + 1, lease_owner = NULL,
            lease_until_ms = NULL, lease_opening = NULL, counted_ms = NULL
         WHERE state = 'running' AND (lease_until_ms <= ?1 OR (?2 IS NOT NULL AND lease_opening IS NOT ?2))
         RETURNING id, interruptions, cancel_requested",
    )
    .bind(now)
    .bind(opening)
    .fetch_all(&mut *connection)
    .await?;
    let mut put_back = Vec::with_capacity(expired.len());
    for (id, interruptions, is_cancelled) in expired {
        let id: Uuid = parse(&id)?;
        let mut released = HashSet::new();
        if is_cancelled {
            released = cancel(connection, id).await?;
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
        put_back.push((job, released));
    }
    Ok(put_back)
}

async fn fail(
    connection: &mut SqliteConnection,
    id: Uuid,
    fault: &JobFault,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE jobs SET state = 'failed', error = ?, finished_ms = ?, retry_at_ms = NULL, lease_owner = NULL,
            lease_until_ms = NULL, lease_opening = NULL WHERE id = ?",
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
            lease_until_ms = NULL, lease_opening = NULL WHERE id = ?",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::MIGRATIONS;
    use crate::folder::DataFolder;
    use crate::memory_pools::MemoryPools;
    use crate::staging::StagedFiles;
    use crate::{Access, Blobs, Freed, Inner, NewJob};
    use sqlx::SqlitePool;
    use sqlx::migrate::Migrator;
    use sqlx::sqlite::SqliteConnectOptions;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use tokio::sync::{RwLock, watch};

    const LONG: Duration = Duration::from_secs(3600);

    fn claim(owner: &str, lease: Duration) -> Claim<'_> {
        Claim {
            owner,
            lease,
            only: None,
            kinds: JobKinds::All,
        }
    }

    async fn submit(store: &Store, title: &str) -> Uuid {
        let new = NewJob {
            kind: "test".to_owned(),
            title: title.to_owned(),
            recipe: serde_json::json!({}),
            deduplication_key: Digest::of(title.as_bytes()),
            priority: 0,
            most_attempts: 3,
            waits_for: Vec::new(),
            inputs: Vec::new(),
        };
        store.submit_job(new).await.expect("submit").job.id
    }

    /// The same opening with separate connections: a second writer, as the lock on the folder never lets one be.
    async fn second_writer(first: &Store) -> Store {
        let folder = DataFolder::open(first.folder(), Access::Shared).expect("folder");
        let database = Database::open(&folder, Access::Exclusive, &MIGRATIONS).await;
        Store {
            inner: Arc::new(Inner {
                database: database.expect("open"),
                blobs: Blobs::new(folder.blobs()),
                blob_gate: RwLock::default(),
                jobs_changed: watch::Sender::new(()),
                memory_pools: MemoryPools::default(),
                staged: StagedFiles::default(),
                folder,
                opening: first.inner.opening,
                freed_at_start: Freed::default(),
                feature_cache: crate::features::FeatureCache::new(0),
            }),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn claimers_that_race_never_take_the_same_job() {
        let folder = tempfile::tempdir().expect("folder");
        let first = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let second = second_writer(&first).await;
        let mut submitted = BTreeSet::new();
        for index in 0..40 {
            submitted.insert(submit(&first, &format!("job {index}")).await);
        }
        let claimers = [&first, &second, &first, &second].map(Store::clone);
        let claimers: Vec<_> = claimers
            .into_iter()
            .enumerate()
            .map(|(index, store)| {
                tokio::spawn(async move {
                    let owner = format!("claimer {index}");
                    let mut taken = Vec::new();
                    while let Some(job) = store.claim_job(claim(&owner, LONG)).await.expect("claim")
                    {
                        assert_eq!((job.state, job.attempts), (JobState::Running, 1));
                        taken.push(job.id);
                    }
                    taken
                })
            })
            .collect();
        let mut taken = Vec::new();
        for claimer in claimers {
            taken.extend(claimer.await.expect("claimer"));
        }
        assert_eq!(taken.len(), submitted.len());
        assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), submitted);
    }

    #[tokio::test]
    async fn a_lease_whose_time_is_over_is_given_to_the_next_and_no_other() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let id = submit(&store, "job").await;
        let taken = store.claim_job(claim("first", Duration::ZERO)).await;
        assert_eq!(taken.expect("claim").expect("a job").id, id);
        let taken = store.claim_job(claim("second", LONG)).await;
        let job = taken.expect("claim").expect("a job");
        assert_eq!((job.id, job.attempts), (id, 1));
        let taken = store.claim_job(claim("third", LONG)).await;
        assert_eq!(taken.expect("claim"), None);

        let renewed = store.renew_lease(id, "first", LONG).await;
        assert!(!renewed.expect("renew"));
        let finished = store.finish_job(id, "first", Finish::PutBack).await;
        assert_eq!(finished.expect("finish"), None);
        let renewed = store.renew_lease(id, "second", LONG).await;
        assert!(renewed.expect("renew"));
    }

    #[tokio::test]
    async fn a_claim_that_finds_nothing_wakes_nobody() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let changes = store.watch_jobs();
        let taken = store.claim_job(claim("first", LONG)).await;
        assert_eq!(taken.expect("claim"), None);
        assert!(!changes.has_changed().expect("the store is open"));
        submit(&store, "job").await;
        assert!(changes.has_changed().expect("the store is open"));
    }

    #[tokio::test]
    async fn a_job_that_is_to_be_cancelled_is_when_its_lease_runs_out() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let id = submit(&store, "job").await;
        let taken = store.claim_job(claim("first", Duration::ZERO)).await;
        taken.expect("claim").expect("a job");
        store.cancel_job(id).await.expect("cancel");
        let taken = store.claim_job(claim("second", LONG)).await;
        assert_eq!(taken.expect("claim"), None);
        let job = store.job(id).await.expect("job");
        assert_eq!(job.state, JobState::Cancelled);
    }

    #[tokio::test]
    async fn a_lease_ends_with_the_opening_of_the_folder_and_not_before() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let id = submit(&store, "job").await;
        let taken = store.claim_job(claim("first", LONG)).await;
        taken.expect("claim").expect("a job");
        let database = &store.inner.database;
        for (opening, state) in [
            (store.inner.opening, JobState::Running),
            (Uuid::new_v4(), JobState::Queued),
        ] {
            put_back_abandoned(database, opening)
                .await
                .expect("put back");
            assert_eq!(store.job(id).await.expect("job").state, state);
        }
    }

    #[tokio::test]
    async fn what_a_program_before_leases_had_openings_was_running_is_put_back() {
        let folder = tempfile::tempdir().expect("folder");
        let before = MIGRATIONS
            .iter()
            .filter(|migration| migration.version < 4)
            .cloned();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join(crate::DATABASE_FILE))
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.expect("create");
        let before = Migrator::with_migrations(before.collect());
        before.run(&pool).await.expect("migrate");
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO jobs (id, kind, title, recipe, priority, state, attempts, most_attempts, lease_owner, lease_until_ms,
                created_ms) VALUES (?, 'test', 'job', '{}', 0, 'running', 1, 3, 'first', ?, 0)",
        )
        .bind(id.to_string())
        .bind(after(now_ms(), LONG))
        .execute(&pool)
        .await
        .expect("insert");
        pool.close().await;
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let job = store.job(id).await.expect("job");
        assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
    }
}
