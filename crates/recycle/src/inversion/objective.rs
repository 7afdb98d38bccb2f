//! What images are optimised for: the tuned model's cross-entropy, priors, and that the bare backbone does not separate them.

use super::prior::Priors;
use super::recipe::HardInversion;
use crate::head_pass::{HeadPass, count_correct};
use engine::distance::Distance;
use engine::loss::{LeaveOneOut, Scoring, cross_entropy};
use engine::operation::OperationError;
use engine::session::{Input, Pruning, Session, Wanted};
use engine::vit::{Differentiate, NormInputGradients};
use model::adapter::{Adapter, Head, HeadInput};
use model::tensor::Tensor;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which class each image of a batch shows.
#[derive(Debug, Clone)]
pub(super) struct BatchLabels {
    /// Numbers of the head's classes.
    pub of_head: Vec<usize>,
    /// Numbers of the chosen classes.
    pub of_choice: Vec<usize>,
    pub chosen: usize,
}

/// The terms of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Terms {
    pub total: f64,
    pub cross_entropy: f64,
    /// Weighted.
    pub prior: f64,
    /// Of the opponent where there is one; not capped, absent where it is not part of the loss.
    pub bare_cross_entropy: Option<f64>,
    pub correct: usize,
}

pub(super) struct Objective {
    pub session: Session,
    pub adapter: Adapter,
    /// Whose classes are mixed up; without it those of the bare backbone.
    pub opponent: Option<Adapter>,
    pub head: Head,
    pub priors: Priors,
    pub hard: Option<HardInversion>,
    pub leave_one_out: LeaveOneOut,
}

const PIXELS: Differentiate = Differentiate {
    pixels: true,
    pairs: false,
};

/// How the bare backbone's classes are scored.
pub(super) fn bare_scoring(score_scale: f64) -> Scoring {
    Scoring {
        distance: Distance::SquaredEuclidean,
        temperature: (1.0 / score_scale) as f32,
        unit_features: true,
    }
}

impl Objective {
    /// The terms at `images` `[batch, 3, side, side]`; overwrites `dimages` with the gradient of their total.
    pub fn gradient(
        &mut self,
        images: &Tensor,
        labels: &BatchLabels,
        pruning: &[Pruning],
        dimages: &mut [f32],
    ) -> Result<Terms, OperationError> {
        let (cross_entropy, correct, token_prior) =
            self.teacher_gradient(images, labels, pruning, dimages)?;
        let shape = batch_shape(images);
        let prior = token_prior
            + self
                .priors
                .pixels(images.data(), shape, Some(&mut *dimages))?;
        let bare = match self.hard {
            None => None,
            Some(hard) => Some(self.bare_gradient(images, labels, hard, dimages)?),
        };
        Ok(self.terms(cross_entropy, prior, bare, correct))
    }

    /// The terms at `images` with all patches, without gradients.
    pub fn judge(
        &mut self,
        images: &Tensor,
        labels: &BatchLabels,
    ) -> Result<Terms, OperationError> {
        let wanted = Wanted {
            norm_input_sums: self.priors.reads_tokens(),
            ..Wanted::default()
        };
        let input = teacher_input(images, &self.adapter, self.head.input, &[]);
        let output = self.session.forward(&input, wanted)?;
        let head = HeadPass::of(&self.head);
        let logits = head.logits(output.features.data())?;
        let loss = cross_entropy(&logits, &labels.of_head, head.classes, None)?;
        let correct = count_correct(&logits, &labels.of_head, head.classes);
        let mut prior = self.priors.tokens(output);
        prior += self
            .priors
            .pixels(images.data(), batch_shape(images), None)?;
        let bare = match self.hard {
            None => None,
            Some(_) => {
                let input = opponent_input(images, self.opponent.as_ref());
                let output = self.session.forward(&input, Wanted::default())?;
                let features = output.features.data();
                let widths = [labels.chosen, output.features.shape()[1]];
                let own = &labels.of_choice;
                let loss = self.leave_one_out.loss(features, own, widths, None, None)?;
                Some(f64::from(loss))
            }
        };
        Ok(self.terms(f64::from(loss), prior, bare, correct))
    }

    fn terms(&self, cross_entropy: f64, prior: f64, bare: Option<f64>, correct: usize) -> Terms {
        let hard = match (self.hard, bare) {
            (Some(hard), Some(bare)) => hard.weight * bare.min(hard.cap),
            (None, _) | (_, None) => 0.0,
        };
        Terms {
            total: cross_entropy + prior - hard,
            cross_entropy,
            prior,
            bare_cross_entropy: bare,
            correct,
        }
    }

    /// Cross-entropy, recognised images and the weighted prior of token statistics.
    fn teacher_gradient(
        &mut self,
        images: &Tensor,
        labels: &BatchLabels,
        pruning: &[Pruning],
        dimages: &mut [f32],
    ) -> Result<(f64, usize, f64), OperationError> {
        let head = HeadPass::of(&self.head);
        let input = teacher_input(images, &self.adapter, self.head.input, pruning);
        let batch = labels.of_head.len();
        let classes = head.classes;
        if !self.priors.reads_tokens() {
            // Image by image: only a micro-batch's activations are kept.
            let correct = AtomicUsize::new(0);
            let (loss, gradients) = self.session.step(&input, PIXELS, |part, own, dfeatures| {
                let labels = &labels.of_head[part];
                let part = head.part(own, labels, batch, dfeatures)?;
                let own = count_correct(&part.logits, labels, classes);
                correct.fetch_add(own, Ordering::Relaxed);
                Ok(part.loss)
            })?;
            copy_pixels(gradients.pixels.as_ref(), dimages);
            return Ok((loss, correct.into_inner(), 0.0));
        }
        // Statistics couple the images, so all activations wait for them.
        let wanted = Wanted {
            norm_input_sums: true,
            ..Wanted::default()
        };
        let output = self.session.forward_for(&input, wanted, PIXELS)?;
        let mut dfeatures = vec![0.0; output.features.data().len()];
        let features = output.features.data();
        let part = head.part(features, &labels.of_head, batch, &mut dfeatures)?;
        let prior = self.priors.tokens(output);
        let norm_inputs = self
            .priors
            .norm_inputs()
            .map(|(offset, slope)| NormInputGradients { offset, slope });
        let gradients = self.session.backward(&dfeatures, norm_inputs)?;
        copy_pixels(gradients.pixels.as_ref(), dimages);
        let correct = count_correct(&part.logits, &labels.of_head, classes);
        Ok((part.loss, correct, prior))
    }

    /// The cross-entropy of the bare backbone, or the opponent; takes its weighted gradient away from `dimages`, where it is below the cap.
    fn bare_gradient(
        &mut self,
        images: &Tensor,
        labels: &BatchLabels,
        hard: HardInversion,
        dimages: &mut [f32],
    ) -> Result<f64, OperationError> {
        let input = opponent_input(images, self.opponent.as_ref());
        let output = self
            .session
            .forward_for(&input, Wanted::default(), PIXELS)?;
        let features = output.features.data();
        let widths = [labels.chosen, output.features.shape()[1]];
        let mut dfeatures = vec![0.0; features.len()];
        let gradient = Some(dfeatures.as_mut_slice());
        let own = &labels.of_choice;
        let loss = self
            .leave_one_out
            .loss(features, own, widths, None, gradient)?;
        let loss = f64::from(loss);
        if loss > hard.cap {
            return Ok(loss);
        }
        let scale = -hard.weight as f32;
        dfeatures.iter_mut().for_each(|value| *value *= scale);
        let gradients = self.session.backward(&dfeatures, None)?;
        if let Some(own) = &gradients.pixels {
            let pairs = dimages.iter_mut().zip(own.data());
            pairs.for_each(|(sum, value)| *sum += value);
        }
        Ok(loss)
    }
}

pub(super) fn teacher_input<'a>(
    images: &'a Tensor,
    adapter: &'a Adapter,
    read: HeadInput,
    pruning: &'a [Pruning],
) -> Input<'a> {
    Input {
        adapter: Some(adapter),
        pruning,
        read,
        ..Input::pixels(images)
    }
}

fn opponent_input<'a>(images: &'a Tensor, opponent: Option<&'a Adapter>) -> Input<'a> {
    Input {
        adapter: opponent,
        ..Input::pixels(images)
    }
}

fn copy_pixels(from: Option<&Tensor>, into: &mut [f32]) {
    if let Some(from) = from {
        into.copy_from_slice(from.data());
    }
}

pub(super) fn batch_shape(images: &Tensor) -> [usize; 4] {
    let mut shape = [0; 4];
    for (slot, &axis) in shape.iter_mut().zip(images.shape()) {
        *slot = axis;
    }
    shape
}
