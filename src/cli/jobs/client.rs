//! Changing the queue from the command line: alone, with the lock on the data folder, or through the server that holds it.

use super::watch::{Display, follow};
use super::{advise, failed, print_end};
use crate::app::registry::{Registry, RegistryError};
use crate::cli::CliError;
use crate::cli::images::zip_of;
use crate::cli::job_device::refused;
use crate::cli::options::Common;
use crate::jobs::{Job, Jobs, RequestParts, RunnerOptions, Services, product_kinds};
use crate::web::{Problem, StartedJobs};
use reqwest::multipart::{Form, Part};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use store::{Access, JobRecord, ServerFile, Store, StoreError};
use uuid::Uuid;

/// What to do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Cancel,
    Retry,
}

/// The queue, in whichever way it can be reached.
pub enum Client {
    /// This process holds the lock and runs jobs itself.
    Alone(Jobs),
    /// A server holds the lock; reading bypasses it.
    Server { store: Store, base: String },
}

/// Queues what `request` asks for and follows it to its end: in this process where no other holds the data folder, else in the
/// server that does. The jobs have all succeeded when this returns.
///
/// # Errors
/// Where the request is wrong, a job did not succeed, or the user interrupted.
pub fn submit_and_watch<J: Job>(
    common: &Common,
    request: J::Request,
    options: RunnerOptions,
) -> Result<Vec<JobRecord>, CliError> {
    crate::cli::options::block_on(async {
        let client = Client::open(common, options).await?;
        let ids = client.submit::<J>(request).await?;
        let jobs = client.watch(common, &ids).await?;
        jobs.iter().try_for_each(|job| print_end(common, job))?;
        jobs.iter().for_each(advise);
        failed(&jobs)?;
        Ok(jobs)
    })?
}

/// The server that holds the data folder as process `holder`: the store for reading, and the address of its interface.
///
/// # Errors
/// That process is not a server.
pub async fn beside(folder: &Path, holder: Option<u32>) -> Result<(Store, String), CliError> {
    let Some(server) = ServerFile::read(folder, holder) else {
        let folder = folder.to_path_buf();
        let error = StoreError::InUse { folder, holder };
        return Err(CliError::user(error.to_string())
            .hint("that process is not a server that could do this; wait until it is done"));
    };
    let base = format!("http://{}/api/v1", reachable(server.address));
    Ok((Store::open(folder, Access::Shared).await?, base))
}

/// Whether no process holds the data folder.
pub async fn is_free(common: &Common) -> Result<bool, CliError> {
    match Store::open(&common.data_folder()?, Access::Exclusive).await {
        Ok(store) => {
            store.close().await;
            Ok(true)
        }
        Err(StoreError::InUse { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Client {
    /// Takes the lock, or finds the server that holds it.
    pub async fn open(common: &Common, options: RunnerOptions) -> Result<Self, CliError> {
        match common.open_registry().await? {
            Ok(registry) => alone(registry, options).map(Self::Alone),
            Err(RegistryError::Store(StoreError::InUse { holder, .. })) => {
                let (store, base) = beside(&common.data_folder()?, holder).await?;
                Ok(Self::Server { store, base })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the lock.
    pub async fn alone(common: &Common, options: RunnerOptions) -> Result<Self, CliError> {
        match common.open_registry().await? {
            Ok(registry) => alone(registry, options).map(Self::Alone),
            Err(error @ RegistryError::Store(StoreError::InUse { .. })) => Err(CliError::user(
                error.to_string(),
            )
            .hint("a server runs queued jobs by itself; `lora-recycle jobs list` shows them")),
            Err(error) => Err(error.into()),
        }
    }

    pub fn store(&self) -> &Store {
        match self {
            Self::Alone(jobs) => jobs.store(),
            Self::Server { store, .. } => store,
        }
    }

    async fn submit<J: Job>(&self, request: J::Request) -> Result<Vec<Uuid>, CliError> {
        match self {
            Self::Alone(jobs) => {
                let submitted = jobs.request::<J>(request).await?;
                Ok(submitted.iter().map(|one| one.job.id).collect())
            }
            Self::Server { base, .. } => {
                let address = format!("{base}/jobs/{}", J::KIND);
                let post = reqwest::Client::new().post(address);
                let parts = RequestParts::of(request)?;
                let post = if parts.pictures.is_empty() && parts.files.is_empty() {
                    post.json(&parts.fields)
                } else {
                    post.multipart(form(parts)?)
                };
                let answer: StartedJobs = send(post).await?;
                Ok(answer.jobs.iter().map(|job| job.id).collect())
            }
        }
    }

    pub async fn change(&self, id: Uuid, change: Change) -> Result<JobRecord, CliError> {
        match self {
            Self::Alone(jobs) => Ok(match change {
                Change::Cancel => jobs.cancel(id).await?,
                Change::Retry => jobs.retry(id).await?,
            }),
            Self::Server { store, base } => {
                let word = match change {
                    Change::Cancel => "cancel",
                    Change::Retry => "retry",
                };
                let address = format!("{base}/jobs/{id}/{word}");
                let _: crate::web::Job = send(reqwest::Client::new().post(address)).await?;
                Ok(store.job(id).await?)
            }
        }
    }

    /// Follows jobs until all have ended; where this process is alone, it runs them, and what they wait for.
    ///
    /// # Errors
    /// Where the user interrupted: jobs that run here keep a checkpoint and stay queued, those of a server continue.
    pub async fn watch(&self, common: &Common, ids: &[Uuid]) -> Result<Vec<JobRecord>, CliError> {
        let all = with_earlier(self.store(), ids).await?;
        let runner = match self {
            Self::Alone(jobs) => {
                let (jobs, all) = (jobs.clone(), all.clone());
                Some(tokio::spawn(async move { jobs.run_only(&all).await }))
            }
            Self::Server { .. } => None,
        };
        let mut display = Display::new(common);
        let followed = async {
            let mut ended = Vec::with_capacity(ids.len());
            for &id in &all {
                let job = follow(self.store(), id, &mut display).await?;
                if ids.contains(&id) {
                    ended.push(job);
                }
            }
            Ok::<_, CliError>(ended)
        };
        let ended = tokio::select! {
            ended = followed => Some(ended?),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| CliError::internal(format!("signals cannot be received: {error}")))?;
                None
            }
        };
        if let (Self::Alone(jobs), Some(runner)) = (self, runner) {
            if ended.is_none() {
                eprintln!(
                    "interrupted: the job writes a checkpoint; interrupt again to end at once"
                );
            }
            jobs.stop();
            tokio::select! {
                _ = runner => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            jobs.store().clone().close().await;
        }
        let interrupted = |hint: String| CliError::user("interrupted").hint(hint);
        let id = ids.first().map_or_else(String::new, Uuid::to_string);
        match (ended, self) {
            (Some(ended), _) => Ok(ended),
            (None, Self::Alone(_)) => Err(interrupted(format!(
                "the job is queued and resumes from where it was: give the same command again, `lora-recycle jobs run {id}`, \
                 or `lora-recycle serve`"
            ))),
            (None, Self::Server { .. }) => Err(interrupted(format!(
                "the server continues the job: `lora-recycle jobs watch {id}` follows it, `jobs cancel {id}` ends it"
            ))),
        }
    }
}

fn alone(registry: Registry, options: RunnerOptions) -> Result<Jobs, CliError> {
    let jobs = Jobs::new(Services::new(registry, None), product_kinds(), options);
    check_device(&jobs)?;
    Ok(jobs)
}

/// Whether there is the device that jobs are to be computed on.
///
/// # Errors
/// What is missing, and how to get it.
pub fn check_device(jobs: &Jobs) -> Result<(), CliError> {
    let checked = jobs.services().devices().check();
    checked.map_err(|error| refused(&error))
}

/// `ids` and all that they wait for; what is waited for comes first.
async fn with_earlier(store: &Store, ids: &[Uuid]) -> Result<Vec<Uuid>, CliError> {
    let mut earlier: Vec<Uuid> = Vec::new();
    let mut next = ids.to_vec();
    while let Some(id) = next.pop() {
        for id in store.job(id).await?.waits_for {
            if !ids.contains(&id) && !earlier.contains(&id) {
                earlier.push(id);
                next.push(id);
            }
        }
    }
    // Ids are in the order in which jobs were made, and no job waits for a later one.
    earlier.sort_unstable();
    earlier.extend(ids);
    Ok(earlier)
}

/// Where a client on this machine reaches a server that listens on `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn form(parts: RequestParts) -> Result<Form, CliError> {
    let mut form = Form::new().percent_encode_noop();
    if !parts.pictures.is_empty() {
        let archive = zip_of(parts.pictures)?;
        form = form.part("archive", Part::bytes(archive).file_name("pictures.zip"));
    }
    for (name, bytes) in parts.files {
        let part = Part::bytes(bytes).file_name(name.clone());
        form = form.part(name, part);
    }
    for (name, value) in parts.fields {
        form = form.text(
            name,
            match value {
                Value::String(text) => text,
                other => other.to_string(),
            },
        );
    }
    Ok(form)
}

/// What the server answers.
///
/// # Errors
/// What it refuses, in its words; that it does not answer.
pub async fn send<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, CliError> {
    let body = receive(request).await?;
    serde_json::from_slice(&body).map_err(unexpected)
}

fn unexpected(error: serde_json::Error) -> CliError {
    CliError::internal(format!("the server's answer cannot be read: {error}"))
}

/// The body that the server answers with.
///
/// # Errors
/// As [`send`].
pub async fn receive(request: reqwest::RequestBuilder) -> Result<Vec<u8>, CliError> {
    let lost = |error: reqwest::Error| {
        CliError::user(format!(
            "the server that holds the data folder does not answer: {error}"
        ))
        .hint("see its log; it may be stopping")
    };
    let response = request.send().await.map_err(lost)?;
    let is_success = response.status().is_success();
    let body = response.bytes().await.map_err(lost)?;
    if is_success {
        return Ok(body.into());
    }
    let problem: Problem = serde_json::from_slice(&body).map_err(unexpected)?;
    let error = CliError::user(problem.detail);
    Err(match problem.hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_on_this_machine() {
        for (listens, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.168.0.2:80", "192.168.0.2:80"),
        ] {
            let address = reachable(listens.parse().expect(listens));
            assert_eq!(address.to_string(), reached);
        }
    }
}
