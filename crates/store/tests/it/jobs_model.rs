//! Random operations on the queue against a model in memory, with restarts. A failure prints the seed and one line per step;
//! `LORA_RECYCLE_TEST_SEED=n` runs that seed alone.

use crate::seeds::{Trace, seeds};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use store::{
    Access, Claim, Digest, Finish, JobFault, JobFilter, JobKinds, JobRecord, JobState, NewInput,
    NewJob, Store, StoreError,
};
use test_support::store::{files_on_disk, open_alone};
use uuid::Uuid;

const STEPS: usize = 200;
/// Few kinds of work, so that jobs meet others of the same.
const WORKS: u8 = 12;
const MOST_ATTEMPTS: u32 = 2;
const OWNER: &str = "runner";
const LEASE: Duration = Duration::from_secs(30);
const LATER: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq)]
struct ModelJob {
    id: Uuid,
    work: u8,
    priority: i32,
    state: JobState,
    cancel_requested: bool,
    attempts: u32,
    /// Put off until much later.
    is_put_off: bool,
    waits_for: Vec<Uuid>,
    has_input: bool,
    input_was_removed: bool,
    code: Option<String>,
}

impl ModelJob {
    /// What can be seen of a real job.
    fn of(job: &JobRecord) -> (Uuid, JobState, bool, u32, bool, Vec<Uuid>, Option<String>) {
        let now_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_millis() as i64;
        (
            job.id,
            job.state,
            job.cancel_requested,
            job.attempts,
            job.retry_at_ms.is_some_and(|at| at > now_ms),
            job.waits_for.clone(),
            job.error.as_ref().map(|error| error.code.clone()),
        )
    }

    fn seen(&self) -> (Uuid, JobState, bool, u32, bool, Vec<Uuid>, Option<String>) {
        let mut waits_for = self.waits_for.clone();
        waits_for.sort();
        (
            self.id,
            self.state,
            self.cancel_requested,
            self.attempts,
            self.is_put_off,
            waits_for,
            self.code.clone(),
        )
    }

    fn remove_input(&mut self) {
        self.input_was_removed |= self.has_input;
        self.has_input = false;
    }
}

/// What the queue should be, oldest first.
#[derive(Default)]
struct Model {
    jobs: Vec<ModelJob>,
}

impl Model {
    fn get(&self, id: Uuid) -> &ModelJob {
        self.jobs.iter().find(|job| job.id == id).expect("a job")
    }

    fn edit(&mut self, id: Uuid) -> &mut ModelJob {
        self.jobs
            .iter_mut()
            .find(|job| job.id == id)
            .expect("a job")
    }

    fn same_work(&self, work: u8) -> Option<&ModelJob> {
        self.jobs.iter().find(|job| {
            job.work == work && !matches!(job.state, JobState::Failed | JobState::Cancelled)
        })
    }

    fn is_lost(&self, id: Uuid) -> bool {
        matches!(self.get(id).state, JobState::Failed | JobState::Cancelled)
    }

    fn next(&self) -> Option<Uuid> {
        let ready = self.jobs.iter().filter(|job| {
            job.state == JobState::Queued
                && !job.is_put_off
                && job
                    .waits_for
                    .iter()
                    .all(|&earlier| self.get(earlier).state == JobState::Succeeded)
        });
        ready
            .min_by_key(|job| (-job.priority, job.id))
            .map(|job| job.id)
    }

    fn lose(&mut self, id: Uuid, state: JobState, code: Option<&str>) {
        let job = self.edit(id);
        job.state = state;
        job.is_put_off = false;
        if let Some(code) = code {
            job.code = Some(code.to_owned());
        }
        if state == JobState::Cancelled {
            job.cancel_requested = true;
            job.remove_input();
        }
        let waiting: Vec<Uuid> = self
            .jobs
            .iter()
            .filter(|job| job.state == JobState::Queued && job.waits_for.contains(&id))
            .map(|job| job.id)
            .collect();
        for id in waiting {
            self.lose(id, JobState::Failed, Some("dependency_failed"));
        }
    }

    fn inputs(&self) -> BTreeSet<u8> {
        let with_input = self.jobs.iter().filter(|job| job.has_input);
        with_input.map(|job| job.work).collect()
    }
}

fn fault() -> JobFault {
    JobFault {
        code: "bad_luck".into(),
        message: "bad luck".into(),
        hint: None,
    }
}

struct Run {
    random: ChaCha8Rng,
    folder: tempfile::TempDir,
    store: Store,
    model: Model,
    trace: Trace,
}

impl Run {
    fn log(&mut self, line: String) {
        self.trace.lines.push(line);
    }

    fn any_job(&mut self) -> Option<Uuid> {
        let count = self.model.jobs.len();
        // Mostly one of the newest, where most happens.
        let from = count.saturating_sub(if self.random.random_bool(0.8) {
            8
        } else {
            count
        });
        (count > 0).then(|| self.model.jobs[self.random.random_range(from..count)].id)
    }

    fn running(&self) -> Option<Uuid> {
        let mut jobs = self.model.jobs.iter();
        jobs.find(|job| job.state == JobState::Running)
            .map(|job| job.id)
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => self.submit().await,
            30..75 => match self.running() {
                Some(id) => self.finish(id).await,
                None => self.claim().await,
            },
            75..85 => self.cancel().await,
            85..93 => self.retry().await,
            _ => self.restart().await,
        }
        self.check().await;
    }

    async fn submit(&mut self) {
        let work = self.random.random_range(0..WORKS);
        let priority = self.random.random_range(-1..=1);
        let mut waits_for = Vec::new();
        while self.random.random_bool(0.3) {
            waits_for.extend(self.any_job());
        }
        let has_input = self.random.random_bool(0.5);
        self.log(format!(
            "submit work {work}, priority {priority}, input {has_input}, waits for {waits_for:?}"
        ));
        let new = NewJob {
            kind: "model".into(),
            title: format!("work {work}"),
            recipe: json!({"work": work}),
            deduplication_key: Digest::of(&[work]),
            priority,
            most_attempts: MOST_ATTEMPTS,
            waits_for: waits_for.clone(),
            inputs: has_input
                .then(|| NewInput {
                    role: "picture".into(),
                    name: "picture".into(),
                    bytes: vec![work; 100],
                })
                .into_iter()
                .collect(),
        };
        let submitted = self.store.submit_job(new).await.expect("submit");
        if let Some(same) = self.model.same_work(work) {
            assert_eq!((submitted.job.id, submitted.is_new), (same.id, false));
            return;
        }
        assert!(submitted.is_new);
        waits_for.dedup();
        let waits_for: Vec<Uuid> = waits_for
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let is_lost = waits_for.iter().any(|&earlier| self.model.is_lost(earlier));
        let id = submitted.job.id;
        self.model.jobs.push(ModelJob {
            id,
            work,
            priority,
            state: JobState::Queued,
            cancel_requested: false,
            attempts: 0,
            is_put_off: false,
            waits_for,
            has_input,
            input_was_removed: false,
            code: None,
        });
        if is_lost {
            self.model
                .lose(id, JobState::Failed, Some("dependency_failed"));
        }
    }

    async fn claim(&mut self) {
        let expected = self.model.next();
        self.log(format!("claim, expecting {expected:?}"));
        let claim = Claim {
            owner: OWNER,
            lease: LEASE,
            only: None,
            kinds: JobKinds::All,
        };
        let claimed = self.store.claim_job(claim).await.expect("claim");
        assert_eq!(claimed.map(|job| job.id), expected);
        if let Some(id) = expected {
            let job = self.model.edit(id);
            job.state = JobState::Running;
            job.attempts += 1;
        }
    }

    async fn finish(&mut self, id: Uuid) {
        let finish = match self.random.random_range(0..7) {
            0..3 => Finish::Succeeded(json!({"made": true})),
            3 => Finish::Failed(fault()),
            4 => Finish::Retry(fault(), LATER),
            5 => Finish::Retry(fault(), Duration::ZERO),
            _ if self.model.get(id).cancel_requested => Finish::Cancelled,
            _ => Finish::PutBack,
        };
        self.log(format!("finish {id}: {finish:?}"));
        let foreign = self.store.finish_job(id, "another", finish.clone()).await;
        assert_eq!(foreign.expect("finish"), None);
        assert!(
            self.store
                .renew_lease(id, OWNER, LEASE)
                .await
                .expect("renew")
        );
        let finished = self.store.finish_job(id, OWNER, finish.clone()).await;
        finished.expect("finish").expect("held");
        let job = self.model.edit(id);
        match finish {
            Finish::Succeeded(_) => {
                job.state = JobState::Succeeded;
                job.cancel_requested = false;
                job.code = None;
                job.remove_input();
            }
            Finish::Retry(fault, delay) if job.attempts < MOST_ATTEMPTS => {
                job.state = JobState::Queued;
                job.is_put_off = delay > Duration::ZERO;
                job.code = Some(fault.code);
            }
            Finish::Failed(_) | Finish::Retry(..) => {
                self.model.lose(id, JobState::Failed, Some("bad_luck"));
            }
            Finish::Cancelled => self.model.lose(id, JobState::Cancelled, None),
            Finish::PutBack => {
                job.state = JobState::Queued;
                job.attempts -= 1;
            }
        }
    }

    async fn cancel(&mut self) {
        let Some(id) = self.any_job() else { return };
        self.log(format!("cancel {id}"));
        let cancelled = self.store.cancel_job(id).await;
        match self.model.get(id).state {
            JobState::Queued | JobState::Failed => {
                cancelled.expect("cancel");
                self.model.lose(id, JobState::Cancelled, None);
            }
            JobState::Running => {
                cancelled.expect("cancel");
                self.model.edit(id).cancel_requested = true;
            }
            JobState::Succeeded | JobState::Cancelled => {
                let error = cancelled.expect_err("ended");
                assert!(matches!(error, StoreError::JobState { .. }), "{error}");
            }
        }
    }

    async fn retry(&mut self) {
        let Some(id) = self.any_job() else { return };
        self.log(format!("retry {id}"));
        let retried = self.store.retry_job(id).await;
        let job = self.model.get(id).clone();
        let blocked = job
            .waits_for
            .iter()
            .any(|&earlier| self.model.is_lost(earlier));
        match retried {
            Ok(_) => {
                assert!(self.model.is_lost(id) && !blocked && !job.input_was_removed);
                assert!(self.model.same_work(job.work).is_none());
                let job = self.model.edit(id);
                job.state = JobState::Queued;
                job.attempts = 0;
                job.cancel_requested = false;
                job.code = None;
            }
            Err(StoreError::JobState { .. }) => assert!(!self.model.is_lost(id)),
            Err(StoreError::JobBlocked { .. }) => assert!(blocked),
            Err(StoreError::JobInputsGone(_)) => assert!(job.input_was_removed),
            Err(StoreError::JobReplaced(_)) => assert!(self.model.same_work(job.work).is_some()),
            Err(other) => panic!("{other}"),
        }
    }

    async fn restart(&mut self) {
        self.log("restart".to_owned());
        self.store.clone().close().await;
        // The lock goes with the last handle; a reader stands in while the folder is closed.
        self.store = Store::open(self.folder.path(), Access::Shared)
            .await
            .expect("reader");
        self.store = open_alone(self.folder.path()).await;
        if let Some(id) = self.running() {
            let job = self.model.edit(id);
            job.state = JobState::Queued;
            job.attempts -= 1;
            if job.cancel_requested {
                self.model.lose(id, JobState::Cancelled, None);
            }
        }
    }

    /// Everything that can be seen is as the model says.
    async fn check(&self) {
        let mut listed = self
            .store
            .list_jobs(&JobFilter::default())
            .await
            .expect("list");
        listed.reverse();
        let seen: Vec<_> = listed.iter().map(ModelJob::of).collect();
        let expected: Vec<_> = self.model.jobs.iter().map(ModelJob::seen).collect();
        assert_eq!(seen, expected);
        for job in &listed {
            let events = self
                .store
                .job_events(job.id, 0, 1000)
                .await
                .expect("events");
            let last = events.last().expect("an event");
            assert_eq!(last.data["state"], job.state.as_str());
            assert_eq!(last.is_final(), job.state.is_final());
            assert!(
                events
                    .windows(2)
                    .all(|pair| pair[0].number < pair[1].number)
            );
        }
        // Works that share an input share its file.
        assert_eq!(
            files_on_disk(self.folder.path()).len(),
            self.model.inputs().len()
        );
    }
}

#[tokio::test]
async fn random_operations_and_restarts_of_the_queue_agree_with_a_model_in_memory() {
    for seed in seeds() {
        let folder = tempfile::tempdir().expect("folder");
        let mut run = Run {
            random: ChaCha8Rng::seed_from_u64(seed),
            store: Store::open(folder.path(), Access::Exclusive)
                .await
                .expect("open"),
            folder,
            model: Model::default(),
            trace: Trace {
                seed,
                lines: Vec::new(),
            },
        };
        for _ in 0..STEPS {
            run.step().await;
        }
    }
}
