//! Images that are optimised together: their parameters, the optimiser, and the best images so far.

use super::InversionError;
use super::objective::{BatchLabels, Objective, Terms};
use super::quantiser::Quantiser;
use super::recipe::InversionRecipe;
use crate::random::{Purpose, generator};
use crate::saved_state::{SavedState, SavedStateError};
use engine::images::ImageBatchOptions;
use engine::operation::OperationError;
use engine::optimise::AdamSettings;
use engine::session::Session;

pub(super) struct Batch {
    pub labels: BatchLabels,
    options: ImageBatchOptions,
    pub best: Option<Best>,
}

/// The best images so far, judged without augmentation: more are recognised, or as many at a lower loss.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Best {
    pub correct: usize,
    pub total: f64,
    /// `[batch, 3, side, side]`; a copy.
    pub levels: Vec<u8>,
}

fn adam_settings(recipe: &InversionRecipe) -> AdamSettings {
    AdamSettings {
        beta1: recipe.beta1,
        beta2: recipe.beta2,
        ..AdamSettings::default()
    }
}

impl Batch {
    /// Part `part` of an inversion, which the session of `objective` begins to optimise; image i shows chosen class i modulo their number.
    pub fn start(
        objective: &mut Objective,
        recipe: &InversionRecipe,
        part: usize,
        (images_per_class, side): (usize, usize),
        classes: &[usize],
        normalisation: ([f32; 3], [f32; 3]),
    ) -> Result<Self, OperationError> {
        let chosen = classes.len();
        let count = images_per_class * chosen;
        let shape = [count, 3, side, side];
        let options = ImageBatchOptions {
            parametrisation: recipe.parametrisation,
            shape,
            normalisation,
            adam: adam_settings(recipe),
            priors: objective.priors.of_pixels(),
        };
        let mut random = generator(recipe.seed, Purpose::FirstImages, part as u64);
        let parameters = recipe.parametrisation.draw(shape, &mut random);
        objective.session.start_images(options, &parameters)?;
        Ok(Self {
            labels: BatchLabels {
                of_head: (0..count).map(|image| classes[image % chosen]).collect(),
                of_choice: (0..count).map(|image| image % chosen).collect(),
                chosen,
            },
            options,
            best: None,
        })
    }

    /// `[batch, 3, side, side]`
    pub fn shape(&self) -> [usize; 4] {
        self.options.shape
    }

    /// Goes on from other `parameters`; the optimiser stays as it is.
    pub fn go_on_from(
        &self,
        session: &mut Session,
        parameters: &[f32],
    ) -> Result<(), InversionError> {
        let expected = self.options.parametrisation.count(self.shape());
        if parameters.len() != expected {
            return Err(InversionError::Given {
                found: parameters.len(),
                expected,
            });
        }
        let (_, adam) = session.image_state()?;
        session.start_images(self.options, parameters)?;
        Ok(session.resume_images(&adam)?)
    }

    /// The images as they are, in whole levels.
    pub fn quantised(
        &self,
        session: &mut Session,
        levels: &Quantiser,
    ) -> Result<Vec<u8>, OperationError> {
        let plane = self.shape()[2] * self.shape()[3];
        Ok(levels.quantise(&session.image_pixels()?, plane))
    }

    /// Judges the images as they would be stored, and keeps them where they are the best.
    pub fn judge(
        &mut self,
        objective: &mut Objective,
        levels: &Quantiser,
    ) -> Result<Terms, OperationError> {
        let own = self.quantised(&mut objective.session, levels)?;
        let pixels = levels.pixels(&own, self.shape()[2]);
        let terms = objective.judge(&pixels, &self.labels)?;
        let better = self.best.as_ref().is_none_or(|best| {
            let more = terms.correct > best.correct;
            more || (terms.correct == best.correct && terms.total < best.total)
        });
        if better {
            self.best = Some(Best {
                correct: terms.correct,
                total: terms.total,
                levels: own,
            });
        }
        Ok(terms)
    }

    pub fn save(
        &self,
        session: &mut Session,
        state: &mut SavedState,
    ) -> Result<(), OperationError> {
        let (parameters, adam) = session.image_state()?;
        state.put_f32("parameters", &parameters);
        state.put_adam("adam", &adam);
        if let Some(best) = &self.best {
            state.put_u64("best_correct", &[best.correct as u64]);
            state.put_f64("best_total", &[best.total]);
            state.put_bytes("best_levels", &best.levels);
        }
        Ok(())
    }

    pub fn read(
        &mut self,
        session: &mut Session,
        state: &SavedState,
    ) -> Result<(), InversionError> {
        let count = self.options.parametrisation.count(self.shape());
        self.go_on_from(session, &state.f32("parameters", count)?)?;
        session.resume_images(&state.adam("adam", count)?)?;
        self.best = None;
        if state.has("best_levels") {
            let best = Best {
                correct: state.u64::<1>("best_correct")?[0] as usize,
                total: state
                    .f64("best_total")?
                    .first()
                    .copied()
                    .unwrap_or(f64::NAN),
                levels: state.bytes("best_levels")?.to_vec(),
            };
            if best.levels.len() != self.shape().iter().product::<usize>() {
                return Err(SavedStateError("it is of other images".into()).into());
            }
            self.best = Some(best);
        }
        Ok(())
    }
}
