//! A kind of job for tests: it counts, and where a test holds its gate, each step waits to be let on.

use lora_recycle::app::registry::{Registry, RegistryError};
use lora_recycle::base64_bytes::Base64Bytes;
use lora_recycle::jobs::{
    Job, JobContext, JobError, JobRequest, Jobs, Kinds, LabelledImage, Planned, RequestError,
    RunnerOptions, Services, all_pictures, by_class,
};
use recycle::steps::{StepReport, Steps};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;
use store::{
    Access, Digest, JobRecord, JobState, LogLevel, NewInput, NewPool, Retention, StoreError,
};
use test_support::store::when_free;
use uuid::Uuid;

/// How a [`Count`] ends when it has counted to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    #[default]
    Well,
    /// With a stored pool.
    WithPool,
    Aborts,
    Fails,
    Panics,
    TriesAgainAtOnce,
}

/// Adds the numbers from 1 to `to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    pub name: String,
    pub to: u64,
    #[serde(default)]
    pub end: End,
    /// Bytes that are in each checkpoint without need.
    #[serde(default)]
    pub ballast: usize,
}

/// What a request for counting says.
#[derive(Serialize, Deserialize)]
pub struct CountRequest {
    recipe: Count,
    copies: Option<u64>,
    #[serde(default)]
    waits_for: Vec<Uuid>,
    #[serde(default, with = "by_class")]
    pictures: Vec<LabelledImage>,
    archive: Option<Base64Bytes>,
}

impl JobRequest for CountRequest {
    fn pictures(&mut self) -> Option<&mut Vec<LabelledImage>> {
        Some(&mut self.pictures)
    }

    fn files(&mut self) -> Vec<(&'static str, &mut Option<Base64Bytes>)> {
        vec![("archive", &mut self.archive)]
    }
}

struct Gate {
    arrived: Sender<u64>,
    go_on: Mutex<Receiver<()>>,
}

static GATES: LazyLock<Mutex<HashMap<String, &'static Gate>>> = LazyLock::new(Mutex::default);

/// The test's end of a gate: each step tells its number and waits. Dropped, it lets all on.
pub struct Held {
    pub arrivals: Receiver<u64>,
    pub go_on: Sender<()>,
}

/// Holds the steps of all [`Count`]s called `name`.
pub fn hold(name: &str) -> Held {
    let (arrived, arrivals) = channel();
    let (let_on, go_on) = channel();
    let gate = Gate {
        arrived,
        go_on: Mutex::new(go_on),
    };
    GATES
        .lock()
        .unwrap()
        .insert(name.to_owned(), Box::leak(Box::new(gate)));
    Held {
        arrivals,
        go_on: let_on,
    }
}

impl Held {
    /// Waits for the next step to begin and gives its number.
    pub async fn arrival(&self) -> u64 {
        tokio::task::block_in_place(|| self.arrivals.recv_timeout(Duration::from_secs(60)))
            .expect("a step")
    }

    pub fn let_on(&self) {
        self.go_on.send(()).expect("a step that waits");
    }
}

struct Counting<'a> {
    recipe: &'a Count,
    done: u64,
    sum: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("counting failed")]
pub struct CountError;

impl From<CountError> for JobError {
    fn from(error: CountError) -> Self {
        Self::failure("count", error.to_string())
    }
}

impl Steps for Counting<'_> {
    type Error = CountError;

    fn is_done(&self) -> bool {
        self.done >= self.recipe.to
    }

    fn step(&mut self) -> Result<StepReport, CountError> {
        let gate = GATES.lock().unwrap().get(&self.recipe.name).copied();
        if let Some(gate) = gate
            && gate.arrived.send(self.done + 1).is_ok()
        {
            // An end without a word lets all on.
            let _ = gate.go_on.lock().unwrap().recv();
        }
        self.done += 1;
        self.sum += self.done;
        Ok(StepReport {
            phase: "counting",
            step: self.done,
            total: self.recipe.to,
            figures: vec![("sum", self.sum as f64)],
        })
    }

    fn state(&mut self) -> Result<Vec<u8>, CountError> {
        let mut state = [self.done.to_le_bytes(), self.sum.to_le_bytes()].concat();
        state.resize(16 + self.recipe.ballast, 0xa5);
        Ok(state)
    }
}

impl Job for Count {
    type Request = CountRequest;
    type Outcome = Value;

    const KIND: &'static str = "count";

    fn title(&self) -> String {
        format!("count {} to {}", self.name, self.to)
    }

    async fn plan(request: CountRequest, _: &Services) -> Result<Vec<Planned<Self>>, RequestError> {
        let CountRequest {
            recipe,
            copies,
            waits_for,
            pictures,
            archive,
        } = request;
        if recipe.to == 0 {
            return Err(RequestError::invalid(
                "recipe.to",
                "there is nothing to count",
            ));
        }
        let inputs: Vec<NewInput> = all_pictures(pictures, archive)
            .await?
            .iter()
            .map(|image| NewInput {
                role: "picture".into(),
                name: format!("{}/{}", image.class, image.file_name),
                bytes: image.bytes.clone(),
            })
            .collect();
        let planned = |to| Planned {
            job: Count {
                to,
                ..recipe.clone()
            },
            inputs: inputs.clone(),
            waits_for: waits_for.clone(),
        };
        Ok((0..copies.unwrap_or(1))
            .map(|copy| planned(recipe.to + copy))
            .collect())
    }

    fn run(&self, context: &JobContext) -> Result<Value, JobError> {
        let mut counting = Counting {
            recipe: self,
            done: 0,
            sum: 0,
        };
        if let Some(state) = context.load_checkpoint()? {
            let number = |at: usize| u64::from_le_bytes(state[at..at + 8].try_into().unwrap());
            (counting.done, counting.sum) = (number(0), number(8));
            context.log(LogLevel::Info, &format!("goes on after {}", counting.done))?;
        }
        let inputs = context.inputs()?;
        let mut bytes = 0;
        for input in &inputs {
            bytes += context.read_input(input)?.len();
        }
        context.drive_and(&mut counting, |counting| {
            context.preview(0, "sum", counting.sum.to_string().into_bytes());
            Ok(())
        })?;
        match self.end {
            End::Well => Ok(json!({"sum": counting.sum, "input_bytes": bytes})),
            End::WithPool => {
                let pool = context.block_on(context.store().create_pool(pool_of(&self.name)))?;
                Ok(json!({"pool": pool.id}))
            }
            End::Aborts => {
                Err(JobError::abort("numbers", "the numbers are wrong").hint("fix them"))
            }
            End::Fails => Err(JobError::failure("bad_luck", "bad luck")),
            End::Panics => panic!("a defect of the test"),
            End::TriesAgainAtOnce => Err(JobError::Retry(
                store::JobFault {
                    code: "not_yet".into(),
                    message: "not yet".into(),
                    hint: None,
                },
                Duration::ZERO,
            )),
        }
    }
}

/// A [`Count`] of a kind that runs beside others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CountAside(pub Count);

impl Job for CountAside {
    type Request = CountRequest;
    type Outcome = Value;

    const KIND: &'static str = "count-aside";
    const RUNS_BESIDE: bool = true;

    fn title(&self) -> String {
        self.0.title()
    }

    async fn plan(
        request: CountRequest,
        services: &Services,
    ) -> Result<Vec<Planned<Self>>, RequestError> {
        let planned = Count::plan(request, services).await?;
        let aside = |own: Planned<Count>| Planned {
            job: Self(own.job),
            inputs: own.inputs,
            waits_for: own.waits_for,
        };
        Ok(planned.into_iter().map(aside).collect())
    }

    fn run(&self, context: &JobContext) -> Result<Value, JobError> {
        self.0.run(context)
    }
}

/// A pool that only its name tells from others.
pub fn pool_of(name: &str) -> NewPool {
    NewPool {
        adapter_id: Uuid::nil(),
        adapter_label: format!("{name}:1"),
        adapter_digest: Digest::of(name.as_bytes()),
        backbone_digest: Digest::of(b"backbone"),
        recipe: json!({"steps": 3}),
        summary: json!({}),
        retention: Retention::Keep,
        files: vec![("images.safetensors".into(), name.as_bytes().to_vec())],
    }
}

pub fn count(name: &str, to: u64) -> Count {
    Count {
        name: name.into(),
        to,
        end: End::Well,
        ballast: 0,
    }
}

pub fn planned(job: Count) -> Planned<Count> {
    Planned {
        job,
        inputs: Vec::new(),
        waits_for: Vec::new(),
    }
}

pub fn options() -> RunnerOptions {
    RunnerOptions {
        threads: 1,
        retry_delay: Duration::ZERO,
        ..RunnerOptions::default()
    }
}

pub fn kinds() -> Kinds {
    Kinds::default().with::<Count>().with::<CountAside>()
}

/// The queue in `folder`, as a process finds it that starts there.
pub async fn open_jobs(folder: &Path) -> Jobs {
    open_jobs_with(folder, options()).await
}

pub async fn open_jobs_with(folder: &Path, options: RunnerOptions) -> Jobs {
    let open = async || Registry::open(folder, Access::Exclusive).await;
    let is_in_use =
        |error: &RegistryError| matches!(error, RegistryError::Store(StoreError::InUse { .. }));
    let registry = when_free(open, is_in_use).await;
    Jobs::new(Services::new(registry, None), kinds(), options)
}

pub async fn submit(jobs: &Jobs, job: Count) -> JobRecord {
    let submitted = jobs.submit(planned(job)).await.expect("submit");
    assert!(submitted.is_new);
    submitted.job
}

/// Runs the next job to its end.
pub async fn step(jobs: &Jobs) -> JobRecord {
    jobs.step(None).await.expect("step").expect("a job")
}

/// Waits until the job is in `state`.
pub async fn wait_for(jobs: &Jobs, id: Uuid, state: JobState) -> JobRecord {
    let mut changes = jobs.store().watch_jobs();
    loop {
        let job = jobs.store().job(id).await.expect("job");
        if job.state == state {
            return job;
        }
        assert!(!job.state.is_final(), "{job:?} instead of {state}");
        tokio::time::timeout(Duration::from_secs(60), changes.changed())
            .await
            .expect("a change")
            .expect("the store");
    }
}
