//! From a request to a job: everything that is wrong is said here, and the inversions that are still needed are queued.

use super::{Expected, Recycle, RecycleRequest, Recycled};
use crate::app::evaluation::{Evaluation, EvaluationRecipe, Method, MethodKind};
use crate::app::registry::{check_backbone, check_name};
use crate::base64_bytes::Base64Bytes;
use crate::jobs::evaluation::{Pictures, compared_on, pictures};
use crate::jobs::kinds::new_job;
use crate::jobs::labelled::all_pictures;
use crate::jobs::pictures::VALIDATION;
use crate::jobs::request::resolve_once;
use crate::jobs::{
    ARCHIVE_LIMITS, FailedInversion, Invert, InvertRequest, Job, LabelledImage, Planned,
    RequestError, Services, labelled_images,
};
use engine::session::Arithmetic;
use recycle::inversion::InversionRecipe;
use recycle::meta_train::MetaTrainRecipe;
use recycle::over_preset::OverPreset;
use store::{AdapterRecord, Digest, Name};
use uuid::Uuid;

/// What is to be recycled, wherever it comes from.
struct Requested {
    name: Name,
    references: Vec<String>,
    inversion: InversionRecipe,
    meta_training: MetaTrainRecipe,
    expected: Option<Expected>,
}

pub(super) async fn plan(
    mut request: RecycleRequest,
    services: &Services,
) -> Result<Vec<Planned<Recycle>>, RequestError> {
    let use_failed_images = request.use_failed_images;
    let (retention, dry_run) = (request.retention, request.dry_run);
    let evaluation = request.evaluation.take();
    let validation = request.validation.take();
    let images = std::mem::take(&mut request.pictures);
    let images = all_pictures(images, request.archive.take()).await?;
    let expects = request.recipe_file.clone();
    let mut wanted = requested(&mut request, services).await?;
    check_name(&wanted.name).map_err(|error| RequestError::invalid("name", error.to_string()))?;
    let records = adapters(&wanted.references, services).await?;
    let Some(first) = records.first() else {
        return Err(RequestError::invalid(
            "adapters",
            "no adapter is named; name at least one that has a head",
        ));
    };
    let candidate = services.registry().candidate_of(first).await?;
    let recipe = &mut wanted.meta_training;
    recipe.arithmetic = services.devices().planned(recipe.arithmetic);
    let recipe = &wanted.meta_training;
    recipe
        .validate(&candidate.config)
        .and_then(|()| recipe.check_images_per_class(wanted.inversion.images_per_class))
        .map_err(|error| RequestError::invalid("recipe", error.to_string()))?;
    let backbone_digest = first.backbone_digest.clone();
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
    let inversions = Invert::plan(
        InvertRequest {
            adapter: None,
            adapters: records.iter().map(|record| record.id.to_string()).collect(),
            retention,
            recipe: OverPreset(wanted.inversion.clone()),
            waits_for: request.waits_for.clone(),
            batch_norm: request.batch_norm,
            token_statistics: request.token_statistics,
            real: request.real,
        },
        services,
    )
    .await
    .map_err(told_of_inversion)?;
    // What is made again from a recipe file was made from such images.
    if !use_failed_images && wanted.expected.is_none() {
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
        name: wanted.name,
        backbone_digest,
        adapters: recycled.collect(),
        retention,
        // As the jobs have it: with the digests of the priors' files.
        inversion: inversions
            .first()
            .map_or(wanted.inversion, |planned| planned.job.recipe.clone()),
        meta_training: wanted.meta_training,
        validation: validation_digest,
        evaluation: measured.as_ref().map(|own| own.recipe.clone()),
        left_out: validation
            .iter()
            .chain(measured.iter().map(|own| &own.pictures))
            .flat_map(|own| own.left_out.iter().cloned())
            .collect(),
        expected: wanted.expected,
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
        waits_for: request.waits_for,
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
    zip: Option<Base64Bytes>,
    recipe: &MetaTrainRecipe,
    backbone: &Digest,
    services: &Services,
) -> Result<Option<Pictures>, RequestError> {
    let Some(Base64Bytes(zip)) = zip else {
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

async fn requested(
    request: &mut RecycleRequest,
    services: &Services,
) -> Result<Requested, RequestError> {
    let name = request.name.take();
    let adapters = std::mem::take(&mut request.adapters);
    let (recipe, inversion) = (request.recipe.take(), request.inversion.take());
    if let Some(file) = request.recipe_file.take() {
        file.check()?;
        if !adapters.is_empty() || recipe.is_some() || inversion.is_some() {
            return Err(RequestError::invalid(
                "recipe_file",
                "a recipe file names adapters and recipes itself; leave them out",
            ));
        }
        return Ok(Requested {
            references: file.adapters_here(services).await?,
            name: name.unwrap_or(file.name),
            // Where a file says nothing, the processor made it.
            inversion: InversionRecipe {
                arithmetic: file.inversion.arithmetic.or(Some(Arithmetic::Cpu)),
                ..file.inversion
            },
            meta_training: MetaTrainRecipe {
                arithmetic: file.meta_training.arithmetic.or(Some(Arithmetic::Cpu)),
                ..file.meta_training
            },
            expected: Some(Expected {
                digest: file.digest,
                threads: file.threads,
            }),
        });
    }
    let name =
        name.ok_or_else(|| RequestError::invalid("name", "the meta-LoRA has no name; choose one"))?;
    Ok(Requested {
        name,
        references: adapters,
        inversion: inversion.unwrap_or_default().0,
        meta_training: recipe.unwrap_or_default().0,
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

/// The recipe of an inversion is called `inversion` in a request for recycling.
fn told_of_inversion(error: RequestError) -> RequestError {
    match &error {
        RequestError::Invalid { parameter, .. } if parameter == "recipe" => {
            error.told_of("inversion")
        }
        _ => error,
    }
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
