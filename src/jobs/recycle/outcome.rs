//! What recycling gives, as it is stored and sent.

use super::recipe_file::RecipeFile;
use crate::app::evaluation::EvaluationReport;
use recycle::meta_train::{Keep, MetaTrainOutcome, Validation};
use serde::{Deserialize, Serialize};
use store::{AdapterRecord, Digest};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a job gives: a meta-LoRA, or what one would cost.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RecycleOutcome {
    /// The meta-LoRA that was made.
    Made(Box<RecycleResult>),
    /// Of a dry run.
    Estimated(RecycleEstimate),
}

/// The meta-LoRA that recycling made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RecycleResult {
    /// `name:version`
    #[schema(example = "meta:1")]
    pub adapter: String,
    /// Of the meta-LoRA.
    pub adapter_id: Uuid,
    /// SHA-256 over the list of its files.
    pub digest: Digest,
    /// What its lineage says, too.
    #[serde(flatten)]
    pub made: Made,
}

/// What the lineage of a meta-LoRA and the result of its job both say.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Made {
    /// `name:version` of the state that the recipe does not choose, where it differs.
    pub other_adapter: Option<String>,
    /// The pools that it was made from; they may be gone.
    pub pools: Option<Vec<Uuid>>,
    /// How meta-training went.
    pub figures: Option<RecycleFigures>,
    /// Whether it is what its recipe file says; null without one.
    pub is_as_expected: Option<bool>,
    /// From which the same meta-LoRA can be made again.
    pub recipe_file: Option<RecipeFile>,
}

/// The lineage of a meta-LoRA.
#[derive(Debug, Serialize)]
pub(super) struct RecycleLineage {
    pub operation: &'static str,
    pub job: Uuid,
    #[serde(flatten)]
    pub made: Made,
}

/// How meta-training went.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RecycleFigures {
    /// Tasks that it learned from.
    pub episodes: usize,
    /// Mean loss of the first tenth of the episodes; null without episodes.
    pub first_loss: Option<f64>,
    /// Mean loss of the last tenth.
    pub last_loss: Option<f64>,
    /// The episode whose state was kept.
    pub kept_episode: u64,
    /// From the first state on, in the order of episodes.
    pub validations: Vec<Validation>,
    /// Of the sum that it began with, by adapter and then by layer; empty where none were learned.
    #[serde(alias = "factors")] // old spelling
    pub merge_coefficients: Vec<Vec<f32>>,
    /// The comparison with the bare backbone and merges, where there were pictures for it.
    pub evaluation: Option<EvaluationReport>,
}

/// What recycling would cost on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecycleEstimate {
    /// Always true: nothing was made.
    pub dry_run: bool,
    /// Processor threads that it was timed with.
    pub threads: usize,
    /// Adapters that would be recycled.
    pub adapters: usize,
    /// Adapters whose images are not there yet.
    pub inversions: usize,
    /// Images of all adapters.
    pub images: usize,
    /// Of making the images that are not there yet.
    pub inversion_seconds: f64,
    /// Of meta-training and its validations.
    pub meta_training_seconds: f64,
    /// Of measuring the result; 0 without pictures for it.
    pub evaluation_seconds: f64,
    /// All together.
    pub seconds: f64,
    /// Besides what the program holds; null where the system does not say.
    pub memory_bytes: Option<u64>,
    /// At most.
    pub disk_bytes: u64,
}

impl RecycleResult {
    /// From what the job has stored.
    pub(super) fn of(made: &AdapterRecord) -> Self {
        let lineage = made.lineage.recipe.clone();
        Self {
            adapter: made.label(),
            adapter_id: made.id,
            digest: made.digest.clone(),
            made: lineage
                .and_then(|lineage| serde_json::from_value(lineage).ok())
                .unwrap_or_default(),
        }
    }
}

impl RecycleFigures {
    pub(super) fn of(
        outcome: &MetaTrainOutcome,
        keep: Keep,
        evaluation: Option<EvaluationReport>,
    ) -> Self {
        let curve = &outcome.loss_curve;
        let tenth = (curve.len() / 10).max(1);
        let mean = |losses: &[f64]| {
            (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
        };
        let best = outcome
            .validations
            .iter()
            .min_by(|a, b| a.loss.total_cmp(&b.loss))
            .filter(|_| keep == Keep::BestValidated);
        Self {
            episodes: curve.len(),
            first_loss: mean(&curve[..tenth.min(curve.len())]),
            last_loss: mean(&curve[curve.len().saturating_sub(tenth)..]),
            kept_episode: best.map_or(curve.len() as u64, |best| best.episode),
            validations: outcome.validations.clone(),
            merge_coefficients: outcome.merge_coefficients.clone(),
            evaluation,
        }
    }
}
