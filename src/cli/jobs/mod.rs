//! `jobs`: the queue on the command line, alone or beside a running server.

mod client;
mod watch;

pub use client::submit_and_watch;

use super::CliError;
use super::options::{Common, block_on, print_json, print_line};
use crate::app::registry::Registry;
use crate::jobs::RunnerOptions;
use clap::{Args, Subcommand};
use client::{Change, Client};
use serde_json::Value;
use std::time::Duration;
use store::{JobFilter, JobRecord, JobState, Store, StoreError};
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
    /// Queue a job again that failed or was cancelled; it goes on from its last checkpoint
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
    /// Processor threads of one job; 0 takes one a core. They give way to those that answer requests [default: as --threads]
    #[arg(long, value_name = "N", env = "LORA_RECYCLE_JOB_THREADS")]
    job_threads: Option<usize>,
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
        .hint("write more of the id")),
        None => Err(CliError::user(format!("there is no job \"{text}\""))
            .hint("`lora-recycle jobs list` shows what there is")),
    }
}

/// Runs `work` on the store, which others may have open; `None` where there is no data yet.
fn read_if_there<T>(
    common: &Common,
    work: impl AsyncFnOnce(Option<&Store>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let folder = common.data_folder()?;
    block_on(async {
        let registry = Registry::open_to_read(&folder).await?;
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
    let registry = Registry::open_to_read(&common.data_folder()?).await?;
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
    if job.attempts > 1 {
        print_line(&format!(
            "attempts\t{} of {}",
            job.attempts, job.most_attempts
        ))?;
    }
    for id in &job.waits_for {
        print_line(&format!("waits for\t{id}"))?;
    }
    if let Some(hint) = job.error.as_ref().and_then(|error| error.hint.as_ref()) {
        print_line(&format!("hint\t{hint}"))?;
    }
    print_line(&format!("recipe\t{}", job.recipe))
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

/// What there is to say of a job besides its state.
fn note(job: &JobRecord) -> String {
    match (job.state, &job.progress, &job.error, &job.result) {
        (JobState::Running, ..) if job.cancel_requested => "stopping".to_owned(),
        (JobState::Running, Some(progress), ..) => watch::describe(progress),
        (JobState::Failed | JobState::Queued, _, Some(error), _) => error.message.clone(),
        (JobState::Succeeded, .., Some(result)) => summarise(result),
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

/// The last line of a job that was followed; with `--json` its events have said all.
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
        JobState::Cancelled => "give the command that made the job again to start anew".to_owned(),
        JobState::Queued | JobState::Running | JobState::Succeeded | JobState::Failed => {
            let of_fault = lost.error.as_ref().and_then(|fault| fault.hint.clone());
            let retry = format!("`lora-recycle jobs retry {}` queues it again", lost.id);
            of_fault.map_or(retry.clone(), |hint| format!("{hint}; {retry}"))
        }
    };
    Err(error.hint(hint))
}
