//! `jobs`: the queue on the command line, alone or beside a running server.

mod client;
mod watch;

pub use client::{beside, check_device, receive, send, submit_and_watch};

use super::CliError;
use super::job_device::JobDeviceArgument;
use super::options::{Common, block_on, print_json, print_line};
use crate::app::registry::Registry;
use crate::jobs::RunnerOptions;
use clap::{Args, Subcommand};
use client::{Change, Client};
use serde_json::Value;
use std::time::Duration;
use store::{JobFault, JobFilter, JobRecord, JobState, Store, StoreError};
use uuid::Uuid;
use watch::{Display, follow};

#[derive(Debug, Subcommand)]
#[command(after_help = "A job is named by its id, or by the start of it.

Examples:
  lora-recycle jobs list --state running
  lora-recycle jobs watch 0192f3c4
  lora-recycle jobs cancel 0192f3c4
  lora-recycle jobs run                       run what is queued, without a server")]
pub enum JobsCommand {
    /// List jobs, newest first
    List(List),
    /// Show one job
    Show(Which),
    /// Follow a job until it has ended
    Watch(Which),
    /// Cancel a job; pictures that it was given are deleted
    Cancel(Which),
    /// Queue a job again that failed or was cancelled; it resumes from its last checkpoint
    Retry(Which),
    /// Run queued jobs here, without a server
    Run(RunJobs),
}

#[derive(Debug, Args)]
pub struct List {
    /// Only jobs in this state: queued, running, succeeded, failed or cancelled
    #[arg(long, value_name = "STATE")]
    state: Option<JobState>,
    /// Only jobs of this kind, e.g. tune
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Most jobs to list
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
}

#[derive(Debug, Args)]
pub struct Which {
    /// Id of the job, or the start of it
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
pub struct RunJobs {
    /// Jobs to run, with those they wait for; without any, all that are queued
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    runner: RunnerArguments,
}

/// How jobs are run, wherever they are.
#[derive(Debug, Clone, Args)]
pub struct RunnerArguments {
    /// Processor threads of one job; 0 takes one per core. They give way to those that answer requests [default: as --threads]
    #[arg(long, value_name = "N", env = "LORA_RECYCLE_JOB_THREADS")]
    job_threads: Option<usize>,
    #[command(flatten)]
    device: JobDeviceArgument,
    /// Seconds of work that an interruption of a job may cost
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        env = "LORA_RECYCLE_CHECKPOINT_SECONDS",
        default_value_t = 30.0
    )]
    checkpoint_seconds: f64,
}

impl RunnerArguments {
    pub fn options(&self, common: &Common) -> RunnerOptions {
        let defaults = RunnerOptions::default();
        RunnerOptions {
            threads: self.job_threads.unwrap_or(common.threads),
            device: self.device.job_device,
            checkpoint_every: Duration::try_from_secs_f64(self.checkpoint_seconds)
                .unwrap_or(defaults.checkpoint_every),
            ..defaults
        }
    }
}

impl JobsCommand {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run(common),
            Self::Show(which) => {
                let job = read(common, async |store| which.job(store).await)?;
                show(common, &job)
            }
            Self::Watch(which) => block_on(watch(common, which))?,
            Self::Cancel(which) => change(common, which, Change::Cancel),
            Self::Retry(which) => change(common, which, Change::Retry),
            Self::Run(run) => block_on(run.run(common))?,
        }
    }
}

impl List {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let filter = JobFilter {
            state: self.state,
            kind: self.kind.clone(),
            before: None,
            limit: Some(self.limit),
        };
        let jobs = read_if_there(common, async |store| match store {
            Some(store) => Ok(store.list_jobs(&filter).await?),
            None => Ok(Vec::new()),
        })?;
        if common.json {
            return print_json(&jobs);
        }
        if jobs.is_empty() {
            eprintln!("there is no such job");
        }
        jobs.iter().try_for_each(|job| {
            print_line(&format!(
                "{}\t{}\t{}\t{}\t{}",
                job.id,
                job.state,
                job.kind,
                job.title,
                note(job)
            ))
        })
    }
}

impl RunJobs {
    async fn run(&self, common: &Common) -> Result<(), CliError> {
        let client = Client::alone(common, self.runner.options(common)).await?;
        let mut ids = Vec::new();
        for id in &self.ids {
            ids.push(find(client.store(), id).await?.id);
        }
        if self.ids.is_empty() {
            let queued = JobFilter {
                state: Some(JobState::Queued),
                ..JobFilter::default()
            };
            let queued = client.store().list_jobs(&queued).await?;
            // Oldest first, as they will run.
            ids.extend(queued.iter().rev().map(|job| job.id));
        }
        let jobs = client.watch(common, &ids).await?;
        jobs.iter().try_for_each(|job| print_end(common, job))?;
        jobs.iter().for_each(advise);
        failed(&jobs)
    }
}

impl Which {
    async fn job(&self, store: &Store) -> Result<JobRecord, CliError> {
        find(store, &self.id).await
    }
}

/// The job whose id starts with `text`.
async fn find(store: &Store, text: &str) -> Result<JobRecord, CliError> {
    if let Ok(id) = text.parse::<Uuid>() {
        return Ok(store.job(id).await?);
    }
    let text = text.to_ascii_lowercase();
    let mut found = store.list_jobs(&JobFilter::default()).await?;
    found.retain(|job| !text.is_empty() && job.id.to_string().starts_with(&text));
    match found.pop() {
        Some(only) if found.is_empty() => Ok(only),
        Some(_) => Err(CliError::user(format!(
            "the ids of {} jobs start with \"{text}\"",
            found.len() + 1
        ))
        .hint("give more of the id")),
        None => Err(CliError::user(format!("there is no job \"{text}\""))
            .hint("`lora-recycle jobs list` shows what there is")),
    }
}

/// Runs `work` on the store, which others may have open; `None` where there is no data yet.
fn read_if_there<T>(
    common: &Common,
    work: impl AsyncFnOnce(Option<&Store>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    block_on(async {
        let registry = common.read_registry_if_there().await?;
        work(registry.as_ref().map(Registry::store)).await
    })?
}

fn read<T>(
    common: &Common,
    work: impl AsyncFnOnce(&Store) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let folder = common.data_folder()?;
    read_if_there(common, async |store| match store {
        Some(store) => work(store).await,
        None => Err(StoreError::NoDatabase { folder }.into()),
    })
}

fn change(common: &Common, which: &Which, change: Change) -> Result<(), CliError> {
    let job = block_on(async {
        let client = Client::open(common, RunnerOptions::default()).await?;
        let changed = async {
            let job = find(client.store(), &which.id).await?;
            client.change(job.id, change).await
        }
        .await;
        client.store().clone().close().await;
        changed
    })??;
    show(common, &job)
}

async fn watch(common: &Common, which: &Which) -> Result<(), CliError> {
    let registry = common.read_registry_if_there().await?;
    let Some(registry) = registry else {
        let folder = common.data_folder()?;
        return Err(StoreError::NoDatabase { folder }.into());
    };
    let store = registry.store();
    let job = find(store, &which.id).await?;
    if !job.state.is_final() && client::is_free(common).await? {
        return Err(CliError::user(format!(
            "the job {} is {}, but no program runs jobs of this data folder now",
            job.id, job.state
        ))
        .hint(format!(
            "`lora-recycle jobs run {}` runs it here, `lora-recycle serve` runs all",
            job.id
        )));
    }
    let mut display = Display::new(common);
    let job = follow(store, job.id, &mut display).await?;
    print_end(common, &job)?;
    advise(&job);
    failed(std::slice::from_ref(&job))
}

fn show(common: &Common, job: &JobRecord) -> Result<(), CliError> {
    if common.json {
        return print_json(job);
    }
    print_line(&format!("id\t{}", job.id))?;
    print_line(&format!("kind\t{}", job.kind))?;
    print_line(&format!("title\t{}", job.title))?;
    print_line(&format!("state\t{}", job.state))?;
    let note = note(job);
    if !note.is_empty() {
        print_line(&format!("note\t{note}"))?;
    }
    if let Some(begun_ms) = job.started_ms {
        print_line(&format!("begun\t{}", utc(begun_ms)))?;
        print_line(&format!("worked\t{}", minutes(job.worked_ms)))?;
    }
    if let Some(ended_ms) = job.finished_ms {
        print_line(&format!("ended\t{}", utc(ended_ms)))?;
    }
    if job.attempts > 1 {
        print_line(&format!(
            "attempts\t{} of {}",
            job.attempts, job.most_attempts
        ))?;
    }
    for id in &job.waits_for {
        print_line(&format!("waits for\t{id}"))?;
    }
    let fault = job.error.clone().or_else(|| failure(job));
    if let Some(hint) = fault.and_then(|fault| fault.hint) {
        print_line(&format!("hint\t{hint}"))?;
    }
    print_line(&format!("recipe\t{}", job.recipe))
}

/// What is wrong with the result of a job that did all its work.
fn failure(job: &JobRecord) -> Option<JobFault> {
    serde_json::from_value(job.result.as_ref()?.get("failure")?.clone()).ok()
}

/// `1:05 min`
fn minutes(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

/// A time as `2026-03-01 12:05:09 UTC`.
fn utc(milliseconds: i64) -> String {
    let seconds = milliseconds.div_euclid(1000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the first of March of the year 0, in periods of 400 years, which are all alike.
    let days = days + 719_468;
    let (period, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = period * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A result without its lists and objects, which `jobs show` has.
fn summarise(result: &Value) -> String {
    let fields = result.as_object().into_iter().flatten();
    let scalars = fields
        .filter(|(_, value)| !matches!(value, Value::Array(_) | Value::Object(_) | Value::Null));
    Value::Object(
        scalars
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
    .to_string()
}

/// What there is to say about a job besides its state.
fn note(job: &JobRecord) -> String {
    match (job.state, &job.progress, &job.error, &job.result) {
        (JobState::Running, ..) if job.cancel_requested => "stopping".to_owned(),
        (JobState::Running, Some(progress), ..) => watch::describe(progress),
        (JobState::Failed | JobState::Queued, _, Some(error), _) => error.message.clone(),
        (JobState::Succeeded, .., Some(result)) => {
            failure(job).map_or_else(|| summarise(result), |fault| fault.message)
        }
        (
            JobState::Queued
            | JobState::Running
            | JobState::Succeeded
            | JobState::Failed
            | JobState::Cancelled,
            ..,
        ) => String::new(),
    }
}

/// The last line of a job that was followed; with `--json` its events have said everything.
fn print_end(common: &Common, job: &JobRecord) -> Result<(), CliError> {
    if common.json {
        return Ok(());
    }
    print_line(&format!(
        "{}\t{}\t{}\t{}",
        job.id,
        job.state,
        job.title,
        note(job)
    ))
}

/// Says on stderr what to do where a job's result is flawed; its log and its last line say what it is.
fn advise(job: &JobRecord) {
    if let Some(hint) = failure(job).and_then(|fault| fault.hint) {
        eprintln!("hint: {hint}");
    }
}

/// An error where one of `jobs` has not succeeded.
fn failed(jobs: &[JobRecord]) -> Result<(), CliError> {
    let Some(lost) = jobs.iter().find(|job| job.state != JobState::Succeeded) else {
        return Ok(());
    };
    let error = match &lost.error {
        Some(fault) if lost.state == JobState::Failed => {
            CliError::user(format!("{}: {}", lost.title, fault.message))
        }
        _ => CliError::user(format!("{}: the job is {}", lost.title, lost.state)),
    };
    let hint = match lost.state {
        JobState::Cancelled => "give the command that made the job again to start over".to_owned(),
        JobState::Queued | JobState::Running | JobState::Succeeded | JobState::Failed => {
            let of_fault = lost.error.as_ref().and_then(|fault| fault.hint.clone());
            let retry = format!("`lora-recycle jobs retry {}` queues it again", lost.id);
            of_fault.map_or(retry.clone(), |hint| format!("{hint}; {retry}"))
        }
    };
    Err(error.hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_calendar_of_utc() {
        for (milliseconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (1_735_689_600_000, "2025-01-01 00:00:00 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(milliseconds), expected);
        }
        assert_eq!(minutes(65_999), "1:05 min");
    }
}
