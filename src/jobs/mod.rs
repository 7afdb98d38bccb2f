//! Work that runs in the background: kinds of jobs, the queue's runner, checkpoints, progress. One file per kind of job.
//! Knows the store, the registry and `recycle`'s contract of long computations; knows no HTTP and no terminal.

mod context;
mod devices;
mod error;
mod evaluate;
mod evaluation;
mod failed_inversion;
mod invert;
mod kinds;
mod labelled;
mod made;
pub(crate) mod pictures;
pub mod pool;
mod previews;
mod progress;
mod real_images;
mod recycle;
mod request;
mod runner;
mod services;
mod sort;
mod thread;
mod tune;

pub use context::JobContext;
pub use devices::{Devices, JobDevice};
pub use error::JobError;
pub use evaluate::{Compared, Evaluate, EvaluateRequest, EvaluateResult};
pub use failed_inversion::FailedInversion;
pub use invert::{InversionRecipeRequest, Invert, InvertRequest, InvertResult};
pub use kinds::{Kinds, outcome, product_kinds};
pub use labelled::{ARCHIVE_LIMITS, all_pictures, labelled_images};
pub use previews::Preview;
pub use recycle::{
    Expected, Made, MetaTrainRecipeRequest, RecipeFile, Recycle, RecycleEstimate, RecycleFigures,
    RecycleOutcome, RecycleRequest, RecycleResult, Recycled,
};
pub use request::{
    ClassPictures, JobRequest, LONGEST_LABEL, LabelledImage, RequestError, RequestParts, by_class,
    class_label, sort_by_class,
};
pub use runner::{Jobs, RunnerOptions};
pub use services::Services;
pub use sort::{Sort, SortRequest, SortResult};
pub use tune::{Tune, TuneRecipeRequest, TuneRequest, TuneResult};

use crate::app::registry::RegistryError;
use model::backbone::Backbone;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{Digest, NewInput};
use uuid::Uuid;

/// A kind of job. Its fields are its recipe: all that decides the result, besides its inputs. It must be idempotent, since it may
/// run again after it was interrupted at any moment.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// What a request for such jobs says.
    type Request: JobRequest;
    /// What a run gives. Its JSON is stored with the job: `adapter_id` and `pool` in it are how a result that was deleted is known.
    type Outcome: Serialize + DeserializeOwned;

    /// Stable name, as stored and shown.
    const KIND: &'static str;
    /// Larger comes first.
    const PRIORITY: i32 = 0;
    /// Whether such jobs run beside those of other kinds, one at a time: they wait for the encoder that answers requests and compute little themselves.
    const RUNS_BESIDE: bool = false;
    /// Runs that may end in [`JobError::Failure`] or [`JobError::Retry`].
    const MOST_ATTEMPTS: u32 = 3;

    /// For people, one line.
    fn title(&self) -> String;

    /// Jobs of this kind with the same key do the same work, and only one of them is done.
    fn deduplication_key(&self, inputs: &[NewInput]) -> Digest {
        let mut text = format!("{}\n{}\n", Self::KIND, serde_json::json!(self));
        for input in inputs {
            let line = serde_json::json!([Digest::of(&input.bytes), input.role, input.name]);
            text += &format!("{line}\n");
        }
        Digest::of(text.as_bytes())
    }

    /// The jobs that `request` asks for, one or several; whatever is wrong with it is said now, not when they run.
    ///
    /// # Errors
    /// [`RequestError`]
    fn plan(
        request: Self::Request,
        services: &Services,
    ) -> impl Future<Output = Result<Vec<Planned<Self>>, RequestError>> + Send;

    /// Does the work on a separate thread and gives what was made. [`JobContext::drive`] is the loop to use.
    ///
    /// # Errors
    /// [`JobError`]; its variant decides whether the job is tried again.
    fn run(&self, context: &JobContext) -> Result<Self::Outcome, JobError>;
}

/// A job that is about to be queued.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned<J> {
    /// The recipe.
    pub job: J,
    /// Kept until the job has succeeded or was cancelled.
    pub inputs: Vec<NewInput>,
    /// Jobs that must succeed first.
    pub waits_for: Vec<Uuid>,
}

fn backbone_digest(backbone: &Backbone) -> Result<Digest, RegistryError> {
    let digest = backbone.digest.parse();
    digest.map_err(|error| RegistryError::Damaged(format!("the backbone's digest: {error}")))
}
