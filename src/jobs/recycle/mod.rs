//! Recycling as a job: from adapters with their heads to one meta-LoRA in the registry. The images that it still needs are made by
//! inversion jobs that it waits for.

mod checkpoint;
mod estimate;
mod outcome;
mod plan;
mod recipe_file;
mod request;

pub use outcome::{Made, RecycleEstimate, RecycleFigures, RecycleOutcome, RecycleResult};
pub use recipe_file::{Ingredient, Named, RecipeFile};
pub use request::{MetaTrainRecipeRequest, RecycleRequest};

use super::evaluation::{self, resuming_after};
use super::made::made_before;
use super::pictures::{PICTURES, VALIDATION, read_pictures};
use super::{FailedInversion, Job, JobContext, JobError, Planned, RequestError, Services};
use crate::app::evaluation::{
    Evaluation, EvaluationRecipe, EvaluationReport, MethodRun, UnregisteredAdapter,
};
use checkpoint::Checkpoint;
use model::adapter::Adapter;
use outcome::RecycleLineage;
use recipe_file::pool_digest;
use recycle::inversion::InversionRecipe;
use recycle::meta_train::{
    Keep, Member, MetaTrainError, MetaTrainOutcome, MetaTrainRecipe, MetaTraining,
};
use recycle::pool::preview;
use recycle::steps::Steps;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{
    AdapterRecord, Digest, Lineage, LogLevel, Name, Parent, PoolRecord, Retention, StoreError,
};
use utoipa::ToSchema;
use uuid::Uuid;

/// Time between two looks at the tasks of a running job.
const PREVIEW_EVERY: Duration = Duration::from_secs(2);

/// Makes one meta-LoRA of several adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RecycleJob)]
pub struct Recycle {
    /// The meta-LoRA becomes its next version.
    pub name: Name,
    /// Of the backbone that all adapters change.
    pub backbone_digest: Digest,
    /// In the order in which they are summed.
    pub adapters: Vec<Recycled>,
    /// How long the images that are made for it are kept.
    pub retention: Retention,
    /// How those images are made.
    pub inversion: InversionRecipe,
    /// How the meta-LoRA is learned.
    pub meta_training: MetaTrainRecipe,
    /// Of the pictures that the best state is chosen on; held-out synthetic images where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Digest>,
    /// How the meta-LoRA is measured, where there are pictures for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationRecipe>,
    /// Pictures for both which could not be used, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What a recipe file says that should come out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// Whether it learns also from images that did not come out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_failed_images: bool,
    /// Only measures what it would cost. A new id each time: the machine may have more to do than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<Uuid>,
}

/// One of the adapters, with the key of its images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RecycledAdapter)]
pub struct Recycled {
    /// `name:version`
    pub adapter: String,
    /// Of the adapter.
    pub adapter_id: Uuid,
    /// Of the adapter's files.
    pub adapter_digest: Digest,
    /// Under which the images are found.
    pub pool_key: Digest,
}

/// The result of an earlier run that this one repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ExpectedMetaLora)]
pub struct Expected {
    /// Over the LoRA matrices.
    pub digest: String,
    /// That it was computed on.
    pub threads: usize,
}

impl Job for Recycle {
    type Request = RecycleRequest;
    type Outcome = RecycleOutcome;

    const KIND: &'static str = "recycle";

    fn title(&self) -> String {
        let verb = match self.dry_run {
            Some(_) => "Estimate recycling",
            None => "Recycle",
        };
        match &self.adapters[..] {
            [only] => format!("{verb} {} into {}", only.adapter, self.name),
            several => format!("{verb} {} adapters into {}", several.len(), self.name),
        }
    }

    async fn plan(
        request: RecycleRequest,
        services: &Services,
    ) -> Result<Vec<Planned<Self>>, RequestError> {
        plan::plan(request, services).await
    }

    fn run(&self, context: &JobContext) -> Result<RecycleOutcome, JobError> {
        if self.dry_run.is_some() {
            return estimate::estimate(self, context).map(RecycleOutcome::Estimated);
        }
        let made =
            |record: &AdapterRecord| Ok(RecycleOutcome::Made(Box::new(RecycleResult::of(record))));
        if let Some(record) = made_before(context, &self.name)? {
            self.delete_used_pools(context)?;
            return made(&record);
        }
        let pools = self.pools(context)?;
        self.check_images(context, &pools)?;
        let (outcome, done) = self.train(context, &pools)?;
        let report = self.evaluate(context, &outcome, done)?;
        let record = self.store(context, &pools, &outcome, report)?;
        self.delete_used_pools(context)?;
        made(&record)
    }
}

impl Recycle {
    fn pools(&self, context: &JobContext) -> Result<Vec<PoolRecord>, JobError> {
        let find = |recycled: &Recycled| {
            let found = context.block_on(context.store().find_pool(&recycled.pool_key))?;
            found.ok_or_else(|| {
                JobError::abort(
                    "pool_gone",
                    format!("the images of {} are no longer there", recycled.adapter),
                )
                .hint("ask for the same again, as a new job: they are made again")
            })
        };
        self.adapters.iter().map(find).collect()
    }

    /// Refuses images that did not come out, or says in the log that they are used.
    fn check_images(&self, context: &JobContext, pools: &[PoolRecord]) -> Result<(), JobError> {
        let failed: Vec<FailedInversion> = pools.iter().filter_map(FailedInversion::of).collect();
        match FailedInversion::refusal(&failed) {
            // What is made again from a recipe file was made from such images.
            Some(_) if self.use_failed_images || self.expected.is_some() => {
                let log = |own: &FailedInversion| {
                    context.log(LogLevel::Warning, &format!("{own}; they are used anyway"))
                };
                failed.iter().try_for_each(log)
            }
            Some(fault) => Err(JobError::Abort(fault)),
            None => Ok(()),
        }
    }

    fn members(&self, context: &JobContext, pools: &[PoolRecord]) -> Result<Vec<Member>, JobError> {
        let registry = context.services().registry();
        let mut members = Vec::with_capacity(pools.len());
        for (recycled, pool) in self.adapters.iter().zip(pools) {
            context.interrupted()?;
            let pool = context.block_on(registry.read_pool(pool));
            let pool = pool.map_err(|error| {
                JobError::abort("pool_damaged", format!("{}: {error}", recycled.adapter))
                    .hint("delete the pool and ask for the same again: its images are made again")
            })?;
            let adapter = context.block_on(async {
                let record = registry.resolve(&recycled.adapter_id.to_string()).await?;
                registry.load(&record).await
            })?;
            members.push(Member {
                label: recycled.adapter.clone(),
                adapter,
                pool,
            });
        }
        Ok(members)
    }

    /// What meta-training gives, and where an evaluation after it begins.
    fn train(
        &self,
        context: &JobContext,
        pools: &[PoolRecord],
    ) -> Result<(MetaTrainOutcome, Checkpoint), JobError> {
        let services = context.services();
        let backbone = context.block_on(services.backbone(&self.backbone_digest))?;
        let members = self.members(context, pools)?;
        let options = context.session_options(self.meta_training.arithmetic)?;
        let recipe = self.meta_training.clone();
        let mut finished = Vec::new();
        let mut training = match context.load_checkpoint()? {
            Some(stored) => {
                context.log(LogLevel::Info, "resuming from the last checkpoint")?;
                let checkpoint = Checkpoint::of(stored);
                finished = checkpoint.finished;
                MetaTraining::resume(&backbone, members, recipe, options, &checkpoint.state)?
            }
            None => {
                for sentence in &self.left_out {
                    context.log(LogLevel::Warning, sentence)?;
                }
                MetaTraining::new(&backbone, members, recipe, options)?
            }
        };
        if self.validation.is_some() {
            training = training.validated_on(read_pictures(context, VALIDATION)?)?;
        }
        let mut shown: Option<Instant> = None;
        context.drive_and(&mut training, |training| {
            if shown.is_none_or(|shown| shown.elapsed() >= PREVIEW_EVERY) {
                show(context, training)?;
                shown = Some(Instant::now());
            }
            Ok(())
        })?;
        let outcome = training.outcome().ok_or_else(|| {
            JobError::failure(
                "recycle",
                "meta-training ended without a result, which is a defect",
            )
        })?;
        let state = training.state()?;
        Ok((outcome, Checkpoint { state, finished }))
    }

    /// What the meta-LoRA is worth beside the bare backbone and merges of the same adapters; `done` is what comes before.
    fn evaluate(
        &self,
        context: &JobContext,
        outcome: &MetaTrainOutcome,
        done: Checkpoint,
    ) -> Result<Option<EvaluationReport>, JobError> {
        let chosen = outcome.chosen(self.meta_training.keep).clone();
        let Some(mut request) = self.evaluation_of(chosen, context) else {
            return Ok(None);
        };
        let Checkpoint { state, finished } = done;
        if !finished.is_empty() {
            context.log(LogLevel::Info, &resuming_after(&finished))?;
        }
        request.finished = finished;
        let images = read_pictures(context, PICTURES)?;
        let keep = |finished: &[MethodRun]| {
            context.save_checkpoint(&Checkpoint::to_store(&state, finished)?)
        };
        keep(&request.finished)?;
        evaluation::evaluate(context, &self.backbone_digest, &images, &request, keep).map(Some)
    }

    /// The evaluation of `adapter` beside merges of those that are recycled; `None` where none is wanted.
    fn evaluation_of(&self, adapter: Adapter, context: &JobContext) -> Option<Evaluation> {
        let pool = self.adapters.iter();
        self.evaluation.as_ref().map(|recipe| Evaluation {
            recipe: recipe.clone(),
            candidates: vec![UnregisteredAdapter {
                label: self.name.to_string(),
                adapter: Arc::new(adapter),
            }],
            pool: pool.map(|own| own.adapter_id.to_string()).collect(),
            threads: context.threads(),
            ..Evaluation::default()
        })
    }

    /// Stores the state that the recipe chooses, and beside it the other one where it differs.
    fn store(
        &self,
        context: &JobContext,
        pools: &[PoolRecord],
        outcome: &MetaTrainOutcome,
        report: Option<EvaluationReport>,
    ) -> Result<AdapterRecord, JobError> {
        let keep = self.meta_training.keep;
        let chosen = outcome.chosen(keep);
        let digest = chosen.digest();
        let is_as_expected = self
            .expected
            .as_ref()
            .map(|expected| expected.digest == digest);
        if is_as_expected == Some(false) {
            context.log(LogLevel::Warning, &self.why_different(context.threads()))?;
        }
        let other = self.store_other(context, outcome)?;
        let file = self.recipe_file(context, pools, digest)?;
        let lineage = RecycleLineage {
            operation: Self::KIND,
            job: context.id(),
            made: Made {
                other_adapter: other.map(|other| other.label()),
                pools: Some(pools.iter().map(|pool| pool.id).collect()),
                figures: Some(RecycleFigures::of(outcome, keep, report)),
                is_as_expected,
                recipe_file: Some(file),
            },
        };
        self.store_adapter(context, chosen, &self.name, json!(lineage))
    }

    fn why_different(&self, threads: usize) -> String {
        match &self.expected {
            Some(expected) if expected.threads != threads => format!(
                "the result is not that of the recipe file: that was computed on {} threads, this on {threads}",
                expected.threads
            ),
            _ => "the result is not that of the recipe file: its program or its machine computed differently".into(),
        }
    }

    /// The state that the recipe does not choose, called `name-last` or `name-best`.
    fn store_other(
        &self,
        context: &JobContext,
        outcome: &MetaTrainOutcome,
    ) -> Result<Option<AdapterRecord>, JobError> {
        let Some(best) = outcome.best.as_ref().filter(|best| **best != outcome.last) else {
            return Ok(None);
        };
        let (word, adapter) = match self.meta_training.keep {
            Keep::Last => ("best", best),
            Keep::BestValidated => ("last", &outcome.last),
        };
        let Ok(name) = format!("{}-{word}", self.name).parse::<Name>() else {
            let sentence = format!("the {word} state is not stored: its name would be too long");
            context.log(LogLevel::Warning, &sentence)?;
            return Ok(None);
        };
        if let Some(made) = made_before(context, &name)? {
            return Ok(Some(made));
        }
        let recipe = json!({
            "operation": Self::KIND,
            "job": context.id(),
            "state": word,
            "beside": self.name,
        });
        self.store_adapter(context, adapter, &name, recipe)
            .map(Some)
    }

    fn store_adapter(
        &self,
        context: &JobContext,
        adapter: &Adapter,
        name: &Name,
        recipe: Value,
    ) -> Result<AdapterRecord, JobError> {
        let parents = self.adapters.iter().map(|recycled| Parent {
            id: recycled.adapter_id,
            label: recycled.adapter.clone(),
            digest: recycled.adapter_digest.clone(),
        });
        let lineage = Lineage {
            parents: parents.collect(),
            recipe: Some(recipe),
        };
        let registry = context.services().registry();
        Ok(context.block_on(async {
            let candidate = registry
                .candidate_of_backbone(&self.backbone_digest)
                .await?;
            registry
                .store_made(adapter.clone(), name.clone(), candidate, lineage)
                .await
        })?)
    }

    fn recipe_file(
        &self,
        context: &JobContext,
        pools: &[PoolRecord],
        digest: String,
    ) -> Result<RecipeFile, JobError> {
        let registry = context.services().registry();
        let backbone = context.block_on(registry.candidate_of_backbone(&self.backbone_digest))?;
        let (format, version, program_version) = RecipeFile::format();
        let adapters = self.adapters.iter().zip(pools);
        Ok(RecipeFile {
            format,
            version,
            program_version,
            name: self.name.clone(),
            threads: context.threads(),
            backbone: Named {
                name: backbone.name,
                digest: self.backbone_digest.clone(),
            },
            adapters: adapters
                .map(|(recycled, pool)| Ingredient {
                    adapter: recycled.adapter.clone(),
                    digest: recycled.adapter_digest.clone(),
                    pool_digest: pool_digest(pool),
                })
                .collect(),
            inversion: self.inversion.clone(),
            meta_training: self.meta_training.clone(),
            validation: self.validation.clone(),
            digest,
        })
    }

    /// Deletes the images that were to be kept until now.
    fn delete_used_pools(&self, context: &JobContext) -> Result<(), JobError> {
        for recycled in &self.adapters {
            let pool = context.block_on(context.store().find_pool(&recycled.pool_key))?;
            let Some(pool) = pool.filter(|own| own.retention == Retention::AfterMetaTraining)
            else {
                continue;
            };
            match context.block_on(context.store().delete_pool(pool.id)) {
                Ok(_) | Err(StoreError::UnknownPool(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Shows the images of the newest task.
fn show(context: &JobContext, training: &MetaTraining) -> Result<(), JobError> {
    for (index, image) in training.newest_task().into_iter().enumerate() {
        let png = preview(image.levels, image.side)
            .map_err(|error| JobError::failure("preview", error.to_string()))?;
        let part = if image.is_support { "support" } else { "query" };
        let label = format!("{part}: {} of {}", image.class, image.adapter);
        context.preview(index, &label, png);
    }
    Ok(())
}

impl From<MetaTrainError> for JobError {
    fn from(error: MetaTrainError) -> Self {
        let message = error.to_string();
        match error {
            MetaTrainError::Recipe(_)
            | MetaTrainError::NoMembers
            | MetaTrainError::OtherBackbone { .. }
            | MetaTrainError::OtherShape { .. }
            | MetaTrainError::ImageSize { .. }
            | MetaTrainError::TooFewImages
            | MetaTrainError::TooFewHeldOut
            | MetaTrainError::NothingMixed
            | MetaTrainError::NothingToSum
            | MetaTrainError::NoHead { .. }
            | MetaTrainError::RealTasks(_)
            | MetaTrainError::Merge(_) => Self::abort("recipe", message),
            MetaTrainError::Diverged(_) => Self::abort("diverged", message)
                .hint("submit it again with a smaller learning_rate"),
            MetaTrainError::State(_) => {
                Self::abort("checkpoint", message).hint("submit it again, as a new job")
            }
            MetaTrainError::Operation(error) => Self::engine(&error),
        }
    }
}
