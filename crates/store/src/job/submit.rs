//! Jobs enter the queue here, each piece of work once.

use super::events::add_state;
use super::inputs::{JobInput, NewInput, insert};
use super::queue::fail_for;
use super::{JobRecord, JobState, read, select_jobs};
use crate::{Digest, Store, StoreError, now_ms};
use sqlx::SqliteConnection;
use uuid::Uuid;

/// A job to be queued.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Stable name of what it does.
    pub kind: String,
    /// For people, one line.
    pub title: String,
    /// All that decides the result, besides its inputs.
    pub recipe: serde_json::Value,
    /// Over all that decides the result.
    pub deduplication_key: Digest,
    /// Larger comes first.
    pub priority: i32,
    /// Runs that may end in an error; at least one.
    pub most_attempts: u32,
    /// Jobs that must succeed first.
    pub waits_for: Vec<Uuid>,
    /// What it is given; removed when it has succeeded or was cancelled.
    pub inputs: Vec<NewInput>,
}

/// A job that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The new job, or the one that does the same work.
    pub job: JobRecord,
    /// `false` where the same work was queued, running or done already.
    pub is_new: bool,
}

/// Most jobs that wait.
const MOST_QUEUED: i64 = 5_000;

/// Most bytes of what waiting jobs are given; the one that reaches it is the last.
const MOST_WAITING_BYTES: i64 = 64 << 30;

impl Store {
    /// Queues a job, or gives the one that does the same work already.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`] where it waits for one that is not there, or of folder and database.
    pub async fn submit_job(&self, new: NewJob) -> Result<Submitted, StoreError> {
        self.inner.database.writer()?;
        self.run_to_completion(|store| async move {
            let mut new = new;
            let contents = std::mem::take(&mut new.inputs);
            let (inputs, blobs) = tokio::task::spawn_blocking(move || describe(contents)).await?;
            let submitted = store
                .store_blobs(blobs, || store.insert_job(&new, &inputs))
                .await?;
            if !submitted.is_new {
                let unused = inputs.into_iter().map(|input| input.digest).collect();
                store.free(unused).await?;
            }
            Ok(submitted)
        })
        .await
    }

    /// The job that does the same work, queued, running or done, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn find_job(
        &self,
        deduplication_key: &Digest,
    ) -> Result<Option<JobRecord>, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let job = same_work(&mut transaction, deduplication_key).await?;
        transaction.commit().await?;
        Ok(job)
    }

    pub(crate) async fn insert_job(
        &self,
        new: &NewJob,
        inputs: &[JobInput],
    ) -> Result<Submitted, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        if let Some(job) = same_work(&mut transaction, &new.deduplication_key).await? {
            transaction.commit().await?;
            return Ok(Submitted { job, is_new: false });
        }
        let (queued, waiting_bytes): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM jobs WHERE state = 'queued'),
                (SELECT coalesce(sum(size_bytes), 0) FROM job_inputs JOIN jobs ON jobs.id = job_id WHERE state = 'queued')",
        )
        .fetch_one(&mut *transaction)
        .await?;
        if queued >= MOST_QUEUED || waiting_bytes >= MOST_WAITING_BYTES {
            return Err(StoreError::QueueFull { queued });
        }
        // Made within the transaction, so that ids have the order of the queue.
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO jobs (id, kind, title, recipe, deduplication_key, priority, state, most_attempts, created_ms)
             VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
        )
        .bind(id.to_string())
        .bind(&new.kind)
        .bind(&new.title)
        .bind(new.recipe.to_string())
        .bind(new.deduplication_key.as_str())
        .bind(new.priority)
        .bind(new.most_attempts.max(1))
        .bind(now_ms())
        .execute(&mut *transaction)
        .await?;
        insert(&mut transaction, id, inputs).await?;
        let mut lost = None;
        for &earlier in &new.waits_for {
            let earlier = read(&mut transaction, earlier).await?;
            sqlx::query("INSERT OR IGNORE INTO job_dependencies (job_id, waits_for) VALUES (?, ?)")
                .bind(id.to_string())
                .bind(earlier.id.to_string())
                .execute(&mut *transaction)
                .await?;
            if matches!(earlier.state, JobState::Failed | JobState::Cancelled) {
                lost.get_or_insert(earlier);
            }
        }
        let mut job = add_state(&mut transaction, id).await?;
        if let Some(earlier) = lost {
            job = fail_for(&mut transaction, id, &earlier).await?;
        }
        self.commit(transaction).await?;
        Ok(Submitted { job, is_new: true })
    }
}

fn describe(contents: Vec<NewInput>) -> (Vec<JobInput>, Vec<(Digest, Vec<u8>)>) {
    contents
        .into_iter()
        .map(|new| {
            let digest = Digest::of(&new.bytes);
            let input = JobInput {
                role: new.role,
                name: new.name,
                digest: digest.clone(),
                size_bytes: new.bytes.len() as u64,
            };
            (input, (digest, new.bytes))
        })
        .unzip()
}

/// The job that does, or did, the work with this key. One whose result has been deleted releases the key.
async fn same_work(
    connection: &mut SqliteConnection,
    key: &Digest,
) -> Result<Option<JobRecord>, StoreError> {
    sqlx::query(
        "UPDATE jobs SET deduplication_key = NULL
         WHERE deduplication_key = ? AND state = 'succeeded'
           AND ((result ->> 'adapter_id' IS NOT NULL AND result ->> 'adapter_id' NOT IN (SELECT id FROM adapters))
             OR (result ->> 'pool' IS NOT NULL AND result ->> 'pool' NOT IN (SELECT id FROM pools)))",
    )
    .bind(key.as_str())
    .execute(&mut *connection)
    .await?;
    Ok(sqlx::query_as(select_jobs!(
        "WHERE deduplication_key = ? AND state IN ('queued', 'running', 'succeeded')"
    ))
    .bind(key.as_str())
    .fetch_optional(connection)
    .await?)
}
