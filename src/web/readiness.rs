//! What a server needs to answer and to store, looked at again every few seconds while somebody asks. Each look has a deadline: one
//! that is stuck counts as failed and holds up nobody.

use crate::app::{App, AppError};
use crate::jobs::Jobs;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::StoreError;
use tokio::sync::Notify;
use utoipa::ToSchema;

/// How long a result is trusted: probes often asked for must not take computing time from requests.
const TRUSTED: Duration = Duration::from_secs(5);
/// A look that takes longer counts as failed until it ends.
const DEADLINE: Duration = Duration::from_secs(5);
/// Less free space than this is soon none.
const LEAST_FREE_BYTES: u64 = 64 << 20;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// The encoder answers.
    Encoder,
    /// The default adapter can be read and gives finite features.
    DefaultAdapter,
    /// The database can be written.
    Database,
    /// A file in the data folder can be written and synced.
    DataFolder,
    /// There is room on its disk.
    FreeSpace,
    /// Jobs are taken from the queue.
    Jobs,
}

impl CheckName {
    const ALL: [Self; 6] = [
        Self::Encoder,
        Self::DefaultAdapter,
        Self::Database,
        Self::DataFolder,
        Self::FreeSpace,
        Self::Jobs,
    ];

    /// Whether no question can be answered where it fails; else only changes and jobs suffer.
    fn is_needed_for_answers(self) -> bool {
        matches!(self, Self::Encoder | Self::DefaultAdapter)
    }
}

/// What came of one check.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckResult {
    name: CheckName,
    ok: bool,
    /// What was found.
    detail: String,
    /// How long it took.
    milliseconds: f64,
}

/// How ready the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Everything works.
    Ready,
    /// Questions are answered; something that changes or jobs need does not work.
    Degraded,
    /// Questions are not answered.
    NotReady,
}

/// All checks, with what they found last.
#[derive(Clone)]
pub struct Checks {
    app: Arc<App>,
    jobs: Option<Jobs>,
    looks: Arc<[Look; CheckName::ALL.len()]>,
}

#[derive(Default)]
struct Look {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    last: Option<(Instant, CheckResult)>,
    running_since: Option<Instant>,
}

impl Look {
    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic between two calls leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checks {
    pub fn new(app: Arc<App>) -> Self {
        Self {
            app,
            jobs: None,
            looks: Arc::default(),
        }
    }

    pub fn with_jobs(mut self, jobs: Jobs) -> Self {
        self.jobs = Some(jobs);
        self
    }

    /// What all checks found within the last seconds. Concurrent callers share a look.
    pub async fn all(&self) -> Vec<CheckResult> {
        let checks = CheckName::ALL.map(|name| self.one(name));
        futures_util::future::join_all(checks).await
    }

    async fn one(&self, name: CheckName) -> CheckResult {
        let place = name as usize;
        let ended = {
            let look = &self.looks[place];
            // Before the state is read, so that an end in between is not missed.
            let ended = look.ended.notified();
            let mut state = look.locked();
            if let Some((at, result)) = &state.last
                && at.elapsed() < TRUSTED
            {
                return result.clone();
            }
            match state.running_since {
                Some(since) if since.elapsed() >= DEADLINE => return stuck(name, since.elapsed()),
                Some(_) => {}
                None => {
                    state.running_since = Some(Instant::now());
                    self.begin(name);
                }
            }
            ended
        };
        if tokio::time::timeout(DEADLINE, ended).await.is_err() {
            return stuck(name, DEADLINE);
        }
        let last = self.looks[place].locked().last.clone();
        last.map_or_else(|| stuck(name, DEADLINE), |(_, result)| result)
    }

    fn begin(&self, name: CheckName) {
        let own = self.clone();
        tokio::spawn(async move {
            let started = Instant::now();
            let found = own.look(name).await;
            let result = CheckResult {
                name,
                ok: found.is_ok(),
                detail: found.unwrap_or_else(|problem| {
                    tracing::error!(check = ?name, problem, "a health check failed");
                    problem
                }),
                milliseconds: started.elapsed().as_secs_f64() * 1e3,
            };
            let look = &own.looks[name as usize];
            *look.locked() = State {
                last: Some((Instant::now(), result)),
                running_since: None,
            };
            look.ended.notify_waiters();
        });
    }

    /// What is fine, or what is wrong.
    async fn look(&self, name: CheckName) -> Result<String, String> {
        let words = |error: AppError| error.to_string();
        if name == CheckName::Encoder {
            self.app.probe().await.map_err(words)?;
            return Ok("a probe picture was encoded".into());
        }
        let Ok(registry) = self.app.registry() else {
            return Ok("there is no data folder".into());
        };
        let store = registry.store();
        let of_store = |error: StoreError| error.to_string();
        Ok(match name {
            CheckName::Encoder => String::new(),
            CheckName::DefaultAdapter => {
                let digest = self.app.backbone.digest.parse();
                let digest =
                    digest.map_err(|_| "the backbone's digest is no SHA-256".to_owned())?;
                match store.default_adapter(&digest).await.map_err(of_store)? {
                    None => "the bare backbone answers".into(),
                    Some(record) => {
                        self.app.check_adapter(&record).await.map_err(words)?;
                        format!("{} gives features", record.label())
                    }
                }
            }
            CheckName::Database => {
                store.probe_database().await.map_err(of_store)?;
                "a row was written".into()
            }
            CheckName::DataFolder => {
                store.probe_folder().await.map_err(of_store)?;
                "a file was written and synced".into()
            }
            CheckName::FreeSpace => match store.free_bytes().await.map_err(of_store)? {
                Some(free) if free < LEAST_FREE_BYTES => {
                    return Err(format!(
                        "{} MiB are free on the disk of the data folder; make room",
                        free >> 20
                    ));
                }
                Some(free) => format!("{} MiB are free", free >> 20),
                None => "it is not known here how much is free".into(),
            },
            CheckName::Jobs => match &self.jobs {
                None => "jobs are run elsewhere or not at all".into(),
                Some(jobs) => {
                    let oldest = store.oldest_queued_ms().await.map_err(of_store)?;
                    let waits = match oldest {
                        None => "no job waits".to_owned(),
                        Some(age_ms) => format!("the oldest job waits for {} s", age_ms / 1000),
                    };
                    if jobs.has_stopped() {
                        return Err(format!("no job is taken from the queue any more; {waits}"));
                    }
                    waits
                }
            },
        })
    }
}

fn stuck(name: CheckName, since: Duration) -> CheckResult {
    CheckResult {
        name,
        ok: false,
        detail: format!("no answer after {} s", since.as_secs()),
        milliseconds: since.as_secs_f64() * 1e3,
    }
}

/// What `results` come to, and the sentences of those that failed.
pub fn summary(results: &[CheckResult]) -> (Readiness, String) {
    let failed = || results.iter().filter(|own| !own.ok);
    let readiness = if failed().any(|own| own.name.is_needed_for_answers()) {
        Readiness::NotReady
    } else if failed().next().is_some() {
        Readiness::Degraded
    } else {
        Readiness::Ready
    };
    let sentences: Vec<&str> = failed().map(|own| own.detail.as_str()).collect();
    (readiness, sentences.join("; "))
}

/// The time that the encoder took.
pub fn probe_milliseconds(results: &[CheckResult]) -> f64 {
    let encoder = results.iter().find(|own| own.name == CheckName::Encoder);
    encoder.map_or(0.0, |own| own.milliseconds)
}
