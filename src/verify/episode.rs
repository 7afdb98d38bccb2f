//! The few-shot task of a reference: the last images are queries, those before them the supports.

use super::VerifyError;
use super::checks::Checks;
use crate::engine::loss::{PrototypeScores, Scoring, cross_entropy, distillation};
use crate::engine::operation::OperationError;
use crate::tensor::Tensor;

pub(super) struct Episode {
    supports: usize,
    pub queries: usize,
    pub classes: usize,
    labels: Vec<usize>,
    teacher_logits: Tensor,
}

/// What an episode's scores amount to.
pub(super) struct EpisodeLosses {
    /// `[queries, classes]`
    pub scores: Vec<f32>,
    /// KL(softmax(teacher) ‖ softmax(scores)), mean over queries.
    pub divergence: f32,
    pub cross_entropy: f32,
}

impl Episode {
    /// `teacher_logits` `[queries, classes]` says how many queries there are; `None` without it.
    pub fn read(checks: &mut Checks<'_>, labels: &[usize]) -> Result<Option<Self>, VerifyError> {
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

    /// Scores the queries by minus the squared Euclidean distance to the prototypes of `features` `[images, width]`.
    /// Overwrites `dfeatures` with the gradient of the divergence.
    pub fn losses(
        &self,
        features: &[f32],
        dfeatures: Option<&mut [f32]>,
    ) -> Result<EpisodeLosses, OperationError> {
        let width = features.len() / self.labels.len();
        let (supports, queries) = features.split_at(self.supports * width);
        let (support_labels, query_labels) = self.labels.split_at(self.supports);
        let classes = self.classes;
        let mut scores = vec![0.0; self.queries * classes];
        let mut prototypes = PrototypeScores::new(Scoring::default());
        prototypes.forward(
            supports,
            support_labels,
            queries,
            [classes, width],
            &mut scores,
        )?;
        let mut dscores = vec![0.0; scores.len()];
        let teacher = self.teacher_logits.data();
        let divergence = distillation(teacher, &scores, classes, 1.0, Some(&mut dscores))?;
        if let Some(dfeatures) = dfeatures {
            let (dsupports, dqueries) = dfeatures.split_at_mut(self.supports * width);
            prototypes.backward(&dscores, dsupports, dqueries)?;
        }
        Ok(EpisodeLosses {
            cross_entropy: cross_entropy(&scores, query_labels, classes, None)?,
            divergence,
            scores,
        })
    }
}
