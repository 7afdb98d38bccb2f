//! What images are optimised for: the tuned model's cross-entropy, priors, and that the bare backbone does not separate them.

use super::prior::Priors;
use super::recipe::HardInversion;
use crate::head_pass::{HeadPass, count_correct};
use engine::distance::Distance;
use engine::images::Change;
use engine::loss::{LeaveOneOut, Scoring, cross_entropy};
use engine::operation::OperationError;
use engine::session::{CoupledGradient, Input, Output, Pruning, Session, View, ViewLoss, Wanted};
use model::adapter::{Adapter, Head, HeadInput};
use model::tensor::Tensor;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Number by which the session holds the adapter.
    pub held: usize,
    /// Whose classes are mixed up; without it those of the bare backbone.
    pub opponent: Option<Adapter>,
    /// Its number.
    pub opponent_held: Option<usize>,
    pub head: Head,
    pub priors: Priors,
    pub hard: Option<HardInversion>,
    pub leave_one_out: LeaveOneOut,
}

/// How the bare backbone's classes are scored.
pub(super) fn bare_scoring(score_scale: f64) -> Scoring {
    Scoring {
        distance: Distance::SquaredEuclidean,
        temperature: (1.0 / score_scale) as f32,
        unit_features: true,
    }
}

impl Objective {
    /// The terms at the images under optimisation after `change`, and a step down their gradient.
    pub fn step(
        &mut self,
        change: &Change,
        labels: &BatchLabels,
        pruning: &[Pruning],
        learning_rate: f64,
    ) -> Result<Terms, OperationError> {
        let Self {
            session,
            held,
            opponent_held,
            head,
            priors,
            hard,
            leave_one_out,
            ..
        } = self;
        let (read, reads_tokens) = (head.input, priors.reads_tokens());
        let head = HeadPass::of(head);
        let (batch, classes) = (labels.of_head.len(), head.classes);
        // An image may be looked at again where a device has no room.
        let recognised: Vec<AtomicBool> = labels.of_head.iter().map(|_| false.into()).collect();
        let look = |part: Range<usize>, features: &[f32], dfeatures: &mut [f32]| {
            let labels = &labels.of_head[part.clone()];
            let own = head.part(features, labels, batch, dfeatures)?;
            let rows = own.logits.chunks_exact(classes).zip(labels);
            for (image, (row, label)) in part.zip(rows) {
                let correct = count_correct(row, std::slice::from_ref(label), classes) == 1;
                recognised[image].store(correct, Ordering::Relaxed);
            }
            Ok(own.loss)
        };
        let mut token_prior = 0.0;
        // Statistics couple the images, so all activations wait for them.
        let mut look_at_all = |output: &Output, gradient: &mut CoupledGradient| {
            let loss = look(0..batch, output.features.data(), &mut gradient.dfeatures)?;
            token_prior = priors.tokens(output);
            gradient.norm_inputs = priors.norm_inputs();
            Ok(loss)
        };
        let teacher = View {
            held: Some(*held),
            pruning,
            read,
            norm_input_sums: reads_tokens,
            loss: match reads_tokens {
                true => ViewLoss::Coupled(&mut look_at_all),
                false => ViewLoss::Separate(&look),
            },
        };
        let mut mixed_up = |output: &Output, gradient: &mut CoupledGradient| {
            let features = output.features.data();
            let widths = [labels.chosen, output.features.shape()[1]];
            let dfeatures = Some(gradient.dfeatures.as_mut_slice());
            let loss = leave_one_out.loss(features, &labels.of_choice, widths, None, dfeatures)?;
            let loss = f64::from(loss);
            let hard = hard.unwrap_or_default();
            gradient.is_wanted = loss <= hard.cap;
            let scale = -hard.weight as f32;
            gradient
                .dfeatures
                .iter_mut()
                .for_each(|value| *value *= scale);
            Ok(loss)
        };
        let mut views = vec![teacher];
        if hard.is_some() {
            views.push(View {
                held: *opponent_held,
                pruning: &[],
                read: HeadInput::Feature,
                norm_input_sums: false,
                loss: ViewLoss::Coupled(&mut mixed_up),
            });
        }
        let step = session.step_images(change, &mut views, learning_rate)?;
        drop(views);
        let prior = token_prior + self.priors.weighted(step.priors);
        let correct = recognised
            .into_iter()
            .filter(|own| own.load(Ordering::Relaxed));
        let correct = correct.count();
        let (cross_entropy, bare) = (step.losses[0], step.losses.get(1).copied());
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
        let of_pixels = self.session.image_priors(images)?;
        prior += self.priors.weighted(of_pixels);
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
