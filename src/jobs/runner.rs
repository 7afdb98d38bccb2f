//! The queue and its runner: takes jobs one at a time, and beside them one of those that only wait for the encoder, runs each on threads of low priority, renews its lease, and writes down how
//! it ended.

use super::context::{JobContext, RunControl};
use super::kinds::{new_job, plan};
use super::previews::Preview;
use super::progress::Reporter;
use super::thread::spawn_in_background;
use super::{
    Devices, Job, JobDevice, JobError, Kinds, Planned, RequestError, RequestParts, Services,
};
use serde_json::Value;
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::{
    Claim, Finish, JobInput, JobKinds, JobRecord, JobState, LogLevel, NewJob, Staged, Store,
    StoreError, Submitted,
};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

/// How jobs are run.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// Threads of one job; 0 takes one per core.
    pub threads: usize,
    /// What jobs are computed on where their recipe leaves it open.
    pub device: JobDevice,
    /// Without a renewal for this long, a run counts as dead.
    pub lease: Duration,
    /// Work that an interruption may cost.
    pub checkpoint_every: Duration,
    /// Before the second attempt; four times as long before each one after.
    pub retry_delay: Duration,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            device: JobDevice::default(),
            lease: Duration::from_secs(30),
            checkpoint_every: Duration::from_secs(30),
            retry_delay: Duration::from_secs(10),
        }
    }
}

/// No attempt is put off for longer.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(600);
/// How long [`Jobs::cancel`] waits for a run to end.
const CANCEL_WAITS: Duration = Duration::from_millis(1500);
/// Before the database is tried again after it failed.
const PAUSE_AFTER_FAULT: Duration = Duration::from_secs(5);
/// A job that this runner leaves alone may have been due for long.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
/// The queue is looked at this often at least, should the clock of the machine jump.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The queue of one data folder and its runner; clones share it.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    services: Services,
    kinds: Kinds,
    options: RunnerOptions,
    runs: Mutex<HashMap<Uuid, Arc<RunControl>>>,
    stopping: watch::Sender<bool>,
    /// Whether [`Jobs::run`] has ended, or lost one of its loops to a panic.
    has_stopped: AtomicBool,
}

/// Notes the end of a run of the queue, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Jobs {
    /// The queue; nothing runs until [`Self::run`].
    pub fn new(services: Services, kinds: Kinds, options: RunnerOptions) -> Self {
        let kernels = services.store().cache_folder().join("cuda");
        let services = services.on(Devices::new(options.device, kernels));
        Self {
            inner: Arc::new(Inner {
                services,
                kinds,
                options,
                runs: Mutex::default(),
                stopping: watch::Sender::new(false),
                has_stopped: AtomicBool::new(false),
            }),
        }
    }

    /// The data folder.
    pub fn store(&self) -> &Store {
        self.inner.services.store()
    }

    /// What the program lends to jobs.
    pub fn services(&self) -> &Services {
        &self.inner.services
    }

    /// Queues what `request` asks for: one or several jobs.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is queued where the request is wrong.
    pub async fn request<J: Job>(
        &self,
        request: J::Request,
    ) -> Result<Vec<Submitted>, RequestError> {
        let planned = plan::<J>(request, &self.inner.services).await?;
        self.submit_all(planned).await
    }

    /// As [`Self::request`], for a kind that is known by its name.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is queued where the request is wrong.
    pub async fn request_by_name(
        &self,
        kind: &str,
        parts: RequestParts,
    ) -> Result<Vec<Submitted>, RequestError> {
        let Inner {
            kinds, services, ..
        } = &*self.inner;
        let planned = kinds.plan(kind, parts, services).await?;
        self.submit_all(planned).await
    }

    async fn submit_all(&self, planned: Vec<NewJob>) -> Result<Vec<Submitted>, RequestError> {
        let mut submitted = Vec::with_capacity(planned.len());
        for new in planned {
            submitted.push(self.store().submit_job(new).await?);
        }
        Ok(submitted)
    }

    /// Queues a job, or gives the one that does the same work.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn submit<J: Job>(&self, planned: Planned<J>) -> Result<Submitted, StoreError> {
        let new = tokio::task::spawn_blocking(move || new_job(planned)).await?;
        self.store().submit_job(new).await
    }

    /// Queues a job that is given `files`, which are in `staged`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn submit_staged<J: Job>(
        &self,
        job: J,
        files: Vec<JobInput>,
        staged: Staged,
    ) -> Result<Submitted, StoreError> {
        let new = new_job(Planned {
            job,
            inputs: Vec::new(),
            waits_for: Vec::new(),
        });
        self.store().submit_staged_job(new, files, staged).await
    }

    /// Cancels a job and waits a moment for its run to end, so that the answer is mostly final.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`], [`StoreError::JobState`].
    pub async fn cancel(&self, id: Uuid) -> Result<JobRecord, StoreError> {
        let mut changes = self.store().watch_jobs();
        let mut job = self.store().cancel_job(id).await?;
        if job.state == JobState::Running {
            if let Some(run) = self.runs().get(&id) {
                run.cancel();
            }
            let ended = async {
                while job.state == JobState::Running && changes.changed().await.is_ok() {
                    job = self.store().job(id).await?;
                }
                Ok::<_, StoreError>(())
            };
            if let Ok(read) = tokio::time::timeout(CANCEL_WAITS, ended).await {
                read?;
            }
        }
        Ok(job)
    }

    /// Queues a job again that failed or was cancelled.
    ///
    /// # Errors
    /// See [`Store::retry_job`].
    pub async fn retry(&self, id: Uuid) -> Result<JobRecord, StoreError> {
        self.store().retry_job(id).await
    }

    /// What the job `id` makes, as it is now; nothing unless it runs here.
    pub fn previews(&self, id: Uuid) -> Vec<(usize, Preview)> {
        let run = self.runs().get(&id).cloned();
        run.map(|run| run.previews.all()).unwrap_or_default()
    }

    /// Runs jobs until [`Self::stop`]: one at a time, and one at a time of the kinds that run beside others.
    pub async fn run(&self) {
        let _ends = Ends(&self.inner.has_stopped);
        let beside = self.inner.kinds.beside_others();
        tokio::join!(
            self.work(None, JobKinds::But(&beside)),
            self.work(None, JobKinds::Of(&beside)),
        );
    }

    /// Runs these jobs until all have ended or [`Self::stop`]; others are left alone.
    pub async fn run_only(&self, jobs: &[Uuid]) {
        self.work(Some(jobs), JobKinds::All).await;
    }

    /// Lets the running job make a checkpoint and puts it back; [`Self::run`] then ends.
    pub fn stop(&self) {
        self.inner.stopping.send_replace(true);
        for run in self.runs().values() {
            run.stop();
        }
    }

    /// Whether jobs were run here and are no more.
    pub fn has_stopped(&self) -> bool {
        self.inner.has_stopped.load(Ordering::Relaxed)
    }

    /// Waits for [`Self::stop`].
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.inner.stopping.subscribe();
        async move {
            // The sender lives as long as the queue; without it there is nothing to wait for.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    fn is_stopping(&self) -> bool {
        *self.inner.stopping.borrow()
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<RunControl>>> {
        self.inner
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, only: Option<&[Uuid]>, kinds: JobKinds<'_>) {
        let mut changes = self.store().watch_jobs();
        while !self.is_stopping() {
            changes.mark_unchanged();
            let wait = match self.step_of(only, kinds).await {
                Ok(Some(_)) => continue,
                Ok(None) => match self.idle_for(only).await {
                    Ok(Some(wait)) => wait,
                    Ok(None) => return,
                    Err(error) => pause_after(&error),
                },
                Err(error) => pause_after(&error),
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = self.stopping() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How long there is nothing to do; `None` where all of `only` have ended.
    async fn idle_for(&self, only: Option<&[Uuid]>) -> Result<Option<Duration>, StoreError> {
        if let Some(ids) = only {
            let mut all_ended = true;
            for &id in ids {
                all_ended &= self.store().job(id).await?.state.is_final();
            }
            if all_ended {
                return Ok(None);
            }
        }
        let Some(retry_at_ms) = self.store().next_retry_ms().await? else {
            return Ok(Some(LONGEST_WAIT));
        };
        let retry_at = UNIX_EPOCH + Duration::from_millis(retry_at_ms.max(0).unsigned_abs());
        let wait = retry_at
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        Ok(Some(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)))
    }

    /// Takes the next job and runs it to its end; `None` where no job's turn has come.
    ///
    /// # Errors
    /// [`StoreError`] where no job could be taken. How a run ended is in the job.
    pub async fn step(&self, only: Option<&[Uuid]>) -> Result<Option<JobRecord>, StoreError> {
        self.step_of(only, JobKinds::All).await
    }

    async fn step_of(
        &self,
        only: Option<&[Uuid]>,
        kinds: JobKinds<'_>,
    ) -> Result<Option<JobRecord>, StoreError> {
        // One name for each run: one that lost its lease cannot end the one after it.
        let owner = Uuid::new_v4().to_string();
        let claim = Claim {
            owner: &owner,
            lease: self.inner.options.lease,
            only,
            kinds,
        };
        let Some(job) = self.store().claim_job(claim).await? else {
            return Ok(None);
        };
        let (id, attempts) = (job.id, job.attempts);
        tracing::info!(job = %id, kind = job.kind, "job started");
        let run = Arc::new(RunControl::default());
        self.runs().insert(id, Arc::clone(&run));
        let finished = match self.compute(job, &run, &owner).await {
            Some(outcome) => self.finish(id, &owner, attempts, &run, outcome).await,
            None => None,
        };
        self.runs().remove(&id);
        match finished {
            Some(job) => {
                tracing::info!(job = %id, kind = job.kind, state = %job.state, "job ended");
                Ok(Some(job))
            }
            None => self.store().job(id).await.map(Some),
        }
    }

    /// Runs `job` on a separate thread. `None`: the lease was lost, and what came out of the run does not count.
    async fn compute(
        &self,
        job: JobRecord,
        run: &Arc<RunControl>,
        owner: &str,
    ) -> Option<Result<Value, JobError>> {
        let id = job.id;
        let options = &self.inner.options;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let context = JobContext {
            id,
            run: Arc::clone(run),
            services: self.inner.services.clone(),
            runtime: Handle::current(),
            threads,
            checkpoint_every: options.checkpoint_every,
            reporter: Mutex::new(Reporter::default()),
            last_checkpoint: Mutex::new(Instant::now()),
            off_the_disk: AtomicBool::new(false),
        };
        let kinds = self.inner.kinds.clone();
        let (ended, mut end) = oneshot::channel();
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| run_in_pool(&kinds, &job, &context)))
                .unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
            // No one is waiting any more only where the whole program ends.
            let _ = ended.send(outcome);
        };
        if let Err(error) = spawn_in_background(work) {
            return Some(Err(JobError::failure("no_thread", error.to_string())));
        }
        let mut ticks = interval(options.lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                outcome = &mut end => {
                    return Some(outcome.unwrap_or_else(|_| {
                        Err(JobError::failure("no_outcome", "the thread of the job ended without a word"))
                    }));
                }
                _ = ticks.tick() => {
                    if !self.renew(id, owner, run).await {
                        run.stop();
                        // The files of the job must not be written by two.
                        let _ = end.await;
                        return None;
                    }
                }
            }
        }
    }

    /// Renews the lease and sees whether somebody wants the run to end; `false` where the lease is lost.
    async fn renew(&self, id: Uuid, owner: &str, run: &RunControl) -> bool {
        let renew = async {
            let lease = self.inner.options.lease;
            let is_held = self.store().renew_lease(id, owner, lease).await?;
            if self.store().job(id).await?.cancel_requested {
                run.cancel();
            }
            Ok::<_, StoreError>(is_held)
        };
        if self.is_stopping() {
            run.stop();
        }
        renew.await.unwrap_or_else(|error| {
            // As long as the database cannot be written, nobody else takes the job.
            tracing::warn!(job = %id, %error, "the lease of a job could not be renewed");
            true
        })
    }

    /// Writes down how a run ended. `None`: the lease was lost meanwhile.
    async fn finish(
        &self,
        id: Uuid,
        owner: &str,
        attempts: u32,
        run: &RunControl,
        outcome: Result<Value, JobError>,
    ) -> Option<JobRecord> {
        let finish = match outcome {
            Ok(result) => Finish::Succeeded(result),
            Err(_) if run.is_cancelled() => Finish::Cancelled,
            Err(JobError::Interrupted) => Finish::PutBack,
            Err(JobError::Abort(fault)) => Finish::Failed(fault),
            Err(JobError::Retry(fault, delay)) => Finish::Retry(fault, delay),
            Err(JobError::Failure(fault)) => {
                let factor = 4_u32.saturating_pow(attempts.saturating_sub(1));
                let delay = self.inner.options.retry_delay.saturating_mul(factor);
                Finish::Retry(fault, delay.min(LONGEST_RETRY_DELAY))
            }
        };
        if let Finish::Failed(fault) | Finish::Retry(fault, _) = &finish {
            tracing::warn!(job = %id, code = fault.code, message = fault.message, "a job's run failed");
            let log = self
                .store()
                .add_job_log(id, LogLevel::Error, &fault.message);
            if let Err(error) = log.await {
                tracing::warn!(job = %id, %error, "the log of a job could not be written");
            }
        }
        loop {
            match self.store().finish_job(id, owner, finish.clone()).await {
                Ok(finished) => return finished,
                Err(error) => {
                    tracing::error!(job = %id, %error, "the end of a job could not be written; trying again");
                    if self.is_stopping() {
                        return None;
                    }
                    tokio::time::sleep(PAUSE_AFTER_FAULT).await;
                }
            }
        }
    }
}

fn pause_after(error: &StoreError) -> Duration {
    tracing::warn!(%error, "the queue of jobs cannot be read or written; trying again");
    PAUSE_AFTER_FAULT
}

/// Runs the job inside a separate thread pool, so that what it spreads over threads stays on those of low priority.
fn run_in_pool(kinds: &Kinds, job: &JobRecord, context: &JobContext) -> Result<Value, JobError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(context.threads)
        .thread_name(|index| format!("job-{index}"))
        .build()
        .map_err(|error| JobError::failure("no_thread", error.to_string()))?;
    pool.install(|| kinds.run(job, context))
}

fn panicked(panic: &(dyn Any + Send)) -> JobError {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words");
    JobError::failure(
        "panicked",
        format!("the job stopped with a defect of the program: {words}"),
    )
}
