//! What an evaluation answers, as it stands in JSON too.

use super::method::MethodKind;
use recycle::episode::EpisodeShape;
use recycle::evaluate::{Accuracy, accuracy, paired_difference};
use recycle::prototype::Distance;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How well methods do on the same tasks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EvaluationReport {
    #[serde(flatten)]
    pub shape: EpisodeShape,
    pub tasks: usize,
    pub seed: u64,
    pub distance: Distance,
    pub classes: usize,
    pub images: usize,
    pub backbone: String,
    pub backbone_digest: String,
    /// `name:version` of the adapters that were merged.
    pub pool: Vec<String>,
    /// The method that differences are taken to.
    pub against: MethodKind,
    pub methods: Vec<MethodReport>,
    /// `pairwise[i][j]`: accuracy of method `i` minus that of method `j`, task by task; null on the diagonal.
    pub pairwise: Vec<Vec<Option<Difference>>>,
    /// What each adapter of the pool adds, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_one_out: Option<LeaveOneOut>,
}

/// One method.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MethodReport {
    pub name: MethodKind,
    /// `name:version`
    pub adapter: Option<String>,
    /// From 0 to 1.
    pub accuracy: f64,
    /// Half-width of the 95 % interval.
    pub ci95: f64,
    /// Fewer than all where a method is slow: the first of them.
    pub tasks: usize,
    /// Accuracy minus that of `against`, task by task.
    pub difference: Option<Difference>,
    /// Of a merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeReport>,
    /// Of `tune`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<TuningReport>,
}

/// A mean over tasks with half the width of its 95 % interval.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    pub mean: f64,
    pub ci95: f64,
}

/// The sum of all adapters, and of all but one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeaveOneOut {
    /// Of the sum of all, from 0 to 1.
    pub accuracy: f64,
    pub ci95: f64,
    pub tasks: usize,
    pub merge: MergeReport,
    /// In the order of the pool.
    pub adapters: Vec<LeftOut>,
}

/// What one adapter adds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// `name:version`
    pub adapter: String,
    pub accuracy_without: f64,
    /// Accuracy with it minus without it, task by task: below 0 it harms.
    pub effect: Difference,
}

/// How adapters were merged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MergeReport {
    pub factor: f64,
    pub factor_from: FactorSource,
    /// Mean accuracy on synthetic tasks by factor, where it was chosen there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<TriedFactor>,
    /// Largest rank of the result.
    pub rank: usize,
}

/// Where a factor comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FactorSource {
    Given,
    /// 1, as the method is defined.
    Definition,
    /// The best on synthetic tasks of each adapter, which was left out of its merge.
    SyntheticTasks,
}

/// A factor, and the accuracy on synthetic tasks with it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct TriedFactor {
    pub factor: f64,
    pub accuracy: f64,
}

/// How the adapter of each task was tuned.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TuningReport {
    pub steps: u64,
    pub rank: usize,
    pub learning_rate: f64,
    /// Whether it was the best on validation tasks.
    pub learning_rate_from_validation: bool,
}

/// A method that has run: its accuracy on each task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub(super) kind: MethodKind,
    pub(super) adapter: Option<String>,
    pub(super) accuracies: Vec<f64>,
    pub(super) merge: Option<MergeReport>,
    pub(super) tuning: Option<TuningReport>,
}

impl Run {
    /// One that has still to run.
    pub(super) fn of(kind: MethodKind) -> Self {
        Self {
            kind,
            adapter: None,
            accuracies: Vec::new(),
            merge: None,
            tuning: None,
        }
    }

    /// Whether the sum is what `leave_one_out` takes the others from.
    pub(super) fn is_sum_of_chosen_factor(&self) -> bool {
        let merge = self.merge.as_ref().filter(|_| self.kind == MethodKind::Sum);
        merge.is_some_and(|merge| merge.factor_from == FactorSource::SyntheticTasks)
    }

    pub(super) fn report(&self, against: &Self) -> MethodReport {
        let Accuracy { mean, ci95 } = accuracy(&self.accuracies);
        MethodReport {
            name: self.kind,
            adapter: self.adapter.clone(),
            accuracy: mean,
            ci95,
            tasks: self.accuracies.len(),
            difference: self.minus(against),
            merge: self.merge.clone(),
            tuning: self.tuning.clone(),
        }
    }

    /// `None` for the run itself.
    fn minus(&self, other: &Self) -> Option<Difference> {
        let is_other = !std::ptr::eq(self, other);
        is_other.then(|| {
            let Accuracy { mean, ci95 } = paired_difference(&self.accuracies, &other.accuracies);
            Difference { mean, ci95 }
        })
    }
}

/// Differences of all `runs` to each other.
pub(super) fn pairwise(runs: &[Run]) -> Vec<Vec<Option<Difference>>> {
    let row = |own: &Run| runs.iter().map(|other| own.minus(other)).collect();
    runs.iter().map(row).collect()
}
