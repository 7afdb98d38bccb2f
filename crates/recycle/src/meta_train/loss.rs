//! The loss of one task and its gradient at the student's low-rank pairs: the step of meta-training, and what reference values are
//! compared with.

use crate::head_pass::{HeadPass, count_correct};
use engine::loss::{LdaScores, LdaScoring, PrototypeScores, Scoring, cross_entropy, distillation};
use engine::operation::OperationError;
use engine::session::{Gradients, Input, Session, Wanted};
use engine::vit::Differentiate;
use model::adapter::Head;

/// What a batch is: first the support images, then the queries, each with the number of its class in the task.
#[derive(Debug, Clone, Copy)]
pub struct EpisodeLabels<'a> {
    /// Classes of the task.
    pub classes: usize,
    /// `[supports]`
    pub supports: &'a [usize],
    /// `[queries]`
    pub queries: &'a [usize],
}

/// What turns the features of a task into scores; keeps its buffers.
#[derive(Debug)]
pub struct EpisodeScores(Kind);

#[derive(Debug)]
enum Kind {
    NearestMean(Box<PrototypeScores>),
    Lda(Box<LdaScores>),
}

impl EpisodeScores {
    /// Distances to the plain class means.
    pub fn nearest_mean(scoring: Scoring) -> Self {
        Self(Kind::NearestMean(Box::new(PrototypeScores::new(scoring))))
    }

    /// Squared distances to the class means in the metric of the supports' covariance.
    pub fn lda(scoring: LdaScoring) -> Self {
        Self(Kind::Lda(Box::new(LdaScores::new(scoring))))
    }

    fn forward(
        &mut self,
        supports: &[f32],
        labels: &[usize],
        queries: &[f32],
        sizes: [usize; 2],
        scores: &mut [f32],
    ) -> Result<(), OperationError> {
        match &mut self.0 {
            Kind::NearestMean(own) => own.forward(supports, labels, queries, sizes, scores),
            Kind::Lda(own) => own.forward(supports, labels, queries, sizes, scores),
        }
    }

    fn backward(
        &mut self,
        dscores: &[f32],
        dsupports: &mut [f32],
        dqueries: &mut [f32],
    ) -> Result<(), OperationError> {
        match &mut self.0 {
            Kind::NearestMean(own) => own.backward(dscores, dsupports, dqueries),
            Kind::Lda(own) => own.backward(dscores, dsupports, dqueries),
        }
    }
}

/// What the scores should be.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'a> {
    /// KL(softmax(teacher / T) ‖ softmax(scores / T)), mean over the queries.
    Teacher {
        /// `[queries, classes]`
        logits: &'a [f32],
        /// `T`, above 0.
        temperature: f32,
    },
    /// Cross-entropy of the queries' labels.
    Labels,
}

/// What a task gives.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeLoss {
    /// How far the scores are from the goal, mean over the queries.
    pub loss: f32,
    /// Queries whose own class has the largest score.
    pub correct: usize,
    /// `[queries, classes]`
    pub scores: Vec<f32>,
}

/// The loss of a task from its `features` `[supports + queries, width]`; overwrites `dfeatures` with its gradient.
///
/// # Errors
/// Lengths that do not fit, a class without supports, values that are not finite.
pub fn episode_loss(
    scoring: &mut EpisodeScores,
    features: &[f32],
    labels: EpisodeLabels<'_>,
    goal: Goal<'_>,
    dfeatures: Option<&mut [f32]>,
) -> Result<EpisodeLoss, OperationError> {
    let EpisodeLabels {
        classes,
        supports,
        queries,
    } = labels;
    let images = supports.len() + queries.len();
    let width = features.len().checked_div(images).unwrap_or(0);
    let at_supports = supports.len() * width;
    let (support_features, query_features) = features.split_at(at_supports);
    let mut scores = vec![0.0; queries.len() * classes];
    let sizes = [classes, width];
    scoring.forward(
        support_features,
        supports,
        query_features,
        sizes,
        &mut scores,
    )?;
    let mut dscores = vec![0.0; scores.len()];
    let wanted = dfeatures.is_some().then_some(dscores.as_mut_slice());
    let loss = match goal {
        Goal::Teacher {
            logits,
            temperature,
        } => distillation(logits, &scores, classes, temperature, wanted)?,
        Goal::Labels => cross_entropy(&scores, queries, classes, wanted)?,
    };
    if let Some(dfeatures) = dfeatures {
        let (dsupports, dqueries) = dfeatures.split_at_mut(at_supports);
        scoring.backward(&dscores, dsupports, dqueries)?;
    }
    Ok(EpisodeLoss {
        loss,
        correct: count_correct(&scores, queries, classes),
        scores,
    })
}

/// One pass of a task's images, supports first, forward and back to the low-rank pairs of the input's adapter.
///
/// # Errors
/// As [`episode_loss`], and what the session refuses.
pub fn episode_gradients<'s>(
    session: &'s mut Session,
    input: &Input<'_>,
    scoring: &mut EpisodeScores,
    labels: EpisodeLabels<'_>,
    goal: Goal<'_>,
) -> Result<(EpisodeLoss, &'s Gradients), OperationError> {
    pair_gradients(session, input, |features, dfeatures| {
        episode_loss(scoring, features, labels, goal, Some(dfeatures))
    })
}

/// One pass of images without labels forward and back to the low-rank pairs of the input's adapter: the mean entropy of the softmax
/// over all classes of `head`, which reads the features with that adapter (AdaMerging, arXiv 2310.02575), and its gradient.
///
/// # Errors
/// A head of another width than the features, and what the session refuses.
pub fn entropy_gradients<'s>(
    session: &'s mut Session,
    input: &Input<'_>,
    head: &Head,
) -> Result<(f32, &'s Gradients), OperationError> {
    let input = Input {
        read: head.input,
        ..*input
    };
    pair_gradients(session, &input, |features, dfeatures| {
        HeadPass::of(head).entropy(features, dfeatures)
    })
}

/// What `loss` gives for the features of `input`, whose gradient it writes, and the gradient at the low-rank pairs.
fn pair_gradients<'s, T>(
    session: &'s mut Session,
    input: &Input<'_>,
    loss: impl FnOnce(&[f32], &mut [f32]) -> Result<T, OperationError>,
) -> Result<(T, &'s Gradients), OperationError> {
    let differentiate = Differentiate {
        pixels: false,
        pairs: true,
    };
    let output = session.forward_for(input, Wanted::default(), differentiate)?;
    let features = output.features.data();
    let mut dfeatures = vec![0.0; features.len()];
    let loss = loss(features, &mut dfeatures)?;
    Ok((loss, session.backward(&dfeatures, None)?))
}
