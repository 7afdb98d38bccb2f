//! The table of all kinds of jobs: from a stored name to the code that does the work.

use super::{
    Evaluate, Invert, Job, JobContext, JobError, JobRequest, Planned, Recycle, RequestError,
    Services, Tune,
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use store::{JobRecord, NewJob};

/// The kinds of jobs that this program does.
pub fn product_kinds() -> Kinds {
    Kinds::default()
        .with::<Tune>()
        .with::<Invert>()
        .with::<Recycle>()
        .with::<Evaluate>()
}

/// Kinds of jobs by name.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    entries: Vec<Kind>,
}

type Plan =
    for<'a> fn(JobRequest, &'a Services) -> BoxFuture<'a, Result<Vec<NewJob>, RequestError>>;

#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    plan: Plan,
    run: fn(&JobRecord, &JobContext) -> Result<Value, JobError>,
}

impl Kinds {
    /// Adds a kind.
    #[must_use]
    pub fn with<J: Job>(mut self) -> Self {
        self.entries.push(Kind {
            name: J::KIND,
            plan: |request, services| Box::pin(plan::<J>(request, services)),
            run: run::<J>,
        });
        self
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.entries.iter().map(|kind| kind.name).collect()
    }

    /// The jobs that `request` asks for.
    pub(super) async fn plan(
        &self,
        request: JobRequest,
        services: &Services,
    ) -> Result<Vec<NewJob>, RequestError> {
        match self.find(&request.kind) {
            Some(kind) => (kind.plan)(request, services).await,
            None => Err(RequestError::UnknownKind {
                kind: request.kind,
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

async fn plan<J: Job>(
    request: JobRequest,
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
        .hint("it was made by another version of the program; submit it anew")
    })?;
    recipe.run(context)
}
