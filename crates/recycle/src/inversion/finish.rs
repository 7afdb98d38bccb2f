//! The last look at finished images: what the tuned model and the bare backbone make of them, and which tokens are kept. Works on
//! the images as they are stored.

use super::objective::{Objective, teacher_input};
use super::quantiser::Quantiser;
use super::recipe::InversionRecipe;
use crate::head_pass::{HeadPass, largest};
use crate::kept_tokens::most_attended;
use crate::prototype::softmax;
use engine::loss::{LeaveOneOut, cross_entropy};
use engine::operation::OperationError;
use engine::session::{Input, Wanted};
use serde::{Deserialize, Serialize};

/// How well the tuned model recognises the images of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClassQuality {
    /// Of the class.
    pub label: String,
    /// Images of the class.
    pub images: usize,
    /// Share of the images that it takes for this class, among all classes of its head.
    pub teacher_accuracy: f64,
    /// Mean probability that it gives this class.
    pub teacher_confidence: f64,
}

/// What the images are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quality {
    /// In the order of the images' labels.
    pub classes: Vec<ClassQuality>,
    /// Share of all images that the tuned model takes for their class, among all classes of its head.
    pub teacher_accuracy: f64,
    /// Of the tuned model on all images, mean.
    pub teacher_cross_entropy: f64,
    /// Leave-one-out, on features of length one; absent for a single class or a single image per class.
    pub bare_cross_entropy: Option<f64>,
}

/// Share of its images that a tuned model must recognise. Where it recognises fewer, they do not show what it has learned.
pub const LEAST_TEACHER_ACCURACY: f64 = 0.9;

impl Quality {
    /// Whether the inversion failed: the tuned model recognises less than [`LEAST_TEACHER_ACCURACY`] of the images.
    pub fn has_failed(&self) -> bool {
        self.teacher_accuracy.is_nan() || self.teacher_accuracy < LEAST_TEACHER_ACCURACY
    }
}

/// Results by image, in order, as far as the images have been looked at.
#[derive(Debug, Default)]
pub(super) struct CheckedImages {
    pub images: usize,
    /// `[images, classes of the head]`
    logits: Vec<f32>,
    /// `[images, feature width]`, of the bare backbone.
    bare: Vec<f32>,
    /// `[images, kept]`: positions ascending, 0 the class token, patch p = p + 1.
    pub kept_tokens: Vec<u32>,
}

/// Images that are looked at together.
pub(super) const IMAGES_AT_ONCE: usize = 64;

impl CheckedImages {
    /// Looks at the next of `levels` `[images, 3, side, side]`.
    pub fn advance(
        &mut self,
        objective: &mut Objective,
        recipe: &InversionRecipe,
        levels: (&Quantiser, &[u8]),
        side: usize,
    ) -> Result<(), OperationError> {
        let (codec, all) = levels;
        let image = 3 * side * side;
        let end = (self.images + IMAGES_AT_ONCE).min(all.len() / image);
        let pixels = codec.pixels(&all[self.images * image..end * image], side);
        let Objective {
            session,
            adapter,
            head,
            ..
        } = objective;
        let wanted = Wanted {
            class_attention: recipe.keep_ratio.is_some(),
            ..Wanted::default()
        };
        let input = teacher_input(&pixels, adapter, head.input, &[]);
        let output = session.forward(&input, wanted)?;
        let own = HeadPass::of(head).logits(output.features.data())?;
        self.logits.extend(own);
        match (recipe.keep_ratio, &output.class_attention) {
            (Some(keep), Some(attention)) => {
                for row in 0..end - self.images {
                    let attention = attention.row(row);
                    // As Python's int() cuts.
                    let dropped = (attention.len() as f64 * (1.0 - keep)) as usize;
                    self.kept_tokens.extend(most_attended(attention, dropped));
                }
            }
            _ => {
                let pruning = recipe.pruning();
                let wanted = Wanted {
                    kept_tokens: true,
                    ..Wanted::default()
                };
                let input = teacher_input(&pixels, adapter, head.input, &pruning);
                let output = session.forward(&input, wanted)?;
                let kept = output.kept_tokens.as_deref().unwrap_or_default();
                self.kept_tokens.extend_from_slice(kept);
            }
        }
        let output = session.forward(&Input::pixels(&pixels), Wanted::default())?;
        self.bare.extend_from_slice(output.features.data());
        self.images = end;
        Ok(())
    }

    /// What all images are worth; `labels` are numbers of `classes`, which are classes of a head of `head_classes`.
    pub fn quality(
        &self,
        labels: &[u32],
        classes: &[(usize, String)],
        head_classes: usize,
        leave_one_out: &mut LeaveOneOut,
    ) -> Result<Quality, OperationError> {
        let of_choice: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
        let of_head: Vec<usize> = of_choice.iter().map(|&own| classes[own].0).collect();
        let loss = cross_entropy(&self.logits, &of_head, head_classes, None)?;
        let mut of_class: Vec<ClassQuality> = classes
            .iter()
            .map(|(_, label)| ClassQuality {
                label: label.clone(),
                images: 0,
                teacher_accuracy: 0.0,
                teacher_confidence: 0.0,
            })
            .collect();
        for (index, row) in self.logits.chunks_exact(head_classes).enumerate() {
            let own = &mut of_class[of_choice[index]];
            own.images += 1;
            own.teacher_accuracy += f64::from(u8::from(largest(row) == of_head[index]));
            own.teacher_confidence += softmax(row)[of_head[index]];
        }
        let correct: f64 = of_class.iter().map(|own| own.teacher_accuracy).sum();
        let several = of_class.len() > 1 && of_class.iter().all(|own| own.images > 1);
        for own in &mut of_class {
            let images = own.images as f64;
            own.teacher_accuracy /= images;
            own.teacher_confidence /= images;
        }
        let widths = [classes.len(), self.bare.len() / labels.len()];
        let bare = several
            .then(|| leave_one_out.loss(&self.bare, &of_choice, widths, None, None))
            .transpose()?;
        Ok(Quality {
            teacher_accuracy: correct / labels.len() as f64,
            teacher_cross_entropy: f64::from(loss),
            bare_cross_entropy: bare.map(f64::from),
            classes: of_class,
        })
    }

    /// `[images, classes]`: the columns of these classes of the head.
    pub fn logits_of(&self, classes: &[(usize, String)], head_classes: usize) -> Vec<f32> {
        let rows = self.logits.chunks_exact(head_classes);
        rows.flat_map(|row| classes.iter().map(|(class, _)| row[*class]))
            .collect()
    }
}
