//! Inversion: from an adapter with its head to labelled images that the tuned model is sure of, without any data.
//!
//! A step changes the images at random, follows the gradient of
//! `CE(teacher) + prior_weight·Σ priors − β·min(CE(bare backbone, leave-one-out), cap)` with Adam, and keeps pixels in their
//! range. From `pruning_start` on the teacher drops patches inside layers; the bare backbone always sees all. Every `judge_every`
//! steps and at the end the same loss is taken of the images as they would be stored: without augmentation, in whole levels, with
//! all patches. Those with the most images recognised, then the lowest loss, are the result. This look needs forward passes alone.

mod augmentation;
mod batch;
mod finish;
mod objective;
mod prior;
mod quantiser;
mod recipe;

pub use augmentation::ImageAugmentation;
pub use finish::{ClassQuality, LEAST_TEACHER_ACCURACY, Quality};
pub use prior::PriorData;
pub(super) use prior::{moments, site};
pub use recipe::{HardInversion, InversionEarlyStop, InversionRecipe, PriorWeights, class_label};

use super::recipe::RecipeError;
use super::saved_state::{SavedState, SavedStateError};
use super::steps::{StepReport, Steps};
use batch::Batch;
use engine::augment::RollFlip;
use engine::images::Change;
use engine::loss::LeaveOneOut;
use engine::operation::OperationError;
use engine::session::{Session, SessionOptions};
use finish::{CheckedImages, IMAGES_AT_ONCE};
use model::adapter::Adapter;
use model::backbone::Backbone;
use model::tensor::Tensor;
use objective::{Objective, bare_scoring};
use prior::Priors;
use quantiser::Quantiser;
use thiserror::Error;

/// Why inversion cannot start or continue.
#[derive(Debug, Error, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum InversionError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error("inversion diverged: {0}; choose a smaller learning rate or smaller weights")]
    Diverged(OperationError),
    #[error(transparent)]
    Operation(#[from] OperationError),
    #[error(transparent)]
    State(#[from] SavedStateError),
    #[error("the given start has {found} values, the images have {expected} parameters")]
    Given { found: usize, expected: usize },
}

/// Start and augmentation in place of random ones, such as those of another implementation.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenDraws {
    /// Parameters of the first part's images, in their order.
    pub start: Vec<f32>,
    /// One for each step; after the last one the recipe's follow.
    pub augmentation: Vec<RollFlip>,
}

/// Images with what is known about them.
#[derive(Debug, Clone, PartialEq)]
pub struct InversionOutcome {
    /// Labels of the inverted classes, in the order that image labels and logits count them.
    pub classes: Vec<String>,
    /// Side in pixels.
    pub image_size: usize,
    /// `[images, 3, side, side]`
    pub images: Vec<u8>,
    /// `[images]`
    pub labels: Vec<u32>,
    /// `[images, classes]`, of these images with all tokens.
    pub teacher_logits: Tensor,
    /// `[images, kept]`: positions ascending, 0 the class token, patch p = p + 1.
    pub kept_tokens: Vec<u32>,
    /// What the images are worth.
    pub quality: Quality,
    /// Optimiser steps of all parts.
    pub steps_done: u64,
    /// Whether the loss had settled before the last step.
    pub stopped_early: bool,
}

const KIND: &str = "inversion";

/// Inversion under way.
pub struct Inversion {
    recipe: InversionRecipe,
    /// The chosen classes: number in the head, and label.
    classes: Vec<(usize, String)>,
    side: usize,
    normalisation: ([f32; 3], [f32; 3]),
    levels: Quantiser,
    objective: Objective,
    /// Images of each class in each part.
    parts: Vec<usize>,
    part: usize,
    batch: Batch,
    /// Steps of this part.
    steps_done: u64,
    steps_of_all: u64,
    stopped_early: bool,
    settled: Settled,
    /// Images of the finished parts, `[images, 3, side, side]`, and their labels.
    finished: Vec<u8>,
    labels: Vec<u32>,
    checked: CheckedImages,
    given: Vec<RollFlip>,
}

/// Whether the judged loss of this part still falls.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Settled {
    lowest: f64,
    judgements_without_gain: u64,
}

impl Default for Settled {
    fn default() -> Self {
        Self {
            lowest: f64::INFINITY,
            judgements_without_gain: 0,
        }
    }
}

impl Inversion {
    /// Starts from the beginning with `adapter`, which needs its head.
    ///
    /// # Errors
    /// [`InversionError`] for a recipe that does not fit the backbone, the adapter or the priors' data.
    pub fn new(
        backbone: &Backbone,
        mut adapter: Adapter,
        data: PriorData,
        recipe: InversionRecipe,
        options: SessionOptions,
    ) -> Result<Self, InversionError> {
        let chosen = recipe.validate(&backbone.config, &adapter)?;
        let head = adapter
            .head
            .take()
            .ok_or_else(|| RecipeError::Problems(vec!["the adapter has no head".into()]))?;
        let classes: Vec<(usize, String)> = chosen
            .iter()
            .map(|&class| (class, class_label(&head, class)))
            .collect();
        let mut session = Session::new(backbone, options)?;
        session.published_residual(recipe.published_residual);
        let scoring = bare_scoring(
            recipe
                .hard
                .map_or(recipe::DEFAULT_SCORE_SCALE, |hard| hard.score_scale),
        );
        let (priors, batch_norm) = Priors::new(&recipe, data, backbone)?;
        if let Some(network) = batch_norm {
            session.set_batch_norm_prior(network);
        }
        let mut objective = Objective {
            held: session.hold(backbone, &adapter)?,
            session,
            adapter,
            opponent: None,
            opponent_held: None,
            head,
            priors,
            hard: recipe.hard,
            leave_one_out: LeaveOneOut::new(scoring),
        };
        let side = recipe.image_size.unwrap_or_else(|| backbone.image_size());
        let preprocess = &backbone.preprocess;
        let normalisation = preprocess.normalisation();
        let parts = recipe.parts();
        let first = (parts[0], side);
        Ok(Self {
            batch: Batch::start(&mut objective, &recipe, 0, first, &chosen, normalisation)?,
            levels: Quantiser::new(preprocess),
            recipe,
            classes,
            side,
            normalisation,
            objective,
            parts,
            part: 0,
            steps_done: 0,
            steps_of_all: 0,
            stopped_early: false,
            settled: Settled::default(),
            finished: Vec::new(),
            labels: Vec::new(),
            checked: CheckedImages::default(),
            given: Vec::new(),
        })
    }

    /// Goes on from `state`, which [`Steps::state`] of the same recipe, adapter and backbone gave.
    ///
    /// # Errors
    /// As [`Self::new`], and [`InversionError::State`].
    pub fn resume(
        backbone: &Backbone,
        adapter: Adapter,
        data: PriorData,
        recipe: InversionRecipe,
        options: SessionOptions,
        state: &[u8],
    ) -> Result<Self, InversionError> {
        let mut inversion = Self::new(backbone, adapter, data, recipe, options)?;
        inversion.read_state(&SavedState::read(state, KIND)?)?;
        Ok(inversion)
    }

    /// Replaces the random start and the first random changes.
    ///
    /// # Errors
    /// [`InversionError::Given`] for a start of another size.
    pub fn with_given_draws(mut self, given: GivenDraws) -> Result<Self, InversionError> {
        let session = &mut self.objective.session;
        self.batch.go_on_from(session, &given.start)?;
        self.given = given.augmentation;
        Ok(self)
    }

    /// Makes images that are hard for `opponent` in place of the bare backbone ([`InversionRecipe::against`]).
    ///
    /// # Errors
    /// [`InversionError::Operation`] for an opponent of another backbone.
    pub fn with_opponent(
        mut self,
        backbone: &Backbone,
        mut opponent: Adapter,
    ) -> Result<Self, InversionError> {
        opponent.head = None;
        let held = self.objective.session.hold(backbone, &opponent)?;
        self.objective.opponent_held = Some(held);
        self.objective.opponent = Some(opponent);
        Ok(self)
    }

    /// Takes given images in place of optimised ones, so that only the look at them is left: levels `[images, 3, side, side]`, and
    /// labels that count the chosen classes.
    ///
    /// # Errors
    /// [`InversionError::Given`] for images of another size.
    pub fn with_given_images(
        mut self,
        levels: Vec<u8>,
        labels: Vec<u32>,
    ) -> Result<Self, InversionError> {
        let expected = labels.len() * 3 * self.side * self.side;
        if levels.len() != expected {
            return Err(InversionError::Given {
                found: levels.len(),
                expected,
            });
        }
        (self.finished, self.labels) = (levels, labels);
        self.part = self.parts.len();
        Ok(self)
    }

    /// The images of this part as they are now, `[images, 3, side, side]`, normalised.
    ///
    /// # Errors
    /// Where they have diverged.
    pub fn current_pixels(&mut self) -> Result<Tensor, InversionError> {
        let mut pixels = Tensor::zeros(self.batch.shape());
        let values = self.objective.session.image_pixels()?;
        pixels.data_mut().copy_from_slice(&values);
        Ok(pixels)
    }

    /// All images as they are now, for looking at: the finished parts and the one under way. Levels
    /// `[images, 3, side, side]`, and each one's class.
    ///
    /// # Errors
    /// As [`Self::current_pixels`].
    pub fn current_images(&mut self) -> Result<(Vec<u8>, Vec<u32>), InversionError> {
        let (mut images, mut labels) = (self.finished.clone(), self.labels.clone());
        if !self.is_optimised() {
            let session = &mut self.objective.session;
            images.extend(self.batch.quantised(session, &self.levels)?);
            labels.extend(self.batch.labels.of_choice.iter().map(|&own| own as u32));
        }
        Ok((images, labels))
    }

    /// Labels of the inverted classes.
    pub fn class_labels(&self) -> Vec<String> {
        self.classes
            .iter()
            .map(|(_, label)| label.clone())
            .collect()
    }

    /// Side of the images in pixels.
    pub fn image_size(&self) -> usize {
        self.side
    }

    /// The result, once all steps are done.
    ///
    /// # Errors
    /// [`InversionError::Operation`] where the images give numbers that are not finite.
    pub fn outcome(&mut self) -> Result<Option<InversionOutcome>, InversionError> {
        if !self.is_done() {
            return Ok(None);
        }
        let head_classes = self.objective.head.weight.shape()[0];
        let quality = self.checked.quality(
            &self.labels,
            &self.classes,
            head_classes,
            &mut self.objective.leave_one_out,
        )?;
        let logits = self.checked.logits_of(&self.classes, head_classes);
        let mut teacher_logits = Tensor::zeros([self.labels.len(), self.classes.len()]);
        teacher_logits.data_mut().copy_from_slice(&logits);
        Ok(Some(InversionOutcome {
            classes: self.class_labels(),
            image_size: self.side,
            images: self.finished.clone(),
            labels: self.labels.clone(),
            teacher_logits,
            kept_tokens: self.checked.kept_tokens.clone(),
            quality,
            steps_done: self.steps_of_all,
            stopped_early: self.stopped_early,
        }))
    }

    fn is_optimised(&self) -> bool {
        self.part == self.parts.len()
    }

    fn optimise(&mut self) -> Result<StepReport, InversionError> {
        let position = ((self.part as u64) << 32) + self.steps_done;
        let given = usize::try_from(position).ok();
        let change = match given.and_then(|position| self.given.get(position)) {
            Some(&given) => Change::RollFlip(given),
            None => {
                let recipe = &self.recipe;
                let augmentation = recipe.augmentation;
                augmentation.draw(recipe.seed, position, self.batch.shape())
            }
        };
        let pruning = self.recipe.pruning_at(self.steps_done);
        let rate = self.recipe.learning_rate;
        let terms = self
            .objective
            .step(&change, &self.batch.labels, &pruning, rate)
            .map_err(diverged)?;
        self.steps_done += 1;
        self.steps_of_all += 1;
        let images = self.batch.labels.of_head.len() as f64;
        let mut figures = vec![
            ("total", terms.total),
            ("cross_entropy", terms.cross_entropy),
            ("prior", terms.prior),
            ("accuracy", terms.correct as f64 / images),
        ];
        if let Some(bare) = terms.bare_cross_entropy {
            figures.push(("bare_cross_entropy", bare));
        }
        let mut settled = false;
        let is_last = self.steps_done == self.recipe.steps;
        if is_last || self.steps_done.is_multiple_of(self.recipe.judge_every()) {
            let terms = self
                .batch
                .judge(&mut self.objective, &self.levels)
                .map_err(diverged)?;
            figures.push(("judged_total", terms.total));
            figures.push(("judged_accuracy", terms.correct as f64 / images));
            settled = self.has_settled(terms.total);
            self.stopped_early |= settled && !is_last;
        }
        let report = StepReport {
            phase: "inverting",
            step: self.part as u64 * self.recipe.steps + self.steps_done,
            total: self.parts.len() as u64 * self.recipe.steps,
            figures,
        };
        if is_last || settled {
            self.finish_part()?;
        }
        Ok(report)
    }

    /// Whether the loss has stopped falling, by the recipe's early stop.
    fn has_settled(&mut self, total: f64) -> bool {
        let Some(stop) = self.recipe.early_stop else {
            return false;
        };
        let settled = &mut self.settled;
        let gain = if settled.lowest.is_finite() {
            stop.least_gain * settled.lowest.abs().max(1e-3)
        } else {
            0.0
        };
        if total < settled.lowest - gain {
            settled.judgements_without_gain = 0;
            settled.lowest = total;
        } else {
            settled.judgements_without_gain += 1;
        }
        settled.judgements_without_gain >= stop.patience
    }

    /// Takes over the best images of this part and starts the next one.
    fn finish_part(&mut self) -> Result<(), InversionError> {
        if let Some(best) = self.batch.best.take() {
            self.finished.extend(best.levels);
            let labels = &self.batch.labels.of_choice;
            self.labels.extend(labels.iter().map(|&own| own as u32));
        }
        self.part += 1;
        self.start_part()?;
        self.steps_done = 0;
        self.settled = Settled::default();
        Ok(())
    }

    fn start_part(&mut self) -> Result<(), InversionError> {
        let Some(&images) = self.parts.get(self.part) else {
            return Ok(());
        };
        let chosen: Vec<usize> = self.classes.iter().map(|(class, _)| *class).collect();
        let size = (images, self.side);
        self.batch = Batch::start(
            &mut self.objective,
            &self.recipe,
            self.part,
            size,
            &chosen,
            self.normalisation,
        )?;
        Ok(())
    }

    fn read_state(&mut self, state: &SavedState) -> Result<(), InversionError> {
        let other = || SavedStateError("it is of another recipe".into());
        let [part, steps_done, steps_of_all, stopped, without_gain] = state.u64("counters")?;
        self.part = usize::try_from(part).map_err(|_| other())?;
        if self.part > self.parts.len() || steps_done > self.recipe.steps {
            return Err(other().into());
        }
        self.steps_done = steps_done;
        self.steps_of_all = steps_of_all;
        self.stopped_early = stopped != 0;
        self.settled = Settled {
            lowest: state
                .f64("lowest")?
                .first()
                .copied()
                .unwrap_or(f64::INFINITY),
            judgements_without_gain: without_gain,
        };
        self.finished = state.bytes("finished")?.to_vec();
        let chosen = self.classes.len();
        let done = self.parts[..self.part].iter();
        self.labels = done
            .flat_map(|images| (0..images * chosen).map(|image| (image % chosen) as u32))
            .collect();
        if self.finished.len() != self.labels.len() * 3 * self.side * self.side {
            return Err(other().into());
        }
        if !self.is_optimised() {
            self.start_part()?;
            self.batch.read(&mut self.objective.session, state)?;
        }
        Ok(())
    }

    fn check_next(&mut self) -> Result<StepReport, InversionError> {
        let levels = (&self.levels, self.finished.as_slice());
        let (objective, recipe) = (&mut self.objective, &self.recipe);
        self.checked.advance(objective, recipe, levels, self.side)?;
        let batches = |images: usize| images.div_ceil(IMAGES_AT_ONCE) as u64;
        Ok(StepReport {
            phase: "checking the images",
            step: batches(self.checked.images),
            total: batches(self.labels.len()),
            figures: vec![],
        })
    }
}

fn diverged(error: OperationError) -> InversionError {
    match error {
        OperationError::NotFinite { .. } => InversionError::Diverged(error),
        error => InversionError::Operation(error),
    }
}

impl Steps for Inversion {
    type Error = InversionError;

    fn is_done(&self) -> bool {
        self.is_optimised() && self.checked.images == self.labels.len()
    }

    fn step(&mut self) -> Result<StepReport, InversionError> {
        if self.is_optimised() {
            self.check_next()
        } else {
            self.optimise()
        }
    }

    /// Looks at finished images are not kept: they are cheap, and are made again.
    fn state(&mut self) -> Result<Vec<u8>, InversionError> {
        let mut state = SavedState::default();
        let counters = [
            self.part as u64,
            self.steps_done,
            self.steps_of_all,
            u64::from(self.stopped_early),
            self.settled.judgements_without_gain,
        ];
        state.put_u64("counters", &counters);
        state.put_f64("lowest", &[self.settled.lowest]);
        state.put_bytes("finished", &self.finished);
        if !self.is_optimised() {
            let session = &mut self.objective.session;
            self.batch.save(session, &mut state).map_err(diverged)?;
        }
        Ok(state.write(KIND)?)
    }
}
