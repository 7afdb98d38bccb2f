//! The table of all kinds of jobs: from a stored name to the code that does the work.

use super::{
    Evaluate, Invert, Job, JobContext, JobError, Planned, Recycle, RequestError, RequestParts,
    Services, Sort, Tune,
};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{JobRecord, NewJob};

/// The kinds of jobs that this program does.
pub fn product_kinds() -> Kinds {
    Kinds::default()
        .with::<Tune>()
        .with::<Invert>()
        .with::<Recycle>()
        .with::<Evaluate>()
        .with::<Sort>()
}

/// Kinds of jobs by name.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    entries: Vec<Kind>,
}

type Plan =
    for<'a> fn(RequestParts, &'a Services) -> BoxFuture<'a, Result<Vec<NewJob>, RequestError>>;

#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    runs_beside: bool,
    plan: Plan,
    run: fn(&JobRecord, &JobContext) -> Result<Value, JobError>,
}

impl Kinds {
    /// Adds a kind.
    #[must_use]
    pub fn with<J: Job>(mut self) -> Self {
        self.entries.push(Kind {
            name: J::KIND,
            runs_beside: J::RUNS_BESIDE,
            plan: |parts, services| {
                Box::pin(async move { plan::<J>(parts.into_request()?, services).await })
            },
            run: run::<J>,
        });
        self
    }

    /// Of all kinds, in the order in which they were added.
    pub fn names(&self) -> Vec<&'static str> {
        self.entries.iter().map(|kind| kind.name).collect()
    }

    /// Of the kinds that run beside others.
    pub(super) fn beside_others(&self) -> Vec<&'static str> {
        let beside = self.entries.iter().filter(|kind| kind.runs_beside);
        beside.map(|kind| kind.name).collect()
    }

    /// The jobs that a request for jobs of `kind` asks for.
    pub(super) async fn plan(
        &self,
        kind: &str,
        parts: RequestParts,
        services: &Services,
    ) -> Result<Vec<NewJob>, RequestError> {
        match self.find(kind) {
            Some(kind) => (kind.plan)(parts, services).await,
            None => Err(RequestError::UnknownKind {
                kind: kind.to_owned(),
                known: self.names(),
            }),
        }
    }

    /// Does the work of `job` on this thread.
    pub(super) fn run(&self, job: &JobRecord, context: &JobContext) -> Result<Value, JobError> {
        match self.find(&job.kind) {
            Some(kind) => (kind.run)(job, context),
            None => Err(JobError::abort(
                "unknown_kind",
                format!("this program does no jobs of the kind \"{}\"", job.kind),
            )
            .hint("use the version of the program that made the job")),
        }
    }

    fn find(&self, name: &str) -> Option<Kind> {
        self.entries.iter().copied().find(|kind| kind.name == name)
    }
}

/// The jobs that `request` asks for.
pub(super) async fn plan<J: Job>(
    request: J::Request,
    services: &Services,
) -> Result<Vec<NewJob>, RequestError> {
    let planned = J::plan(request, services).await?;
    // Digests of many pictures.
    tokio::task::spawn_blocking(move || planned.into_iter().map(new_job).collect())
        .await
        .map_err(|error| RequestError::Registry(error.into()))
}

pub(super) fn new_job<J: Job>(planned: Planned<J>) -> NewJob {
    let Planned {
        job,
        inputs,
        waits_for,
    } = planned;
    NewJob {
        kind: J::KIND.to_owned(),
        title: job.title(),
        recipe: json!(job),
        deduplication_key: job.deduplication_key(&inputs),
        priority: J::PRIORITY,
        most_attempts: J::MOST_ATTEMPTS,
        waits_for,
        inputs,
    }
}

fn run<J: Job>(job: &JobRecord, context: &JobContext) -> Result<Value, JobError> {
    let recipe: J = serde_json::from_value(job.recipe.clone()).map_err(|error| {
        JobError::abort(
            "recipe_unreadable",
            format!("the recipe of this job cannot be read: {error}"),
        )
        .hint("it was made by another version of the program; submit it again")
    })?;
    let outcome = recipe.run(context)?;
    serde_json::to_value(outcome)
        .map_err(|error| JobError::failure("result", format!("the result cannot be kept: {error}")))
}

/// What the finished `job`, which is of the kind `J`, gave; `None` where it gave nothing yet.
///
/// # Errors
/// Where another version of the program wrote it.
pub fn outcome<J: Job>(job: &JobRecord) -> Result<Option<J::Outcome>, serde_json::Error> {
    let result = job.result.as_ref();
    result.map(J::Outcome::deserialize).transpose()
}
