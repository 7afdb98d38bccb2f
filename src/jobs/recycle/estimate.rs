//! What recycling will cost on this machine: a few real steps are timed, on stand-ins for images that are not there yet, and
//! counted up. How long a step takes does not depend on what the images show.

use super::{Recycle, RecycleEstimate, Recycled};
use crate::jobs::invert::prior_data_of;
use crate::jobs::pictures::{PICTURES, VALIDATION, read_pictures};
use crate::jobs::{JobContext, JobError};
use engine::process_memory::{peak_mebibytes, reset_peak, resident_mebibytes};
use model::adapter::Adapter;
use model::backbone::Backbone;
use model::tensor::Tensor;
use recycle::inversion::{ClassQuality, Inversion, InversionOutcome, InversionRecipe, Quality};
use recycle::meta_train::{Member, MergeCoefficientRecipe, MetaTrainRecipe, MetaTraining};
use recycle::pool::{Pool, Provenance};
use recycle::steps::{StepReport, Steps};
use std::collections::BTreeMap;
use std::time::Instant;

/// Steps of each kind that are timed; the first of them warms up and does not count.
const TIMED_STEPS: u64 = 4;
/// Values that inversion holds for each of an image's: parameters and gradient, Adam's two means, pixels, changed pixels, the
/// gradients of both.
const VALUES_HELD: usize = 8;
/// Adapters whose stand-ins meta-training is tried on.
const MEMBERS_TRIED: usize = 2;
/// Images of a class that inversion is tried on: its time grows with their number.
const IMAGES_TRIED: usize = 4;

/// Seconds and steps by phase.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<f64>>);

impl Times {
    /// Does all steps of `steps`.
    fn of<S: Steps>(context: &JobContext, mut steps: S) -> Result<Self, JobError>
    where
        JobError: From<S::Error>,
    {
        let mut times = Self::default();
        while !steps.is_done() {
            context.interrupted()?;
            let start = Instant::now();
            let report = steps.step()?;
            let own = times.0.entry(report.phase).or_default();
            own.push(start.elapsed().as_secs_f64());
        }
        Ok(times)
    }

    fn all(&self, phase: &str) -> &[f64] {
        self.0.get(phase).map_or(&[], Vec::as_slice)
    }

    /// The middle one of these steps of a phase, in seconds.
    fn middle(&self, phase: &str, steps: std::ops::Range<usize>) -> f64 {
        let all = self.all(phase);
        let mut own: Vec<f64> = all.get(steps).unwrap_or(all).to_vec();
        own.sort_by(f64::total_cmp);
        own.get(own.len() / 2).copied().unwrap_or(0.0)
    }
}

pub(super) fn estimate(job: &Recycle, context: &JobContext) -> Result<RecycleEstimate, JobError> {
    let backbone = context.block_on(context.services().backbone(&job.backbone_digest))?;
    let mut missing = Vec::new();
    let mut adapters = Vec::new();
    for recycled in &job.adapters {
        let registry = context.services().registry();
        let adapter = context.block_on(async {
            let record = registry.resolve(&recycled.adapter_id.to_string()).await?;
            registry.load(&record).await
        })?;
        let found = context.block_on(context.store().find_pool(&recycled.pool_key))?;
        if found.is_none() {
            missing.push(adapters.len());
        }
        adapters.push(adapter);
    }
    let counts: Vec<usize> = adapters
        .iter()
        .map(|adapter| images_of(&job.inversion, &backbone, adapter))
        .collect::<Result<_, _>>()?;
    let images: usize = counts.iter().sum();
    let missing_images: usize = missing.iter().map(|&index| counts[index]).sum();

    let before = resident_mebibytes();
    let is_reset = reset_peak();
    tell(context, 0)?;
    let inversion_seconds = match missing.first() {
        Some(&first) if job.inversion.real.is_none() => {
            let each = inversion(job, context, &backbone, &adapters[first])?;
            each * missing_images as f64 / counts[first] as f64
        }
        _ => 0.0,
    };
    tell(context, 1)?;
    let training = training(job, context, &backbone, &adapters, &counts)?;
    tell(context, 2)?;
    let evaluation_seconds = evaluation(job, context, images)?;
    tell(context, 3)?;
    let image_bytes = image_bytes(job, &backbone);
    let untried: usize = counts.iter().skip(MEMBERS_TRIED).sum();
    let (together, tried) = images_together(&job.inversion);
    let inverted_more = missing.iter().map(|&index| {
        let classes = counts[index] / job.inversion.images_per_class.max(1);
        classes * (together - tried)
    });
    let inverted_more = inverted_more.max().unwrap_or(0);
    let memory = before.zip(peak_mebibytes()).filter(|_| is_reset);
    let memory = memory.map(|(before, peak)| {
        let grown = (peak - before).max(0.0) * f64::from(1 << 20);
        let inverted = inverted_more * image_bytes * size_of::<f32>() * VALUES_HELD;
        let learned_from = untried * (image_bytes + training.prefix_bytes_per_image);
        grown as u64 + (inverted + learned_from) as u64
    });
    // Images and their previews, which noise fills as well; twice a checkpoint; the adapter, perhaps in two states.
    let disk = missing_images * 2 * image_bytes + 12 * training.pair_bytes;
    Ok(RecycleEstimate {
        dry_run: true,
        threads: context.threads(),
        adapters: job.adapters.len(),
        inversions: missing.len(),
        images,
        inversion_seconds,
        meta_training_seconds: training.seconds,
        evaluation_seconds,
        seconds: inversion_seconds + training.seconds + evaluation_seconds,
        memory_bytes: memory,
        disk_bytes: disk as u64,
    })
}

fn tell(context: &JobContext, step: u64) -> Result<(), JobError> {
    context.report(&StepReport {
        phase: "timing some steps",
        step,
        total: 3,
        figures: vec![],
    })
}

/// Images that `recipe` makes of `adapter`.
fn images_of(
    recipe: &InversionRecipe,
    backbone: &Backbone,
    adapter: &Adapter,
) -> Result<usize, JobError> {
    let classes = recipe.validate(&backbone.config, adapter);
    let classes = classes.map_err(|error| JobError::abort("recipe", error.to_string()))?;
    Ok(classes.len() * recipe.images_per_class)
}

fn side(job: &Recycle, backbone: &Backbone) -> usize {
    job.inversion
        .image_size
        .unwrap_or_else(|| backbone.image_size())
}

fn image_bytes(job: &Recycle, backbone: &Backbone) -> usize {
    3 * side(job, backbone).pow(2)
}

/// Seconds of the whole inversion of one adapter.
fn inversion(
    job: &Recycle,
    context: &JobContext,
    backbone: &Backbone,
    adapter: &Adapter,
) -> Result<f64, JobError> {
    const PHASE: &str = "inverting";
    let recipe = &job.inversion;
    let (_, tried) = images_together(recipe);
    let trial = |pruned: bool| InversionRecipe {
        steps: TIMED_STEPS,
        images_per_class: tried,
        judge_every: Some(TIMED_STEPS),
        early_stop: None,
        pruning_start: if pruned { 0.0 } else { 1.0 },
        ..recipe.clone()
    };
    let time = |pruned: bool| {
        let data = prior_data_of(context, backbone.config.width)?;
        let options = context.session_options(job.inversion.arithmetic)?;
        let inversion = Inversion::new(backbone, adapter.clone(), data, trial(pruned), options)?;
        Times::of(context, inversion)
    };
    let usual = 1..TIMED_STEPS as usize - 1;
    let dense = time(false)?;
    let dense_step = dense.middle(PHASE, usual.clone());
    let pruned_step = match recipe.pruning.is_empty() {
        true => dense_step,
        false => time(true)?.middle(PHASE, usual),
    };
    let last = dense.all(PHASE).last().copied().unwrap_or(0.0);
    let judgement = (last - dense_step).max(0.0);
    let judgements = (recipe.steps / recipe.judge_every()) as f64;
    let steps = recipe.steps as f64;
    let start = recipe.pruning_start.clamp(0.0, 1.0);
    let mean_step = start * dense_step + (1.0 - start) * pruned_step;
    let looks: f64 = dense.all("checking the images").iter().sum();
    Ok(recipe.images_per_class as f64 / tried as f64
        * (steps * mean_step + judgements * judgement + looks))
}

/// Images of a class that are optimised together, and those that are tried.
fn images_together(recipe: &InversionRecipe) -> (usize, usize) {
    let most = recipe.images_per_class_at_once.unwrap_or(usize::MAX);
    let together = recipe.images_per_class.min(most);
    (together, together.min(IMAGES_TRIED))
}

struct Training {
    seconds: f64,
    /// Outputs of the frozen layers, plain and mirrored.
    prefix_bytes_per_image: usize,
    /// All LoRA matrices of the student as `f32`.
    pair_bytes: usize,
}

fn training(
    job: &Recycle,
    context: &JobContext,
    backbone: &Backbone,
    adapters: &[Adapter],
    counts: &[usize],
) -> Result<Training, JobError> {
    let recipe = &job.meta_training;
    let tried = adapters.len().min(MEMBERS_TRIED);
    let members = job.adapters[..tried]
        .iter()
        .zip(adapters)
        .map(|(recycled, adapter)| {
            Ok(Member {
                label: recycled.adapter.clone(),
                adapter: adapter.clone(),
                pool: placeholder_pool(job, backbone, recycled, adapter)?,
            })
        })
        .collect::<Result<Vec<_>, JobError>>()?;
    let trial = MetaTrainRecipe {
        merge_coefficients: recipe.merge_coefficients.map(|own| MergeCoefficientRecipe {
            steps: TIMED_STEPS,
            ..own
        }),
        episodes: TIMED_STEPS + 1,
        validate_every: Some(TIMED_STEPS + 1),
        ..recipe.clone()
    };
    let options = context.session_options(job.meta_training.arithmetic)?;
    let mut training = MetaTraining::new(backbone, members, trial, options)?;
    if job.validation.is_some() {
        training = training.validated_on(read_pictures(context, VALIDATION)?)?;
    }
    let (prefix_values, pair_values) = training.sizes();
    let times = Times::of(context, training)?;
    let is_validated = recipe.held_out > 0.0 || job.validation.is_some();
    let more = counts.iter().sum::<usize>() as f64 / counts[..tried].iter().sum::<usize>() as f64;
    let prepared: f64 = times.all("preparing the images").iter().sum();
    let all = times.all("meta-training");
    let first = usize::from(is_validated);
    // After the validation before the first step, and the step that warms up.
    let episode = times.middle("meta-training", first + 1..all.len().saturating_sub(1));
    let validation = match is_validated {
        true => all.first().copied().unwrap_or(0.0),
        false => 0.0,
    };
    // The number of real pictures does not grow with the number of adapters.
    let validation = match job.validation {
        Some(_) => validation,
        None => validation * more,
    };
    let validations = 1 + recipe.episodes / recipe.validate_every();
    // Their passes carry the changes of all adapters.
    let ranks = |adapters: &[Adapter]| adapters.iter().map(Adapter::largest_rank).sum::<usize>();
    let coefficient_step = times.middle("learning merge coefficients", 1..TIMED_STEPS as usize);
    let coefficient_step =
        coefficient_step * ranks(adapters) as f64 / ranks(&adapters[..tried]).max(1) as f64;
    let coefficient_steps = recipe.merge_coefficients.map_or(0, |own| own.steps);
    Ok(Training {
        seconds: more * prepared
            + coefficient_steps as f64 * coefficient_step
            + recipe.episodes as f64 * episode
            + validations as f64 * validation,
        prefix_bytes_per_image: 4 * prefix_values,
        pair_bytes: 4 * pair_values,
    })
}

/// Seconds of measuring the meta-LoRA; 0 where there are no pictures for it.
fn evaluation(job: &Recycle, context: &JobContext, images: usize) -> Result<f64, JobError> {
    let Some(request) = job.evaluation_of(Adapter::default(), context) else {
        return Ok(0.0);
    };
    let pictures = read_pictures(context, PICTURES)?;
    let services = context.services();
    let options = context.session_options(services.devices().planned(None))?;
    let app = context.block_on(services.app(&job.backbone_digest, options))?;
    Ok(context.block_on(app.evaluation_seconds(&pictures, &request, images))?)
}

/// A pool like the one that the inversion of `adapter` will make, with nothing to see in it.
fn placeholder_pool(
    job: &Recycle,
    backbone: &Backbone,
    recycled: &Recycled,
    adapter: &Adapter,
) -> Result<Pool, JobError> {
    let count = images_of(&job.inversion, backbone, adapter)?;
    let classes = count / job.inversion.images_per_class.max(1);
    let (side, bytes) = (side(job, backbone), image_bytes(job, backbone));
    let grid = backbone.config.grid(side).unwrap_or(0);
    let mut kept = grid * grid;
    match job.inversion.keep_ratio {
        Some(keep) => kept -= (kept as f64 * (1.0 - keep)) as usize,
        None => {
            for ratio in job.inversion.pruning.values() {
                kept -= (kept as f64 * ratio) as usize;
            }
        }
    }
    let quality = Quality {
        classes: (0..classes)
            .map(|class| ClassQuality {
                label: class.to_string(),
                images: job.inversion.images_per_class,
                teacher_accuracy: 0.0,
                teacher_confidence: 0.0,
            })
            .collect(),
        teacher_accuracy: 0.0,
        teacher_cross_entropy: 0.0,
        bare_cross_entropy: None,
    };
    let outcome = InversionOutcome {
        classes: quality
            .classes
            .iter()
            .map(|own| own.label.clone())
            .collect(),
        image_size: side,
        images: (0..count * bytes)
            .map(|index| (index * 7919 % 251) as u8)
            .collect(),
        labels: (0..count).map(|index| (index % classes) as u32).collect(),
        teacher_logits: Tensor::zeros([count, classes]),
        kept_tokens: (0..count).flat_map(|_| 0..=kept as u32).collect(),
        quality,
        steps_done: 0,
        stopped_early: false,
    };
    let from = Provenance {
        adapter_digest: recycled.adapter_digest.as_str(),
        backbone_digest: job.backbone_digest.as_str(),
        patch_size: backbone.config.patch_size,
        recipe: &job.inversion,
    };
    Pool::new(outcome, from).map_err(|error| JobError::failure("pool", error.to_string()))
}
