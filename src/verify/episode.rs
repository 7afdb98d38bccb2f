//! The few-shot task of a reference: the last images are queries, those before them the supports.

use super::VerifyError;
use super::checks::ReferenceChecks;
use model::tensor::Tensor;
use recycle::meta_train::{EpisodeLabels, Goal};

pub(super) struct ReferenceEpisode {
    supports: usize,
    pub queries: usize,
    pub classes: usize,
    labels: Vec<usize>,
    teacher_logits: Tensor,
}

impl ReferenceEpisode {
    /// `teacher_logits` `[queries, classes]` says how many queries there are; `None` without it.
    pub fn read(
        checks: &mut ReferenceChecks<'_>,
        labels: &[usize],
    ) -> Result<Option<Self>, VerifyError> {
        if !checks.has("teacher_logits") {
            return Ok(None);
        }
        let teacher_logits = checks.input("teacher_logits")?;
        match *teacher_logits.shape() {
            [queries, classes] if queries < labels.len() => Ok(Some(Self {
                supports: labels.len() - queries,
                queries,
                classes,
                labels: labels.to_vec(),
                teacher_logits,
            })),
            _ => Err(checks.wrong(format!(
                "teacher_logits has the shape {:?}, expected [queries, classes] with fewer queries than the {} images",
                teacher_logits.shape(),
                labels.len()
            ))),
        }
    }

    pub fn labels(&self) -> EpisodeLabels<'_> {
        let (supports, queries) = self.labels.split_at(self.supports);
        EpisodeLabels {
            classes: self.classes,
            supports,
            queries,
        }
    }

    /// The teacher's answers, at temperature 1.
    pub fn teacher(&self) -> Goal<'_> {
        Goal::Teacher {
            logits: self.teacher_logits.data(),
            temperature: 1.0,
        }
    }
}
