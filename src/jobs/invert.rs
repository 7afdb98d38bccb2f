//! Inversion as a job: from an adapter with its head to a pool of synthetic images.

use super::pictures::read_pictures;
use super::pool::{PoolSummary, stored_files};
use super::real_images::{REAL, RealImages, of_classes};
use super::{
    FailedInversion, Job, JobContext, JobError, JobRequest, Planned, RequestError, Services,
};
use crate::app::registry::check_backbone;
use crate::base64_bytes::Base64Bytes;
use engine::loss::TokenStatistics;
use engine::resnet::ResNet;
use model::backbone::{EMBEDDED_DIGEST, EMBEDDED_TOKEN_STATISTICS};
use recycle::inversion::{Inversion, InversionError, InversionRecipe, PriorData, class_label};
use recycle::over_preset::OverPreset;
use recycle::pool::{Pool, Provenance, preview};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};
use store::{
    AdapterRecord, Digest, JobFault, JobInput, LogLevel, NewInput, NewPool, PoolRecord, Retention,
    pool_key,
};
use utoipa::ToSchema;
use uuid::Uuid;

/// Time between two looks at the images of a running job.
const PREVIEW_EVERY: Duration = Duration::from_secs(2);

/// Parts of a request that are files of priors, and roles of the job's inputs.
pub(super) const BATCH_NORM: &str = "batch_norm";
pub(super) const TOKEN_STATISTICS: &str = "token_statistics";

/// Makes the pool of one adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = InvertJob)]
pub struct Invert {
    /// `name:version`
    pub adapter: String,
    /// Of the adapter.
    pub adapter_id: Uuid,
    /// Of the adapter's files.
    pub adapter_digest: Digest,
    /// Of the adapter's backbone.
    pub backbone_digest: Digest,
    /// How long the images are kept.
    pub retention: Retention,
    /// With the digests of the priors' files.
    pub recipe: InversionRecipe,
}

/// Which adapters to make synthetic images of, and how.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvertRequest {
    /// One adapter, beside or in place of `adapters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Adapters with a head, one job each: name, name:version, name@alias or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<String>,
    /// How long the images are kept.
    #[serde(default)]
    #[schema(default = "keep")]
    pub retention: Retention,
    /// How the images are made; every field may be left out.
    #[serde(default)]
    pub recipe: InversionRecipeRequest,
    /// Jobs that must succeed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Uuid>,
    /// A ResNet in torchvision's layout (safetensors), whose BatchNorm statistics are a prior.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub batch_norm: Option<Base64Bytes>,
    /// A file that `prior build` made; left out, that of the embedded backbone where it is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub token_statistics: Option<Base64Bytes>,
    /// A zip of real pictures of the classes of the adapters, one folder per class, that stand in for synthetic images, as a control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub real: Option<Base64Bytes>,
}

/// The recipe of an [`InvertRequest`].
pub type InversionRecipeRequest = OverPreset<InversionRecipe>;

impl JobRequest for InvertRequest {
    fn files(&mut self) -> Vec<(&'static str, &mut Option<Base64Bytes>)> {
        vec![
            (BATCH_NORM, &mut self.batch_norm),
            (TOKEN_STATISTICS, &mut self.token_statistics),
            (REAL, &mut self.real),
        ]
    }
}

/// The images that inversion made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InvertResult {
    /// The pool that they are in.
    pub pool: Uuid,
    /// `name:version`
    #[schema(example = "pets:1")]
    pub adapter: String,
    /// Images of the pool.
    pub images: Option<usize>,
    /// Share of the images that the adapter takes for their class.
    pub teacher_accuracy: Option<f64>,
    /// Of the adapter on the images, mean.
    pub teacher_cross_entropy: Option<f64>,
    /// Near 0 means that the images teach nothing; null for a single class or a single image per class.
    pub bare_cross_entropy: Option<f64>,
    /// Why the images did not come out, where they did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<JobFault>,
}

impl InvertResult {
    fn of(pool: &PoolRecord) -> Self {
        let summary = PoolSummary::deserialize(&pool.summary).ok();
        let quality = summary.as_ref().map(|summary| &summary.quality);
        Self {
            pool: pool.id,
            adapter: pool.adapter_label.clone(),
            images: summary.as_ref().map(|summary| summary.images),
            teacher_accuracy: quality.map(|quality| quality.teacher_accuracy),
            teacher_cross_entropy: quality.map(|quality| quality.teacher_cross_entropy),
            bare_cross_entropy: quality.and_then(|quality| quality.bare_cross_entropy),
            failure: FailedInversion::of(pool).map(|failed| failed.fault()),
        }
    }
}

impl Job for Invert {
    type Request = InvertRequest;
    type Outcome = InvertResult;

    const KIND: &'static str = "invert";

    fn title(&self) -> String {
        format!("Make synthetic images of {}", self.adapter)
    }

    async fn plan(
        request: InvertRequest,
        services: &Services,
    ) -> Result<Vec<Planned<Self>>, RequestError> {
        let InvertRequest {
            adapter,
            adapters,
            retention,
            recipe: OverPreset(mut recipe),
            waits_for,
            batch_norm,
            token_statistics,
            real,
        } = request;
        let references: Vec<String> = adapter.into_iter().chain(adapters).collect();
        if references.is_empty() {
            return Err(RequestError::invalid(
                "adapter",
                "no adapter is named; name one that has a head",
            ));
        }
        recipe.arithmetic = services.devices().planned(recipe.arithmetic);
        let bad_recipe = |error: String| RequestError::invalid("recipe", error);
        let mut inputs = Vec::new();
        let priors = &mut recipe.priors;
        for (part, file, digest) in [
            (BATCH_NORM, batch_norm, &mut priors.batch_norm_file),
            (
                TOKEN_STATISTICS,
                token_statistics,
                &mut priors.token_statistics_file,
            ),
        ] {
            if let Some(Base64Bytes(bytes)) = file {
                *digest = Some(Digest::of(&bytes).to_string());
                inputs.push(prior_input(part, bytes));
            }
        }
        let opponent = match &recipe.against {
            None => None,
            Some(reference) => Some(services.registry().resolve(reference).await?),
        };
        // Its name may come to mean another one.
        recipe.against = opponent.as_ref().map(|own| own.digest.to_string());
        let mut pictures: BTreeMap<Digest, RealImages> = BTreeMap::new();
        let mut planned = Vec::with_capacity(references.len());
        for reference in references {
            let registry = services.registry();
            let record = registry.resolve(&reference).await?;
            let candidate = registry.candidate_of(&record).await?;
            let adapter = registry.load(&record).await?;
            if let Some(opponent) = &opponent {
                check_backbone(opponent, &record)?;
            }
            let (mut recipe, mut inputs) = (recipe.clone(), inputs.clone());
            if record.backbone_digest.as_str() == EMBEDDED_DIGEST {
                add_shipped_statistics(&mut recipe, &mut inputs);
            }
            // What is wrong with a file is said now.
            let files = inputs
                .iter()
                .map(|input| (input.role.as_str(), input.bytes.as_slice()));
            prior_data(files, candidate.config.width)
                .map_err(|(part, error)| RequestError::invalid(part, error))?;
            let chosen = recipe
                .validate(&candidate.config, &adapter)
                .map_err(|error| bad_recipe(format!("{}: {error}", record.label())))?;
            if let Some(Base64Bytes(zip)) = &real {
                let labels = adapter.head.iter();
                let labels =
                    labels.flat_map(|head| chosen.iter().map(|&own| class_label(head, own)));
                let labels: Vec<String> = labels.collect();
                let real = match pictures.entry(record.backbone_digest.clone()) {
                    Entry::Occupied(found) => found.into_mut(),
                    Entry::Vacant(place) => place.insert(read_real(zip, &record, services).await?),
                };
                inputs.push(real.input(&record.label(), &labels, recipe.images_per_class)?);
                if recipe
                    .real
                    .as_ref()
                    .is_some_and(|wanted| *wanted != real.digest)
                {
                    return Err(other_pictures());
                }
                recipe.real = Some(real.digest.clone());
            } else if recipe.real.is_some() {
                return Err(other_pictures());
            }
            planned.push(Planned {
                job: Self::of(&record, retention, recipe),
                inputs,
                waits_for: waits_for.clone(),
            });
        }
        Ok(planned)
    }

    fn run(&self, context: &JobContext) -> Result<InvertResult, JobError> {
        if let Some(found) = context.block_on(context.store().find_pool(&self.pool_key()))? {
            context.log(LogLevel::Info, "the same images were made before")?;
            return finished(context, &found);
        }
        if self.retention == Retention::MemoryOnly {
            context.keep_off_the_disk();
        }
        let pool = self.images(context)?;
        let new = NewPool {
            adapter_id: self.adapter_id,
            adapter_label: self.adapter.clone(),
            adapter_digest: self.adapter_digest.clone(),
            backbone_digest: self.backbone_digest.clone(),
            recipe: self.stored_recipe(),
            summary: json!(PoolSummary::of(pool.manifest())),
            retention: self.retention,
            files: stored_files(&pool)?,
        };
        finished(
            context,
            &context.block_on(context.store().create_pool(new))?,
        )
    }
}

/// What the job gives; where its images did not come out, its log says so, too.
fn finished(context: &JobContext, pool: &PoolRecord) -> Result<InvertResult, JobError> {
    if let Some(failed) = FailedInversion::of(pool) {
        context.log(LogLevel::Warning, &failed.to_string())?;
    }
    Ok(InvertResult::of(pool))
}

impl Invert {
    fn of(record: &AdapterRecord, retention: Retention, recipe: InversionRecipe) -> Self {
        Self {
            adapter: record.label(),
            adapter_id: record.id,
            adapter_digest: record.digest.clone(),
            backbone_digest: record.backbone_digest.clone(),
            retention,
            recipe,
        }
    }

    fn stored_recipe(&self) -> Value {
        json!(self.recipe)
    }

    /// Under which the images are found.
    pub(super) fn pool_key(&self) -> Digest {
        pool_key(
            &self.adapter_digest,
            &self.backbone_digest,
            &self.stored_recipe(),
        )
    }

    fn images(&self, context: &JobContext) -> Result<Pool, JobError> {
        let services = context.services();
        let backbone = context.block_on(services.backbone(&self.backbone_digest))?;
        let registry = services.registry();
        let adapter = context.block_on(async {
            let record = registry.resolve(&self.adapter_id.to_string()).await?;
            registry.load(&record).await
        })?;
        let opponent = match &self.recipe.against {
            None => None,
            Some(digest) => Some(
                context
                    .block_on(async { registry.load(&registry.resolve(digest).await?).await })?,
            ),
        };
        let data = || prior_data_of(context, backbone.config.width);
        let options = context.session_options(self.recipe.arithmetic)?;
        let recipe = self.recipe.clone();
        let images = recipe.real.as_ref().map(|_| read_pictures(context, REAL));
        let mut inversion = match context.load_checkpoint()? {
            _ if images.is_some() => Inversion::new(&backbone, adapter, data()?, recipe, options)?,
            Some(state) => {
                context.log(LogLevel::Info, "resuming from the last checkpoint")?;
                Inversion::resume(&backbone, adapter, data()?, recipe, options, &state)?
            }
            None => Inversion::new(&backbone, adapter, data()?, recipe, options)?,
        };
        if let Some(opponent) = opponent {
            inversion = inversion.with_opponent(&backbone, opponent)?;
        }
        if let Some(images) = images.transpose()? {
            let count = self.recipe.images_per_class;
            let (levels, labels) = of_classes(&images, &inversion.class_labels(), count)
                .map_err(|error| JobError::abort("real", error))?;
            inversion = inversion.with_given_images(levels, labels)?;
        }
        let mut shown: Option<Instant> = None;
        context.drive_and(&mut inversion, |inversion| {
            if shown.is_none_or(|shown| shown.elapsed() >= PREVIEW_EVERY) {
                show(context, inversion)?;
                shown = Some(Instant::now());
            }
            Ok(())
        })?;
        let outcome = inversion.outcome()?.ok_or_else(|| {
            JobError::failure(
                "invert",
                "inversion ended without a result, which is a defect",
            )
        })?;
        let from = Provenance {
            adapter_digest: self.adapter_digest.as_str(),
            backbone_digest: self.backbone_digest.as_str(),
            patch_size: backbone.config.patch_size,
            recipe: &self.recipe,
        };
        Pool::new(outcome, from).map_err(|error| JobError::failure("pool", error.to_string()))
    }
}

/// Real pictures, as the backbone of `record` sees them.
async fn read_real(
    zip: &[u8],
    record: &AdapterRecord,
    services: &Services,
) -> Result<RealImages, RequestError> {
    let backbone = services.backbone(&record.backbone_digest).await?;
    let (zip, preprocess) = (zip.to_vec(), backbone.preprocess.clone());
    tokio::task::spawn_blocking(move || RealImages::read(&zip, &preprocess))
        .await
        .map_err(|error| RequestError::Registry(error.into()))?
}

fn other_pictures() -> RequestError {
    RequestError::invalid(
        REAL,
        "the recipe is for certain real pictures in place of synthetic ones; give the same pictures with --real, or the part real of a form",
    )
}

/// The priors' data that a job was given.
pub(super) fn prior_data_of(context: &JobContext, width: usize) -> Result<PriorData, JobError> {
    let mut files = Vec::new();
    let inputs = context.inputs()?;
    let is_prior = |input: &&JobInput| [BATCH_NORM, TOKEN_STATISTICS].contains(&&*input.role);
    for input in inputs.iter().filter(is_prior) {
        files.push((input.role.clone(), context.read_input(input)?));
    }
    prior_data(
        files
            .iter()
            .map(|(part, bytes)| (part.as_str(), bytes.as_slice())),
        width,
    )
    .map_err(|(_, error)| JobError::abort("prior_file", error))
}

/// Takes the statistics inside the program where their prior has a weight, and no others are given or named.
fn add_shipped_statistics(recipe: &mut InversionRecipe, inputs: &mut Vec<NewInput>) {
    let priors = &mut recipe.priors;
    if priors.token_statistics <= 0.0 || inputs.iter().any(|input| input.role == TOKEN_STATISTICS) {
        return;
    }
    let shipped = Digest::of(EMBEDDED_TOKEN_STATISTICS).to_string();
    let wanted = priors
        .token_statistics_file
        .get_or_insert_with(|| shipped.clone());
    if *wanted == shipped {
        inputs.push(prior_input(
            TOKEN_STATISTICS,
            EMBEDDED_TOKEN_STATISTICS.to_vec(),
        ));
    }
}

/// The file of a prior as an input of its job.
fn prior_input(part: &str, bytes: Vec<u8>) -> NewInput {
    NewInput {
        name: format!("{part}.safetensors"),
        role: part.to_owned(),
        bytes,
    }
}

/// Reads the files of priors.
fn prior_data<'a>(
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
    width: usize,
) -> Result<PriorData, (&'a str, String)> {
    let mut data = PriorData::default();
    for (part, bytes) in files {
        if part == BATCH_NORM {
            let read = ResNet::read(bytes).map_err(|error| (part, error.to_string()))?;
            data.batch_norm = Some(read);
        } else {
            let read =
                TokenStatistics::read(bytes, width).map_err(|error| (part, error.to_string()))?;
            data.token_statistics = Some(read);
        }
    }
    Ok(data)
}

/// Shows the images as they are now.
fn show(context: &JobContext, inversion: &mut Inversion) -> Result<(), JobError> {
    let labels = inversion.class_labels();
    let side = inversion.image_size();
    let (levels, classes) = inversion.current_images()?;
    for (index, (planes, class)) in levels
        .chunks_exact(3 * side * side)
        .zip(classes)
        .enumerate()
    {
        let png = preview(planes, side)
            .map_err(|error| JobError::failure("preview", error.to_string()))?;
        let label = labels.get(class as usize).map_or("", String::as_str);
        context.preview(index, label, png);
    }
    Ok(())
}

impl From<InversionError> for JobError {
    fn from(error: InversionError) -> Self {
        let message = error.to_string();
        match error {
            InversionError::Recipe(_) | InversionError::Given { .. } => {
                Self::abort("recipe", message)
            }
            InversionError::Diverged(_) => Self::abort("diverged", message),
            InversionError::State(_) => {
                Self::abort("checkpoint", message).hint("submit it again, as a new job")
            }
            InversionError::Operation(error) => Self::engine(&error),
        }
    }
}
