//! What a running job has in its hands: progress, log, checkpoints, previews, and whether it must end. Its methods block and are
//! for the job's thread.

use super::previews::Previews;
use super::progress::Reporter;
use super::{JobError, Services};
use engine::session::{Arithmetic, SessionOptions};
use recycle::steps::{StepReport, Steps};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::{JobInput, LogLevel, Progress, Store};
use tokio::runtime::Handle;
use uuid::Uuid;

/// What a run and those outside of it share.
#[derive(Debug, Default)]
pub(super) struct RunControl {
    cancelled: AtomicBool,
    stopped: AtomicBool,
    pub previews: Previews,
}

impl RunControl {
    /// Somebody wants the job to end for good.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The run must end, the job resumes later.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A run of a job, as the job sees it.
pub struct JobContext {
    pub(super) id: Uuid,
    pub(super) run: Arc<RunControl>,
    pub(super) services: Services,
    pub(super) runtime: Handle,
    pub(super) threads: usize,
    pub(super) checkpoint_every: Duration,
    pub(super) reporter: Mutex<Reporter>,
    /// When the last checkpoint was made, or the run began.
    pub(super) last_checkpoint: Mutex<Instant>,
    /// Whether nothing of the work may be written to the disk.
    pub(super) off_the_disk: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JobContext {
    /// Of the job.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Threads that the computation may use, at least 1. The job already runs inside a rayon pool of that many.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// How the engine computes for this job, whose recipe asks for `arithmetic`.
    ///
    /// # Errors
    /// [`JobError::Failure`] where there is no such device.
    pub fn session_options(
        &self,
        arithmetic: Option<Arithmetic>,
    ) -> Result<SessionOptions, JobError> {
        let arithmetic = arithmetic.unwrap_or_default();
        let device = self.services.devices().open(arithmetic).map_err(|error| {
            let message = format!(
                "this job computes on a CUDA device ({}), and there is none: {error}. Run it where there is one, \
                 or make it again with --job-device cpu",
                arithmetic.name()
            );
            JobError::failure("no_device", message)
        })?;
        Ok(SessionOptions {
            threads: self.threads,
            device,
            ..SessionOptions::default()
        })
    }

    /// What the program lends to jobs.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The data folder.
    pub fn store(&self) -> &Store {
        self.services.store()
    }

    /// Waits for asynchronous work, for example of the registry.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// What the job was given, in order.
    ///
    /// # Errors
    /// [`JobError`] of the store.
    pub fn inputs(&self) -> Result<Vec<JobInput>, JobError> {
        Ok(self.block_on(self.store().job_inputs(self.id))?)
    }

    /// The bytes of an input.
    ///
    /// # Errors
    /// [`JobError`] of the store.
    pub fn read_input(&self, input: &JobInput) -> Result<Vec<u8>, JobError> {
        Ok(self.block_on(self.store().read_job_input(input))?)
    }

    /// Whether the run must end: the job was cancelled, or the program stops. Ask at least once a second.
    pub fn is_interrupted(&self) -> bool {
        self.run.is_cancelled() || self.run.is_stopped()
    }

    /// For `?` between parts of the work.
    ///
    /// # Errors
    /// [`JobError::Interrupted`] where the run must end.
    pub fn interrupted(&self) -> Result<(), JobError> {
        if self.is_interrupted() {
            Err(JobError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Reports progress. Call it after every step: frequent reports are thinned out here.
    ///
    /// # Errors
    /// [`JobError`] of the store.
    pub fn report(&self, report: &StepReport) -> Result<(), JobError> {
        let due = locked(&self.reporter).take(report, Instant::now());
        due.iter()
            .try_for_each(|progress| self.store_progress(progress))
    }

    fn store_progress(&self, progress: &Progress) -> Result<(), JobError> {
        if self.block_on(self.store().add_job_progress(self.id, progress))? {
            locked(&self.reporter).slow_down();
        }
        Ok(())
    }

    /// Tells what has been held back.
    pub(super) fn report_pending(&self) -> Result<(), JobError> {
        let pending = locked(&self.reporter).take_pending(Instant::now());
        pending.map_or(Ok(()), |progress| self.store_progress(&progress))
    }

    /// Adds a line to the job's log.
    ///
    /// # Errors
    /// [`JobError`] of the store.
    pub fn log(&self, level: LogLevel, message: &str) -> Result<(), JobError> {
        Ok(self.block_on(self.store().add_job_log(self.id, level, message))?)
    }

    /// Shows picture `index` as it is now; nothing of it is kept once the job ends.
    pub fn preview(&self, index: usize, label: &str, png: Vec<u8>) {
        self.run.previews.set(index, label, png);
    }

    /// What the last checkpoint of this job holds, if it was interrupted after one.
    ///
    /// # Errors
    /// [`JobError`] of the store. A damaged checkpoint does not count: the one before is used.
    pub fn load_checkpoint(&self) -> Result<Option<Vec<u8>>, JobError> {
        Ok(self.store().load_checkpoint(self.id)?)
    }

    /// Whether there is enough work since the last checkpoint to be worth one.
    pub fn is_checkpoint_due(&self) -> bool {
        locked(&self.last_checkpoint).elapsed() >= self.checkpoint_every
    }

    /// From here on no checkpoint is written: an interrupted run starts from the beginning.
    pub fn keep_off_the_disk(&self) {
        self.off_the_disk.store(true, Ordering::Relaxed);
    }

    /// Keeps `state` for a run after an interruption, unless nothing may be kept.
    ///
    /// # Errors
    /// [`JobError`] of the store; the checkpoint before is still there.
    pub fn save_checkpoint(&self, state: &[u8]) -> Result<(), JobError> {
        if self.off_the_disk.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.store().save_checkpoint(self.id, state)?;
        self.block_on(self.store().note_checkpoint(self.id))?;
        *locked(&self.last_checkpoint) = Instant::now();
        Ok(())
    }

    /// Does all steps of `steps`: reports each, keeps checkpoints, and ends between two steps where the run must end. Make
    /// `steps` from [`Self::load_checkpoint`] where there is one.
    ///
    /// # Errors
    /// [`JobError::Interrupted`], with a checkpoint where the job resumes later; what a step says; [`JobError`] of the store.
    pub fn drive<S: Steps>(&self, steps: &mut S) -> Result<(), JobError>
    where
        JobError: From<S::Error>,
    {
        self.drive_and(steps, |_| Ok(()))
    }

    /// As [`Self::drive`]; `after_step` is called after each step, for example to show previews.
    ///
    /// # Errors
    /// As [`Self::drive`], and those of `after_step`.
    pub fn drive_and<S: Steps>(
        &self,
        steps: &mut S,
        mut after_step: impl FnMut(&mut S) -> Result<(), JobError>,
    ) -> Result<(), JobError>
    where
        JobError: From<S::Error>,
    {
        while !steps.is_done() {
            if self.run.is_cancelled() {
                return Err(JobError::Interrupted);
            }
            if self.run.is_stopped() {
                self.save_checkpoint(&steps.state()?)?;
                return Err(JobError::Interrupted);
            }
            let report = steps.step()?;
            self.report(&report)?;
            after_step(steps)?;
            if self.is_checkpoint_due() {
                self.save_checkpoint(&steps.state()?)?;
            }
        }
        self.report_pending()
    }
}
