//! Tuning: labelled pictures become a LoRA with a linear head, by cross-entropy and Adam.
//!
//! A backbone's features may be of any length, and Adam's step is as large for long features as for short ones. So while
//! it is tuned the head reads `f·20/R`, where R is the mean length of the bare backbone's features on the first batch; the
//! finished head has this scale in its weight and reads `f` itself.

mod recipe;

pub(super) use recipe::MOST_STEPS;
pub use recipe::{TuneEarlyStop, TuneRecipe};

use super::fresh_adapter::{PairShape, fresh_adapter, pair_values, set_pair_values};
use super::head_pass::{HeadPart, HeadPass, count_correct};
use super::labelled_images::{LabelledImages, Split};
use super::random::{Purpose, generator};
use super::recipe::RecipeError;
use super::saved_state::{SavedState, SavedStateError};
use super::steps::{StepReport, Steps};
use engine::loss::{LinearHeadGradients, cross_entropy, linear_head_backward};
use engine::operation::OperationError;
use engine::optimise::{Adam, AdamSettings};
use engine::session::{Input, Session, SessionOptions, Wanted};
use engine::vit::Differentiate;
use model::adapter::{Adapter, Head, HeadInput};
use model::backbone::{Backbone, BackboneConfig};
use model::tensor::Tensor;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use thiserror::Error;

/// Why tuning cannot start or continue.
#[derive(Debug, Error, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum TuneError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(
        "the pictures are {found} × {found} pixels, which is not a multiple of the backbone's patch of {patch}; prepare them in another size"
    )]
    ImageSize { found: usize, patch: usize },
    #[error("early_stop needs held-out pictures, but no class has two pictures")]
    NothingHeldOut,
    #[error("tuning diverged: {0}; choose a smaller learning rate")]
    Diverged(OperationError),
    #[error(transparent)]
    Operation(#[from] OperationError),
    #[error(transparent)]
    State(#[from] SavedStateError),
}

/// How well an adapter recognises pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recognition {
    /// Pictures that were looked at.
    pub pictures: usize,
    /// From 0 to 1.
    pub accuracy: f64,
    /// Mean.
    pub cross_entropy: f64,
}

/// What tuning gives.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneOutcome {
    /// With its head and the classes' labels.
    pub adapter: Adapter,
    /// On the pictures that it learned from.
    pub training: Recognition,
    /// Absent where nothing was held out.
    pub held_out: Option<Recognition>,
    /// Cross-entropy of each step's batch.
    pub loss_curve: Vec<f64>,
    /// Whether held-out pictures were not recognised any better.
    pub stopped_early: bool,
}

/// Mean length of the features as the head reads them while it is tuned.
const FEATURE_LENGTH: f64 = 20.0;

/// Pictures that are looked at together when accuracy is measured.
const PICTURES_AT_ONCE: usize = 64;

const KIND: &str = "tuning";

/// What parts of a state were called in earlier versions.
const OLD_PARTS: [(&str, &str); 3] = [
    ("factors", "pairs"), // old spelling
    ("factors_adam", "pairs_adam"),
    ("best_factors", "best_pairs"),
];

/// The low-rank pairs and the head as the optimisers see them.
#[derive(Debug, Clone, PartialEq)]
struct Parameters {
    /// A and B of each site in order.
    pairs: Vec<f32>,
    /// Weight `[classes, width]`, then bias `[classes]`.
    head: Vec<f32>,
}

/// The best state by held-out pictures so far.
#[derive(Debug, Clone, PartialEq)]
struct Best {
    cross_entropy: f64,
    parameters: Parameters,
}

/// Sums over the pictures that have been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Tally {
    pictures: usize,
    correct: usize,
    cross_entropy: f64,
}

/// Tuning under way.
pub struct Tuning {
    session: Session,
    images: LabelledImages,
    recipe: TuneRecipe,
    table: [[f32; 256]; 3],
    split: Split,
    total_steps: u64,
    /// Shapes, scales and the values of `parameters`.
    adapter: Adapter,
    parameters: Parameters,
    pairs_adam: Adam,
    head_adam: Adam,
    /// Known from the first step on.
    feature_scale: f32,
    steps_done: u64,
    stopped_early: bool,
    checks_without_gain: u64,
    best: Option<Best>,
    loss_curve: Vec<f64>,
    /// Of training and held-out pictures.
    tallies: [Tally; 2],
}

impl Tuning {
    /// Starts from the beginning.
    ///
    /// # Errors
    /// [`TuneError`] for a recipe or pictures that do not fit the backbone.
    pub fn new(
        backbone: &Backbone,
        images: LabelledImages,
        recipe: TuneRecipe,
        options: SessionOptions,
    ) -> Result<Self, TuneError> {
        let config = &backbone.config;
        recipe.validate(config)?;
        if config.grid(images.image_size()).is_none() {
            return Err(TuneError::ImageSize {
                found: images.image_size(),
                patch: config.patch_size,
            });
        }
        let split = images.split(recipe.held_out, recipe.seed);
        if recipe.early_stop.is_some() && split.held_out.is_empty() {
            return Err(TuneError::NothingHeldOut);
        }
        let adapter = first_adapter(config, &recipe, images.classes())?;
        let width = config.feature_width();
        let classes = images.classes().len();
        let parameters = Parameters {
            pairs: pair_values(&adapter),
            head: vec![0.0; classes * (width + 1)],
        };
        let settings = AdamSettings::default();
        Ok(Self {
            session: Session::new(backbone, options)?,
            table: backbone.preprocess.normalised_levels(),
            total_steps: recipe.total_steps(split.training.len()),
            pairs_adam: Adam::new(settings, parameters.pairs.len()),
            head_adam: Adam::new(settings, parameters.head.len()),
            images,
            recipe,
            split,
            adapter,
            parameters,
            feature_scale: 0.0,
            steps_done: 0,
            stopped_early: false,
            checks_without_gain: 0,
            best: None,
            loss_curve: Vec::new(),
            tallies: [Tally::default(); 2],
        })
    }

    /// Goes on from `state`, which [`Steps::state`] of the same recipe, pictures and backbone gave.
    ///
    /// # Errors
    /// As [`Self::new`], and [`TuneError::State`].
    pub fn resume(
        backbone: &Backbone,
        images: LabelledImages,
        recipe: TuneRecipe,
        options: SessionOptions,
        state: &[u8],
    ) -> Result<Self, TuneError> {
        let mut tuning = Self::new(backbone, images, recipe, options)?;
        tuning.read_state(&SavedState::read(state, KIND)?.with_old_names(&OLD_PARTS))?;
        Ok(tuning)
    }

    /// The result, once all steps are done.
    pub fn outcome(&self) -> Option<TuneOutcome> {
        let [training, held_out] = self.tallies.map(Tally::recognition);
        let (true, Some(training)) = (self.is_done(), training) else {
            return None;
        };
        let mut adapter = self.adapter.clone();
        if let Some(head) = &mut adapter.head {
            let (weight, bias) = self.parameters.head.split_at(head.weight.data().len());
            let folded = weight.iter().map(|value| value * self.feature_scale);
            head.weight
                .data_mut()
                .iter_mut()
                .zip(folded)
                .for_each(|(slot, value)| *slot = value);
            if let Some(own) = &mut head.bias {
                own.data_mut().copy_from_slice(bias);
            }
        }
        Some(TuneOutcome {
            adapter,
            training,
            held_out,
            loss_curve: self.loss_curve.clone(),
            stopped_early: self.stopped_early,
        })
    }

    fn is_tuned(&self) -> bool {
        self.stopped_early || self.steps_done >= self.total_steps
    }

    fn tune(&mut self) -> Result<StepReport, TuneError> {
        let indices = self.batch();
        let mut random = generator(self.recipe.seed, Purpose::Flips, self.steps_done);
        let probability = self.recipe.flip_probability;
        let flips: Vec<bool> = indices
            .iter()
            .map(|_| random.random_bool(probability))
            .collect();
        let pixels = self.images.pixels(&indices, &flips, &self.table);
        let labels = self.labels(&indices);
        if self.steps_done == 0 {
            self.feature_scale = feature_scale(&mut self.session, &pixels)?;
        }
        let (loss, correct) = self
            .optimise(&pixels, &labels)
            .map_err(|error| match error {
                OperationError::NotFinite { .. } => TuneError::Diverged(error),
                error => TuneError::Operation(error),
            })?;
        self.steps_done += 1;
        self.loss_curve.push(loss);
        let mut figures = vec![
            ("cross_entropy", loss),
            ("accuracy", correct as f64 / labels.len() as f64),
        ];
        if let Some(stop) = self.recipe.early_stop
            && (self.steps_done.is_multiple_of(stop.check_every)
                || self.steps_done == self.total_steps)
        {
            figures.push(("held_out_cross_entropy", self.check_held_out(stop)?));
        }
        if self.is_tuned()
            && let Some(best) = self.best.take()
        {
            self.parameters = best.parameters;
            set_pair_values(&mut self.adapter, &self.parameters.pairs);
        }
        Ok(StepReport {
            phase: "tuning",
            step: self.steps_done,
            total: self.total_steps,
            figures,
        })
    }

    /// Positions of this step's pictures: all are seen once, in a new order, before one is seen again.
    fn batch(&self) -> Vec<usize> {
        let training = &self.split.training;
        let count = training.len() as u64;
        let batch = (self.recipe.batch_size as u64).min(count);
        let first = self.steps_done * batch;
        let mut order = Vec::new();
        let mut epoch = None;
        (first..first + batch)
            .map(|position| {
                if epoch != Some(position / count) {
                    epoch = Some(position / count);
                    order.clone_from(training);
                    let own = generator(self.recipe.seed, Purpose::Batches, position / count);
                    order.shuffle(&mut { own });
                }
                order[(position % count) as usize]
            })
            .collect()
    }

    fn labels(&self, indices: &[usize]) -> Vec<usize> {
        let all = self.images.labels();
        indices.iter().map(|&index| all[index] as usize).collect()
    }

    /// One step down the gradient; gives the loss and how many pictures were recognised before it.
    fn optimise(
        &mut self,
        pixels: &Tensor,
        labels: &[usize],
    ) -> Result<(f64, usize), OperationError> {
        let classes = self.images.classes().len();
        let head = head_pass(&self.parameters.head, classes, self.feature_scale);
        let width = head.width;
        let input = Input {
            adapter: Some(&self.adapter),
            ..Input::pixels(pixels)
        };
        let differentiate = Differentiate {
            pixels: false,
            pairs: true,
        };
        let batch = labels.len();
        let features = Mutex::new(vec![0.0; batch * width]);
        let logits = Mutex::new(vec![0.0; batch * classes]);
        let dlogits = Mutex::new(vec![0.0; batch * classes]);
        let keep = |into: &Mutex<Vec<f32>>, start: usize, values: &[f32]| {
            // A panic of another worker is the session's to report; the values are overwritten anyway.
            let mut into = into
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            into[start..start + values.len()].copy_from_slice(values);
        };
        let (loss, gradients) =
            self.session
                .step(&input, differentiate, |images, own, dfeatures| {
                    let part: HeadPart =
                        head.part(own, &labels[images.clone()], batch, dfeatures)?;
                    keep(&features, images.start * width, &part.features);
                    keep(&logits, images.start * classes, &part.logits);
                    keep(&dlogits, images.start * classes, &part.dlogits);
                    Ok(part.loss)
                })?;
        let into = std::sync::PoisonError::into_inner;
        let features = features.into_inner().unwrap_or_else(into);
        let dlogits = dlogits.into_inner().unwrap_or_else(into);
        let logits = logits.into_inner().unwrap_or_else(into);
        let mut dhead = vec![0.0; self.parameters.head.len()];
        let (dweight, dbias) = dhead.split_at_mut(classes * width);
        let head_gradients = LinearHeadGradients {
            dfeatures: None,
            dweight: Some(dweight),
            dbias: Some(dbias),
        };
        linear_head_backward(&features, width, head.weight, &dlogits, head_gradients)?;
        let dpairs: Vec<f32> = gradients
            .pairs
            .values()
            .flat_map(|own| own.da.data().iter().chain(own.db.data()).copied())
            .collect();
        let correct = count_correct(&logits, labels, classes);
        let Parameters { pairs, head } = &mut self.parameters;
        self.pairs_adam
            .step(pairs, &dpairs, self.recipe.learning_rate)?;
        self.head_adam
            .step(head, &dhead, self.recipe.head_learning_rate)?;
        set_pair_values(&mut self.adapter, pairs);
        Ok((loss, correct))
    }

    /// Looks at the held-out pictures, keeps the best state, and decides whether to stop. Gives their cross-entropy.
    fn check_held_out(&mut self, stop: TuneEarlyStop) -> Result<f64, TuneError> {
        let indices = self.split.held_out.clone();
        let mut tally = Tally::default();
        for part in indices.chunks(PICTURES_AT_ONCE) {
            self.recognise(part, &mut tally)?;
        }
        let cross_entropy = tally.cross_entropy / tally.pictures as f64;
        let lowest = self.best.as_ref().map(|best| best.cross_entropy);
        if lowest.is_none_or(|lowest| cross_entropy < lowest) {
            self.checks_without_gain = 0;
            self.best = Some(Best {
                cross_entropy,
                parameters: self.parameters.clone(),
            });
        } else {
            self.checks_without_gain += 1;
            let before_the_end = self.steps_done < self.total_steps;
            self.stopped_early = self.checks_without_gain >= stop.patience && before_the_end;
        }
        Ok(cross_entropy)
    }

    /// Adds the pictures at `indices`, as they are, to `tally`.
    fn recognise(&mut self, indices: &[usize], tally: &mut Tally) -> Result<(), OperationError> {
        let pixels = self.images.pixels(indices, &[], &self.table);
        let labels = self.labels(indices);
        let classes = self.images.classes().len();
        let head = head_pass(&self.parameters.head, classes, self.feature_scale);
        let input = Input {
            adapter: Some(&self.adapter),
            ..Input::pixels(&pixels)
        };
        let output = self.session.forward(&input, Wanted::default())?;
        let logits = head.logits(output.features.data())?;
        let loss = cross_entropy(&logits, &labels, classes, None)?;
        tally.pictures += labels.len();
        tally.correct += count_correct(&logits, &labels, classes);
        tally.cross_entropy += f64::from(loss) * labels.len() as f64;
        Ok(())
    }

    /// Looks at the next pictures of those that are left.
    fn check(&mut self) -> Result<StepReport, TuneError> {
        let parts = [&self.split.training, &self.split.held_out];
        let which = usize::from(self.tallies[0].pictures == parts[0].len());
        let done = self.tallies[which].pictures;
        let end = (done + PICTURES_AT_ONCE).min(parts[which].len());
        let indices = parts[which][done..end].to_vec();
        let mut tally = self.tallies[which];
        self.recognise(&indices, &mut tally)?;
        self.tallies[which] = tally;
        let mut figures = Vec::new();
        if let Some(training) = self.tallies[0].recognition() {
            figures.push(("training_accuracy", training.accuracy));
        }
        if let Some(held_out) = self.tallies[1].recognition() {
            figures.push(("held_out_accuracy", held_out.accuracy));
        }
        Ok(StepReport {
            phase: "checking",
            step: self.checks_done(),
            total: self.checks_total(),
            figures,
        })
    }

    fn checks_done(&self) -> u64 {
        let done = self.tallies.map(|t| t.pictures.div_ceil(PICTURES_AT_ONCE));
        (done[0] + done[1]) as u64
    }

    fn checks_total(&self) -> u64 {
        let parts = [&self.split.training, &self.split.held_out];
        let all = parts.map(|part| part.len().div_ceil(PICTURES_AT_ONCE));
        (all[0] + all[1]) as u64
    }

    fn read_state(&mut self, state: &SavedState) -> Result<(), SavedStateError> {
        let settings = AdamSettings::default();
        let (pairs, head) = (self.parameters.pairs.len(), self.parameters.head.len());
        let parameters = |prefix: &str| -> Result<Parameters, SavedStateError> {
            Ok(Parameters {
                pairs: state.f32(&format!("{prefix}pairs"), pairs)?,
                head: state.f32(&format!("{prefix}head"), head)?,
            })
        };
        self.parameters = parameters("")?;
        self.pairs_adam = Adam::resume(settings, state.adam("pairs_adam", pairs)?);
        self.head_adam = Adam::resume(settings, state.adam("head_adam", head)?);
        self.feature_scale = state.f32("feature_scale", 1)?[0];
        let counters: [u64; 7] = state.u64("counters")?;
        let [steps_done, stopped, without_gain, tallies @ ..] = counters;
        self.steps_done = steps_done;
        self.stopped_early = stopped != 0;
        self.checks_without_gain = without_gain;
        self.loss_curve = state.f64("loss_curve")?;
        let sums = state.f64("tallies")?;
        let parts = [&self.split.training, &self.split.held_out];
        for (which, tally) in self.tallies.iter_mut().enumerate() {
            tally.pictures = tallies[2 * which] as usize;
            tally.correct = tallies[2 * which + 1] as usize;
            tally.cross_entropy = sums.get(which).copied().unwrap_or(f64::NAN);
            if tally.pictures > parts[which].len() || !tally.cross_entropy.is_finite() {
                return Err(SavedStateError("it is of other pictures".into()));
            }
        }
        if steps_done > self.total_steps || self.loss_curve.len() as u64 != steps_done {
            return Err(SavedStateError("it is of another recipe".into()));
        }
        self.best = None;
        if state.has("best_cross_entropy") {
            self.best = Some(Best {
                cross_entropy: state
                    .f64("best_cross_entropy")?
                    .first()
                    .copied()
                    .unwrap_or(f64::INFINITY),
                parameters: parameters("best_")?,
            });
        }
        set_pair_values(&mut self.adapter, &self.parameters.pairs);
        Ok(())
    }
}

impl Steps for Tuning {
    type Error = TuneError;

    fn is_done(&self) -> bool {
        self.is_tuned() && self.checks_done() >= self.checks_total()
    }

    fn step(&mut self) -> Result<StepReport, TuneError> {
        if self.is_tuned() {
            self.check()
        } else {
            self.tune()
        }
    }

    fn state(&mut self) -> Result<Vec<u8>, TuneError> {
        let mut state = SavedState::default();
        state.put_f32("pairs", &self.parameters.pairs);
        state.put_f32("head", &self.parameters.head);
        state.put_adam("pairs_adam", self.pairs_adam.state());
        state.put_adam("head_adam", self.head_adam.state());
        state.put_f32("feature_scale", &[self.feature_scale]);
        let [training, held_out] = self.tallies;
        let counters = [
            self.steps_done,
            u64::from(self.stopped_early),
            self.checks_without_gain,
            training.pictures as u64,
            training.correct as u64,
            held_out.pictures as u64,
            held_out.correct as u64,
        ];
        state.put_u64("counters", &counters);
        state.put_f64("tallies", &[training.cross_entropy, held_out.cross_entropy]);
        state.put_f64("loss_curve", &self.loss_curve);
        if let Some(best) = &self.best {
            state.put_f64("best_cross_entropy", &[best.cross_entropy]);
            state.put_f32("best_pairs", &best.parameters.pairs);
            state.put_f32("best_head", &best.parameters.head);
        }
        Ok(state.write(KIND)?)
    }
}

impl Tally {
    fn recognition(self) -> Option<Recognition> {
        let pictures = self.pictures as f64;
        (self.pictures > 0).then(|| Recognition {
            pictures: self.pictures,
            accuracy: self.correct as f64 / pictures,
            cross_entropy: self.cross_entropy / pictures,
        })
    }
}

/// An adapter that changes nothing yet, with a head of zeros.
fn first_adapter(
    config: &BackboneConfig,
    recipe: &TuneRecipe,
    classes: &[String],
) -> Result<Adapter, TuneError> {
    let layers = recipe.layers.resolve(config.layers);
    let layers = layers.map_err(|problem| RecipeError::Problems(vec![problem]))?;
    let shape = PairShape {
        layers: &layers,
        targets: &recipe.targets,
        rank: recipe.rank,
        scale: recipe.scale(),
    };
    let mut adapter = fresh_adapter(config, shape, recipe.seed);
    adapter.head = Some(Head {
        weight: Tensor::zeros([classes.len(), config.feature_width()]),
        bias: Some(Tensor::zeros([classes.len()])),
        input: HeadInput::Feature,
        labels: classes.to_vec(),
    });
    Ok(adapter)
}

fn head_pass(head: &[f32], classes: usize, scale: f32) -> HeadPass<'_> {
    let (weight, bias) = head.split_at(head.len() - classes);
    HeadPass {
        weight,
        bias: Some(bias),
        classes,
        width: weight.len() / classes,
        scale,
    }
}

/// `20/R`, where R is the mean length of the bare backbone's features of `pixels`.
fn feature_scale(session: &mut Session, pixels: &Tensor) -> Result<f32, OperationError> {
    let output = session.forward(&Input::pixels(pixels), Wanted::default())?;
    let features = &output.features;
    let rows = features.shape()[0];
    let lengths = (0..rows).map(|row| {
        let squares = features
            .row(row)
            .iter()
            .map(|&value| f64::from(value).powi(2));
        squares.sum::<f64>().sqrt()
    });
    let mean = lengths.sum::<f64>() / rows as f64;
    // Features of zeros have no length to go by.
    Ok(if mean > 0.0 {
        (FEATURE_LENGTH / mean) as f32
    } else {
        1.0
    })
}
