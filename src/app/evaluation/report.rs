//! What an evaluation answers, also as JSON.

use super::method::MethodKind;
use crate::inference::EncoderInfo;
use engine::distance::Distance;
use recycle::episode::EpisodeShape;
use recycle::evaluate::{Accuracy, Certainty, accuracy, paired_difference};
use recycle::head::HeadChoice;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How well methods do on the same tasks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EvaluationReport {
    /// Of each task.
    #[serde(flatten)]
    pub shape: EpisodeShape,
    /// Random tasks that were drawn.
    pub tasks: usize,
    /// The same seed draws the same tasks from the same pictures.
    pub seed: u64,
    /// Between a query and the prototype of a class.
    pub distance: Distance,
    /// Classes that tasks were drawn from.
    pub classes: usize,
    /// Pictures that tasks were drawn from.
    pub images: usize,
    /// Its name.
    pub backbone: String,
    /// SHA-256 over its tensors.
    pub backbone_digest: String,
    /// What computed the features; not known of evaluations by an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderInfo>,
    /// `name:version` of the adapters that were merged.
    pub pool: Vec<String>,
    /// The method that differences are taken to.
    pub against: MethodKind,
    /// In the order in which they were asked for.
    pub methods: Vec<MethodReport>,
    /// `pairwise[i][j]`: accuracy of method `i` minus that of method `j`, task by task; null on the diagonal.
    pub pairwise: Vec<Vec<Option<Difference>>>,
    /// What each adapter of the pool adds, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_one_out: Option<LeaveOneOutReport>,
}

/// One method.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MethodReport {
    /// The method.
    pub name: MethodKind,
    /// `name:version`
    pub adapter: Option<String>,
    /// The head that read the features; none where the method has its own classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadChoice>,
    /// From 0 to 1.
    pub accuracy: f64,
    /// Half-width of the 95 % interval.
    pub ci95: f64,
    /// Fewer than all where a method is slow: the first of them.
    pub tasks: usize,
    /// Accuracy minus that of `against`, task by task.
    pub difference: Option<Difference>,
    /// How sure the answers are, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certainty: Option<CertaintyReport>,
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
    /// Of the differences.
    pub mean: f64,
    /// Half-width of the 95 % interval.
    pub ci95: f64,
}

/// How sure the answers of a method are, over all tasks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct CertaintyReport {
    /// Expected calibration error of the highest probability, in 15 bins of equal width; from 0 to 1.
    pub calibration_error: f64,
    /// Mean negative log-likelihood of the right class, in nats.
    pub log_loss: f64,
    /// How well the highest probability tells queries from as many pictures of classes that are not in the task: area under the curve,
    /// 0.5 for chance.
    pub confidence_auroc: Difference,
    /// The same by novelty; null where there are too few examples for it.
    pub novelty_auroc: Option<Difference>,
    /// Share of queries that are refused when 0.05 may be.
    pub known_refused: Option<f64>,
    /// Share of the other pictures that are refused then.
    pub unknown_refused: Option<f64>,
}

impl From<Certainty> for CertaintyReport {
    fn from(certainty: Certainty) -> Self {
        let mean = |own: Accuracy| Difference {
            mean: own.mean,
            ci95: own.ci95,
        };
        Self {
            calibration_error: certainty.calibration_error,
            log_loss: certainty.log_loss,
            confidence_auroc: mean(certainty.confidence_auroc),
            novelty_auroc: certainty.novelty_auroc.map(mean),
            known_refused: certainty.known_refused,
            unknown_refused: certainty.unknown_refused,
        }
    }
}

/// The sum of all adapters, and of all but one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeaveOneOutReport {
    /// Of the sum of all, from 0 to 1.
    pub accuracy: f64,
    /// Half-width of the 95 % interval.
    pub ci95: f64,
    /// Random tasks that were drawn.
    pub tasks: usize,
    /// How the sum of all was made.
    pub merge: MergeReport,
    /// In the order of the pool.
    pub adapters: Vec<LeftOut>,
}

/// What one adapter adds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// `name:version`
    pub adapter: String,
    /// Of the sum of the others, from 0 to 1.
    pub accuracy_without: f64,
    /// Accuracy with it minus without it, task by task: below 0 it harms.
    pub effect: Difference,
}

/// How adapters were merged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MergeReport {
    /// What the merge was multiplied with.
    #[serde(alias = "factor")] // old spelling
    pub scale: f64,
    /// Who chose it.
    #[serde(alias = "factor_from")]
    pub scale_from: ScaleSource,
    /// Mean accuracy on synthetic tasks by scale, where it was chosen there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<TriedScale>,
    /// Largest rank of the result.
    pub rank: usize,
}

/// Where a scale comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleSource {
    /// The request names it.
    Given,
    /// 1, as the method is defined.
    Definition,
    /// The best on synthetic tasks of each adapter, which was left out of its merge.
    SyntheticTasks,
}

/// A scale, and the accuracy on synthetic tasks with it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct TriedScale {
    /// What the merge was multiplied with.
    #[serde(alias = "factor")] // old spelling
    pub scale: f64,
    /// From 0 to 1.
    pub accuracy: f64,
}

/// How the adapter of each task was tuned.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TuningReport {
    /// Optimiser steps for each task.
    pub steps: u64,
    /// Of the adapter's low-rank pairs.
    pub rank: usize,
    /// Adam's step.
    pub learning_rate: f64,
    /// Whether it was the best on validation tasks.
    pub learning_rate_from_validation: bool,
}

/// A method that has run: its accuracy on each task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MethodRun {
    pub(super) kind: MethodKind,
    pub(super) adapter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<HeadChoice>,
    pub(super) accuracies: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) certainty: Option<CertaintyReport>,
    pub(super) merge: Option<MergeReport>,
    pub(super) tuning: Option<TuningReport>,
}

impl MethodRun {
    /// One that has still to run.
    pub(super) fn of(kind: MethodKind) -> Self {
        Self {
            kind,
            adapter: None,
            head: None,
            certainty: None,
            accuracies: Vec::new(),
            merge: None,
            tuning: None,
        }
    }

    /// Whether the sum is what `leave_one_out` takes the others from.
    pub(super) fn is_sum_of_chosen_scale(&self) -> bool {
        let merge = self.merge.as_ref().filter(|_| self.kind == MethodKind::SUM);
        merge.is_some_and(|merge| merge.scale_from == ScaleSource::SyntheticTasks)
    }

    pub(super) fn report(&self, against: &Self) -> MethodReport {
        let Accuracy { mean, ci95 } = accuracy(&self.accuracies);
        MethodReport {
            name: self.kind,
            adapter: self.adapter.clone(),
            head: self.head,
            accuracy: mean,
            ci95,
            tasks: self.accuracies.len(),
            difference: self.minus(against),
            certainty: self.certainty,
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
pub(super) fn pairwise(runs: &[MethodRun]) -> Vec<Vec<Option<Difference>>> {
    let row = |own: &MethodRun| runs.iter().map(|other| own.minus(other)).collect();
    runs.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::adapter::{MergeMethod, Merging};
    use serde_json::json;

    #[test]
    fn a_line_of_an_earlier_version_is_read_and_written_with_the_names_of_today() {
        let then = json!({
            "kind": "ctm", "adapter": null, "accuracies": [0.5, 0.75], "tuning": null, // old spelling
            "merge": {
                "factor": 1.4, "factor_from": "synthetic_tasks", "rank": 4, // old spelling
                "tried": [{"factor": 1.4, "accuracy": 0.5}], // old spelling
            },
        });
        let run: MethodRun = serde_json::from_value(then).expect("a line");
        let kind = MethodKind::Merge(Merging::plain(MergeMethod::CompressThenMerge));
        assert_eq!(run.kind, kind);
        let today = json!(run);
        assert_eq!(today["kind"], "compress-then-merge");
        assert_eq!(
            today["merge"],
            json!({
                "scale": 1.4, "scale_from": "synthetic_tasks", "rank": 4,
                "tried": [{"scale": 1.4, "accuracy": 0.5}],
            })
        );
    }
}
