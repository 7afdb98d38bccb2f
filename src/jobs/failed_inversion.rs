//! Inversions that ended with images which do not show what the adapter has learned: said of the job, of the pool, and before anything
//! learns from them.

use super::pool::PoolSummary;
use recycle::inversion::LEAST_TEACHER_ACCURACY;
use serde_json::Value;
use std::fmt;
use store::{JobFault, PoolRecord};

/// Stable name of the fault.
const CODE: &str = "inversion_failed";

/// An inversion whose adapter recognises too few of its images.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedInversion {
    /// `name:version`
    adapter: String,
    /// Share of the images that the adapter recognises.
    teacher_accuracy: f64,
}

impl FailedInversion {
    /// Judges `pool` by what is recorded of it. `None` where its images came out, or are real pictures: those show what they show.
    pub fn of(pool: &PoolRecord) -> Option<Self> {
        let summary: PoolSummary = serde_json::from_value(pool.summary.clone()).ok()?;
        let is_synthetic = pool.recipe.get("real").is_none_or(Value::is_null);
        (is_synthetic && summary.quality.has_failed()).then(|| Self {
            adapter: pool.adapter_label.clone(),
            teacher_accuracy: summary.quality.teacher_accuracy,
        })
    }

    /// What is said of the job and of the pool.
    pub fn fault(&self) -> JobFault {
        JobFault {
            code: CODE.to_owned(),
            message: self.to_string(),
            hint: Some("make the images again with more steps".to_owned()),
        }
    }

    /// Why nothing is learned from the images of `failed`; `None` where there are none.
    pub fn refusal(failed: &[Self]) -> Option<JobFault> {
        let sentences: Vec<String> = failed.iter().map(ToString::to_string).collect();
        (!failed.is_empty()).then(|| JobFault {
            code: CODE.to_owned(),
            message: sentences.join("; "),
            hint: Some(
                "give the images more steps (--inversion-steps, `steps` of `inversion`), or learn from them as they are: --use-failed-images, \
                 `use_failed_images` over REST, a tick on the page"
                    .to_owned(),
            ),
        })
    }
}

impl fmt::Display for FailedInversion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the inversion of {} failed: the adapter recognises {} % of its images, and must recognise at least {} %",
            self.adapter,
            percent(self.teacher_accuracy),
            percent(LEAST_TEACHER_ACCURACY)
        )
    }
}

/// Rounded down, so that what is below a bar does not read like the bar.
fn percent(share: f64) -> f64 {
    (share * 1000.0 + 1e-6).floor() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use store::{Digest, Retention};
    use uuid::Uuid;

    fn pool(teacher_accuracy: f64, recipe: Value) -> PoolRecord {
        PoolRecord {
            id: Uuid::nil(),
            key: Digest::of(b"key"),
            adapter_id: Uuid::nil(),
            adapter_label: "letters:1".into(),
            adapter_digest: Digest::of(b"adapter"),
            backbone_digest: Digest::of(b"backbone"),
            recipe,
            summary: json!({
                "image_size": 8, "images": 4, "classes": [], "teacher_accuracy": teacher_accuracy,
                "teacher_cross_entropy": 1.0, "bare_cross_entropy": null, "kept_tokens_per_image": null, "grid": 2,
                "steps_done": 3, "stopped_early": false,
            }),
            retention: Retention::Keep,
            created_ms: 0,
            files: Vec::new(),
        }
    }

    #[test]
    fn a_pool_is_judged_by_its_recorded_quality_and_real_pictures_are_not() {
        let failed = FailedInversion::of(&pool(0.8999, json!({}))).expect("failed");
        assert_eq!(
            failed.to_string(),
            "the inversion of letters:1 failed: the adapter recognises 89.9 % of its images, and must recognise at least 90 %"
        );
        assert_eq!(FailedInversion::of(&pool(0.9, json!({"real": null}))), None);
        assert_eq!(FailedInversion::of(&pool(0.2, json!({"real": "ab"}))), None);
        let refusal = FailedInversion::refusal(&[failed.clone(), failed]).expect("refused");
        assert_eq!(refusal.message.matches("letters:1").count(), 2);
        assert_eq!(FailedInversion::refusal(&[]), None);
    }
}
