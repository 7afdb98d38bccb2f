//! Images that are optimised together: their parameters, the optimiser, and the best images so far.

use super::InversionError;
use super::augmentation::Draw;
use super::objective::{BatchLabels, Objective, Terms};
use super::quantiser::Quantiser;
use super::recipe::InversionRecipe;
use crate::random::{Purpose, generator};
use crate::saved_state::{SavedState, SavedStateError};
use engine::image_parameters::ImageParameters;
use engine::operation::OperationError;
use engine::optimise::{Adam, AdamSettings};
use engine::session::Pruning;
use model::tensor::Tensor;

pub(super) struct Batch {
    pub labels: BatchLabels,
    pub shape: [usize; 4],
    image_parameters: ImageParameters,
    parameters: Vec<f32>,
    adam: Adam,
    pub best: Option<Best>,
    /// `[batch, 3, side, side]`: the images, and as the model sees them.
    images: Tensor,
    augmented: Tensor,
    dimages: Vec<f32>,
    daugmented: Vec<f32>,
    dparameters: Vec<f32>,
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
    /// Part `part` of an inversion; image i shows chosen class i modulo their number.
    pub fn new(
        recipe: &InversionRecipe,
        part: usize,
        (images_per_class, side): (usize, usize),
        classes: &[usize],
        normalisation: ([f32; 3], [f32; 3]),
    ) -> Result<Self, OperationError> {
        let chosen = classes.len();
        let count = images_per_class * chosen;
        let shape = [count, 3, side, side];
        let image_parameters = ImageParameters::new(recipe.parametrisation, shape, normalisation)?;
        let mut random = generator(recipe.seed, Purpose::FirstImages, part as u64);
        let parameters = image_parameters.draw(&mut random);
        let pixels: usize = shape.iter().product();
        Ok(Self {
            labels: BatchLabels {
                of_head: (0..count).map(|image| classes[image % chosen]).collect(),
                of_choice: (0..count).map(|image| image % chosen).collect(),
                chosen,
            },
            shape,
            adam: Adam::new(adam_settings(recipe), parameters.len()),
            best: None,
            images: Tensor::zeros(shape),
            augmented: Tensor::zeros(shape),
            dimages: vec![0.0; pixels],
            daugmented: vec![0.0; pixels],
            dparameters: vec![0.0; parameters.len()],
            image_parameters,
            parameters,
        })
    }

    pub fn set_parameters(&mut self, parameters: Vec<f32>) -> Result<(), InversionError> {
        if parameters.len() != self.parameters.len() {
            return Err(InversionError::Given {
                found: parameters.len(),
                expected: self.parameters.len(),
            });
        }
        self.parameters = parameters;
        Ok(())
    }

    /// One step down the gradient of the changed images.
    pub fn step(
        &mut self,
        objective: &mut Objective,
        draw: &Draw,
        pruning: &[Pruning],
        learning_rate: f64,
    ) -> Result<Terms, OperationError> {
        self.image_parameters
            .images(&self.parameters, self.images.data_mut())?;
        draw.apply(self.images.data(), self.shape, self.augmented.data_mut())?;
        let terms =
            objective.gradient(&self.augmented, &self.labels, pruning, &mut self.daugmented)?;
        draw.adjoint(&self.daugmented, self.shape, &mut self.dimages)?;
        self.image_parameters
            .backward(&self.dimages, &mut self.dparameters)?;
        self.adam
            .step(&mut self.parameters, &self.dparameters, learning_rate)?;
        self.image_parameters.constrain(&mut self.parameters)?;
        Ok(terms)
    }

    /// The images as they are, `[batch, 3, side, side]`, normalised.
    pub fn pixels(&mut self) -> Result<&Tensor, OperationError> {
        self.image_parameters
            .images(&self.parameters, self.images.data_mut())?;
        Ok(&self.images)
    }

    pub fn quantised(&mut self, levels: &Quantiser) -> Result<Vec<u8>, OperationError> {
        let plane = self.shape[2] * self.shape[3];
        Ok(levels.quantise(self.pixels()?.data(), plane))
    }

    /// Judges the images as they would be stored, and keeps them where they are the best.
    pub fn judge(
        &mut self,
        objective: &mut Objective,
        levels: &Quantiser,
    ) -> Result<Terms, OperationError> {
        let own = self.quantised(levels)?;
        let pixels = levels.pixels(&own, self.shape[2]);
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

    pub fn save(&self, state: &mut SavedState) {
        state.put_f32("parameters", &self.parameters);
        state.put_adam("adam", &self.adam);
        if let Some(best) = &self.best {
            state.put_u64("best_correct", &[best.correct as u64]);
            state.put_f64("best_total", &[best.total]);
            state.put_bytes("best_levels", &best.levels);
        }
    }

    pub fn read(
        &mut self,
        state: &SavedState,
        recipe: &InversionRecipe,
    ) -> Result<(), SavedStateError> {
        let count = self.parameters.len();
        self.parameters = state.f32("parameters", count)?;
        self.adam = state.adam("adam", adam_settings(recipe), count)?;
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
            if best.levels.len() != self.dimages.len() {
                return Err(SavedStateError("it is of other images".into()));
            }
            self.best = Some(best);
        }
        Ok(())
    }
}
