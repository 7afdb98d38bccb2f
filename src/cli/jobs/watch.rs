//! Following a job on the terminal: a bar where there is one, plain lines in a pipe, events with `--json`.

use crate::cli::CliError;
use crate::cli::options::{Common, print_json};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use store::{EventKind, JobEvent, JobRecord, Progress, Store};
use uuid::Uuid;

/// How often another process's writes are looked for; writes of this one wake at once.
const LOOKED_FOR_EVERY: Duration = Duration::from_millis(300);
/// Plain lines of progress come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(5);
const CHUNK: u32 = 500;

/// How events are shown.
pub struct Display {
    json: bool,
    /// `None` where stderr is no terminal.
    bar: Option<ProgressBar>,
    phase: String,
    last_line: Option<Instant>,
}

impl Display {
    pub fn new(common: &Common) -> Self {
        let is_terminal = std::io::stderr().is_terminal() && !common.json;
        Self {
            json: common.json,
            bar: is_terminal.then(bar),
            phase: String::new(),
            last_line: None,
        }
    }

    fn show(&mut self, job: &JobRecord, event: &JobEvent) -> Result<(), CliError> {
        if self.json {
            let line = json!({"job": job.id, "number": event.number, "event": event.kind.as_str(), "data": event.data});
            return print_json(&line);
        }
        let data = &event.data;
        match event.kind {
            EventKind::State => {
                let state = data["state"].as_str().unwrap_or_default();
                let why = data["error"]["message"].as_str();
                self.line(&match why {
                    Some(why) => format!("{}: {state}: {why}", job.title),
                    None => format!("{}: {state}", job.title),
                });
            }
            EventKind::Log => {
                let word = |name: &str| data[name].as_str().unwrap_or_default();
                self.line(&match word("level") {
                    "info" => word("message").to_owned(),
                    level => format!("{level}: {}", word("message")),
                });
            }
            EventKind::Progress => {
                if let Ok(progress) = serde_json::from_value::<Progress>(data.clone()) {
                    self.progress(&progress);
                }
            }
        }
        Ok(())
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn progress(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.step);
            bar.set_prefix(progress.phase.clone());
            bar.set_message(details(progress));
            return;
        }
        let is_new_phase = self.phase != progress.phase;
        let is_due = self
            .last_line
            .is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if is_new_phase || is_due || progress.step >= progress.total {
            self.phase.clone_from(&progress.phase);
            self.last_line = Some(Instant::now());
            eprintln!("{}", describe(progress));
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// As in `inverting 120/2000, 0:12 left, cross_entropy 0.031`.
pub fn describe(progress: &Progress) -> String {
    let Progress {
        phase, step, total, ..
    } = progress;
    match details(progress).as_str() {
        "" => format!("{phase} {step}/{total}"),
        details => format!("{phase} {step}/{total}, {details}"),
    }
}

fn details(progress: &Progress) -> String {
    let left = progress.eta_seconds.map(|seconds| {
        let seconds = seconds.round().clamp(0.0, 1e9) as u64;
        format!("{}:{:02} left", seconds / 60, seconds % 60)
    });
    let figures = progress
        .figures
        .iter()
        .map(|(name, value)| format!("{name} {value:.4}"));
    left.into_iter()
        .chain(figures)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Shows what the job `id` tells until it has ended, and gives it. What it told before is shown with `--json` only.
pub async fn follow(store: &Store, id: Uuid, display: &mut Display) -> Result<JobRecord, CliError> {
    let mut changes = store.watch_jobs();
    let mut seen = if display.json {
        0
    } else {
        store.last_job_event(id).await?
    };
    loop {
        changes.mark_unchanged();
        // Read before the events: a final state comes with its event.
        let job = store.job(id).await?;
        let events = store.job_events(id, seen, CHUNK).await?;
        for event in &events {
            seen = event.number;
            display.show(&job, event)?;
        }
        if events.is_empty() {
            if job.state.is_final() {
                return Ok(job);
            }
            // Only this process's changes are announced.
            let _ = tokio::time::timeout(LOOKED_FOR_EVERY, changes.changed()).await;
        }
    }
}
