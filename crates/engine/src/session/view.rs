//! What a step of images under optimisation asks of a model.

use super::{Output, Pruning, Wanted};
use crate::images::PriorLosses;
use crate::operation::OperationError;
use crate::vit::NormInputGradients;
use model::adapter::HeadInput;
use std::ops::Range;

/// A loss of some images: `(images, features, dfeatures)` writes the gradient at the features of these images of the batch, and gives their
/// part of the loss.
pub type SeparateLoss<'a> =
    &'a (dyn Fn(Range<usize>, &[f32], &mut [f32]) -> Result<f64, OperationError> + Sync);

/// A loss of all images together, which writes its gradient.
pub type CoupledLoss<'a> =
    &'a mut dyn FnMut(&Output, &mut CoupledGradient) -> Result<f64, OperationError>;

/// How the images of a batch are judged by their features.
pub enum ViewLoss<'a> {
    /// Each image by itself.
    Separate(SeparateLoss<'a>),
    /// All together.
    Coupled(CoupledLoss<'a>),
}

/// The images of a step through one model, and the loss that they are to lower there.
pub struct View<'a> {
    /// Number of the adapter ([`super::Session::hold`]); `None` is the bare backbone.
    pub held: Option<usize>,
    /// As [`super::Input::pruning`].
    pub pruning: &'a [Pruning],
    /// What the features are.
    pub read: HeadInput,
    /// Whether [`Output::norm_input_sums`] is asked for, by a coupled loss.
    pub norm_input_sums: bool,
    /// What is lowered.
    pub loss: ViewLoss<'a>,
}

impl View<'_> {
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            norm_input_sums: self.norm_input_sums,
            ..Wanted::default()
        }
    }
}

/// The gradient of a [`CoupledLoss`].
#[derive(Debug, Clone, Default)]
pub struct CoupledGradient {
    /// `[batch, feature_width]`
    pub dfeatures: Vec<f32>,
    /// Offset and slope of the gradient at the inputs of LayerNorms ([`NormInputGradients`]), where there is one.
    pub norm_inputs: Option<(Vec<f32>, Vec<f32>)>,
    /// Whether there is any gradient.
    pub is_wanted: bool,
}

impl CoupledGradient {
    /// Zeros, for the features of `output`.
    pub(super) fn of(output: &Output) -> Self {
        Self {
            dfeatures: vec![0.0; output.features.data().len()],
            norm_inputs: None,
            is_wanted: true,
        }
    }

    pub(super) fn norm_inputs(&self) -> Option<NormInputGradients<'_>> {
        let (offset, slope) = self.norm_inputs.as_ref()?;
        Some(NormInputGradients { offset, slope })
    }
}

/// What a step of images has found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageStep {
    /// One for each view.
    pub losses: Vec<f64>,
    /// Not weighted.
    pub priors: PriorLosses,
}
