//! From a wish to a job: everything that is wrong is said here, and the inversions that are still needed are queued.

use super::recipe_file::RecipeFile;
use super::{Expected, Recycle, Recycled};
use crate::app::evaluation::{Evaluation, EvaluationRecipe, Method, MethodKind};
use crate::app::registry::{check_backbone, check_name};
use crate::jobs::evaluation::{Pictures, compared_on, pictures};
use crate::jobs::kinds::new_job;
use crate::jobs::pictures::VALIDATION;
use crate::jobs::request::resolve_once;
use crate::jobs::{
    ARCHIVE_LIMITS, FailedInversion, Invert, Job, JobRequest, LabelledImage, Planned, RequestError,
    Services, labelled_images,
};
use recycle::inversion::InversionRecipe;
use recycle::meta_train::MetaTrainRecipe;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{AdapterRecord, Digest, Name, Retention};
use uuid::Uuid;

/// What a request for recycling says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    name: Option<Name>,
    #[serde(default)]
    adapters: Vec<String>,
    /// Of meta-training.
    #[serde(default)]
    recipe: Value,
    /// Of the images.
    #[serde(default)]
    inversion: Value,
    #[serde(default)]
    retention: Retention,
    /// Instead of adapters and recipes: what an earlier run wrote.
    recipe_file: Option<RecipeFile>,
    /// How the meta-LoRA is measured on the pictures that are sent along.
    evaluation: Option<EvaluationRecipe>,
    /// Learn also from images that did not come out.
    #[serde(default)]
    use_failed_images: bool,
    #[serde(default)]
    dry_run: bool,
}

/// What is to be recycled, wherever it comes from.
struct Wish {
    name: Name,
    references: Vec<String>,
    inversion: InversionRecipe,
    meta_training: MetaTrainRecipe,
    expected: Option<Expected>,
}

pub(super) async fn plan(
    request: JobRequest,
    services: &Services,
) -> Result<Vec<Planned<Recycle>>, RequestError> {
    let mut request = request;
    let mut parameters: Parameters = request.parameters()?;
    let (retention, dry_run) = (parameters.retention, parameters.dry_run);
    let use_failed_images = parameters.use_failed_images;
    let evaluation = parameters.evaluation.take();
    let validation = request.files.remove(VALIDATION);
    let expects = parameters.recipe_file.clone();
    let wish = wish(parameters, services).await?;
    check_name(&wish.name).map_err(|error| RequestError::invalid("name", error.to_string()))?;
    let records = adapters(&wish.references, services).await?;
    let Some(first) = records.first() else {
        return Err(RequestError::invalid(
            "adapters",
            "no adapter is named; name at least one that has a head",
        ));
    };
    let candidate = services.registry().candidate_of(first).await?;
    let recipe = &wish.meta_training;
    recipe
        .validate(&candidate.config)
        .and_then(|()| recipe.check_images_per_class(wish.inversion.images_per_class))
        .map_err(|error| RequestError::invalid("recipe", error.to_string()))?;
    let backbone_digest = first.backbone_digest.clone();
    let images = std::mem::take(&mut request.images);
    let measured = measured(
        images,
        evaluation,
        records.len(),
        &backbone_digest,
        services,
    )
    .await?;
    let validation = validated_on(validation, recipe, &backbone_digest, services).await?;
    let validation_digest = validation.as_ref().map(|own| Digest::of(&own.input.bytes));
    if let Some(file) = expects {
        file.check_validation(validation_digest.as_ref())?;
    }
    let inversions = inversions(&request, &records, &wish.inversion, retention, services).await?;
    // What is made again from a recipe file was made from such images.
    if !use_failed_images && wish.expected.is_none() {
        refuse_failed(&inversions, services).await?;
    }
    let recycled = records
        .iter()
        .zip(&inversions)
        .map(|(record, planned)| Recycled {
            adapter: record.label(),
            adapter_id: record.id,
            adapter_digest: record.digest.clone(),
            pool_key: planned.job.pool_key(),
        });
    let job = Recycle {
        name: wish.name,
        backbone_digest,
        adapters: recycled.collect(),
        retention,
        // As the jobs have it: with the digests of the priors' files.
        inversion: inversions
            .first()
            .map_or(wish.inversion, |planned| planned.job.recipe.clone()),
        meta_training: wish.meta_training,
        validation: validation_digest,
        evaluation: measured.as_ref().map(|own| own.recipe.clone()),
        left_out: validation
            .iter()
            .chain(measured.iter().map(|own| &own.pictures))
            .flat_map(|own| own.left_out.iter().cloned())
            .collect(),
        expected: wish.expected,
        use_failed_images,
        dry_run: dry_run.then(Uuid::new_v4),
    };
    let mut planned = Planned {
        job,
        inputs: measured
            .into_iter()
            .map(|own| own.pictures)
            .chain(validation)
            .map(|own| own.input)
            .collect(),
        waits_for: request.waits_for.clone(),
    };
    if dry_run {
        // The trial needs the priors' files.
        let priors = inversions.into_iter().next();
        planned
            .inputs
            .extend(priors.into_iter().flat_map(|one| one.inputs));
        return Ok(vec![planned]);
    }
    let key = planned.job.deduplication_key(&planned.inputs);
    if services.store().find_job(&key).await?.is_none() {
        let waits_for = queue_missing(inversions, services).await?;
        planned.waits_for.extend(waits_for);
    }
    Ok(vec![planned])
}

/// The pictures of a zip that the best state is chosen on, checked for enough tasks.
async fn validated_on(
    zip: Option<Vec<u8>>,
    recipe: &MetaTrainRecipe,
    backbone: &Digest,
    services: &Services,
) -> Result<Option<Pictures>, RequestError> {
    let Some(zip) = zip else {
        return Ok(None);
    };
    let recipe = recipe.clone();
    let images = move || {
        labelled_images(&zip, &ARCHIVE_LIMITS)
            .map_err(|error| RequestError::invalid(VALIDATION, error.to_string()))
    };
    let check = move |sizes: &[usize]| recipe.real_tasks(sizes).map(drop);
    let places = (VALIDATION, VALIDATION);
    let pictures = pictures(images, places, check, backbone, services);
    pictures.await.map(Some)
}

/// How the meta-LoRA is measured, and on what.
struct Measured {
    recipe: EvaluationRecipe,
    pictures: Pictures,
}

/// `None` where no pictures were sent.
async fn measured(
    images: Vec<LabelledImage>,
    recipe: Option<EvaluationRecipe>,
    adapters: usize,
    backbone: &Digest,
    services: &Services,
) -> Result<Option<Measured>, RequestError> {
    if images.is_empty() {
        return match recipe {
            Some(_) => Err(RequestError::invalid(
                "evaluation",
                "there are no pictures to measure on; send a zip whose folders are classes that no adapter has seen",
            )),
            None => Ok(None),
        };
    }
    let mut recipe = recipe.unwrap_or_default();
    if recipe.methods.is_empty() {
        let mut kinds = vec![MethodKind::Adapter, MethodKind::Bare, MethodKind::AVERAGE];
        // Its scale is chosen by leaving one out.
        if adapters > 1 {
            kinds.push(MethodKind::SUM);
        }
        recipe.methods = kinds.into_iter().map(Method::from).collect();
    }
    let request = Evaluation {
        recipe: recipe.clone(),
        adapters: vec![String::new()],
        pool: vec![String::new(); adapters],
        ..Evaluation::default()
    };
    request
        .check()
        .map_err(|error| RequestError::invalid("evaluation", error.to_string()))?;
    let pictures = compared_on(images, &recipe, backbone, services).await?;
    Ok(Some(Measured { recipe, pictures }))
}

async fn wish(parameters: Parameters, services: &Services) -> Result<Wish, RequestError> {
    let Parameters {
        name,
        adapters,
        recipe,
        inversion,
        recipe_file,
        ..
    } = parameters;
    if let Some(file) = recipe_file {
        file.check()?;
        if !adapters.is_empty() || !recipe.is_null() || !inversion.is_null() {
            return Err(RequestError::invalid(
                "recipe_file",
                "a recipe file names adapters and recipes itself; leave them out",
            ));
        }
        return Ok(Wish {
            references: file.adapters_here(services).await?,
            name: name.unwrap_or(file.name),
            inversion: file.inversion,
            meta_training: file.meta_training,
            expected: Some(Expected {
                digest: file.digest,
                threads: file.threads,
            }),
        });
    }
    let name =
        name.ok_or_else(|| RequestError::invalid("name", "the meta-LoRA has no name; choose one"))?;
    let bad = |parameter: &'static str| {
        move |error: recycle::recipe::RecipeError| {
            RequestError::invalid(parameter, error.to_string())
        }
    };
    Ok(Wish {
        name,
        references: adapters,
        inversion: match inversion {
            Value::Null => InversionRecipe::default(),
            json => InversionRecipe::from_json(&json).map_err(bad("inversion"))?,
        },
        meta_training: match recipe {
            Value::Null => MetaTrainRecipe::default(),
            json => MetaTrainRecipe::from_json(&json).map_err(bad("recipe"))?,
        },
        expected: None,
    })
}

/// The adapters that are meant, all of one backbone and each once.
async fn adapters(
    references: &[String],
    services: &Services,
) -> Result<Vec<AdapterRecord>, RequestError> {
    let mut records: Vec<AdapterRecord> = Vec::with_capacity(references.len());
    for reference in references {
        let record = resolve_once(reference, &records, services).await?;
        if let Some(first) = records.first() {
            check_backbone(&record, first)?;
        }
        records.push(record);
    }
    Ok(records)
}

/// The inversion of each adapter, not yet queued.
async fn inversions(
    request: &JobRequest,
    records: &[AdapterRecord],
    recipe: &InversionRecipe,
    retention: Retention,
    services: &Services,
) -> Result<Vec<Planned<Invert>>, RequestError> {
    let parameters = json!({
        "adapters": records.iter().map(|record| record.id).collect::<Vec<_>>(),
        "recipe": recipe,
        "retention": retention,
    });
    let wanted = JobRequest {
        kind: Invert::KIND.into(),
        parameters: serde_json::from_value(parameters)
            .map_err(|error| RequestError::invalid("inversion", error.to_string()))?,
        files: request.files.clone(),
        waits_for: request.waits_for.clone(),
        ..JobRequest::default()
    };
    Invert::plan(wanted, services)
        .await
        .map_err(|error| match &error {
            RequestError::Invalid { parameter, .. } if parameter == "recipe" => {
                error.told_of("inversion")
            }
            _ => error,
        })
}

/// Refuses where images that are there did not come out.
async fn refuse_failed(
    inversions: &[Planned<Invert>],
    services: &Services,
) -> Result<(), RequestError> {
    let mut failed = Vec::new();
    for planned in inversions {
        let pool = services.store().find_pool(&planned.job.pool_key()).await?;
        failed.extend(pool.as_ref().and_then(FailedInversion::of));
    }
    FailedInversion::refusal(&failed).map_or(Ok(()), |fault| Err(RequestError::FailedImages(fault)))
}

/// Queues the inversions whose images are not there, and gives the ids of their jobs.
async fn queue_missing(
    inversions: Vec<Planned<Invert>>,
    services: &Services,
) -> Result<Vec<Uuid>, RequestError> {
    let mut ids = Vec::new();
    for planned in inversions {
        let key = planned.job.pool_key();
        if services.store().find_pool(&key).await?.is_some() {
            continue;
        }
        let new = tokio::task::spawn_blocking(move || new_job(planned))
            .await
            .map_err(|error| RequestError::Registry(error.into()))?;
        ids.push(services.store().submit_job(new).await?.job.id);
    }
    Ok(ids)
}
