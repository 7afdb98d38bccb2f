//! A batch of images under optimisation, all of it in the memory of a queue: parameters, optimiser, the images and as they are changed before
//! a network sees them. A step is queued from its beginning to its end without waiting.
//! Knows pixels; knows nothing of the network nor of what the images are for.

mod memory;

use super::augment::{Affine, RollFlip, check_changes};
use super::backend::{DeviceError, Matrix, whole};
use super::image_backend::{AdamOperands, ChannelLimits, ImageBackend, SpectrumOperands};
use super::image_parameters::{self, Parametrisation, valid_range};
use super::operation::{Checks, OperationError};
use super::optimise::{AdamSettings, AdamState};
use memory::Places;

/// What happens to the images of a step before a network sees them.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// They stay as they are.
    Nothing,
    /// One draw for all of them.
    RollFlip(RollFlip),
    /// One for each image; no scale is zero.
    Affine(Vec<Affine>),
}

/// Weights of the gradients of priors on the images as a network sees them; zero leaves a prior out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PriorWeights {
    /// Of [`crate::loss::total_variation`].
    pub total_variation: f32,
    /// Of [`crate::loss::mean_norm`].
    pub mean_norm: f32,
    /// Of [`crate::resnet::BatchNormPrior`], where a batch is made with one.
    pub batch_norm: f32,
}

/// What a batch of images is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageBatchOptions {
    /// What is optimised.
    pub parametrisation: Parametrisation,
    /// `[batch, 3, height, width]`
    pub shape: [usize; 4],
    /// Mean and standard deviation of red, green and blue.
    pub normalisation: ([f32; 3], [f32; 3]),
    /// The optimiser.
    pub adam: AdamSettings,
    /// Of [`ImageBatch::priors`].
    pub priors: PriorWeights,
}

/// Unweighted losses of the priors of a step; zero for those that were not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PriorLosses {
    /// Of [`crate::loss::total_variation`].
    pub total_variation: f64,
    /// Of [`crate::loss::mean_norm`].
    pub mean_norm: f64,
    /// Of [`crate::resnet::BatchNormPrior`].
    pub batch_norm: f64,
}

/// Images that are optimised together, in [`crate::backend::Region::Images`] of one queue, which holds one batch at a time.
///
/// A step: [`Self::begin`]; passes of a network that read [`Self::augmented`] and add to [`Self::daugmented`]; [`Self::end`];
/// [`crate::backend::Backend::finish`], once; [`Self::losses`]. After an error of the device the batch is lost: make it again from parameters and state.
pub struct ImageBatch<B: ImageBackend> {
    options: ImageBatchOptions,
    steps_done: u64,
    /// A step has ended whose outcome nobody has asked for.
    undecided: bool,
    /// Of pixels; a spectrum needs none.
    limits: Option<B::Vector>,
    spectrum: Option<B::Spectrum>,
    total_variation: Option<B::Vector>,
    /// Whether the last change was one of each image.
    warped: bool,
    places: Places,
}

const OPERATION: &str = "image batch";

/// Most images of a batch: planes that a launch counts along the axis of its grid that is no longer than 65535.
const MOST_IMAGES: usize = 65535 / 3;

impl<B: ImageBackend> ImageBatch<B> {
    /// Lays out the memory of `queue` for a batch that begins with `parameters`, and waits until they are there. Its steps can have the
    /// BatchNorm prior `batch_norm`.
    ///
    /// # Errors
    /// Not three channels, an axis of length zero, too many images, a deviation that is not above zero, a weight that is not finite, another number
    /// of parameters;
    /// [`DeviceError`].
    pub fn new(
        backend: &B,
        queue: &mut B::Queue,
        options: ImageBatchOptions,
        parameters: &[f32],
        batch_norm: Option<&B::BatchNormPrior>,
    ) -> Result<Self, OperationError> {
        let checks = Checks(OPERATION);
        let [batch, _, height, width] = options.shape;
        image_parameters::check(OPERATION, options.shape, options.normalisation)?;
        let values = [3, height, width, batch]
            .iter()
            .try_fold(1usize, |product, &axis| product.checked_mul(axis));
        let fits = values.is_some_and(|values| i32::try_from(values / batch).is_ok());
        checks.setting(
            "the number of images",
            batch as f32,
            batch <= MOST_IMAGES && fits,
            "at most 21845 of at most 2³¹ values fit",
        )?;
        let count = options.parametrisation.count(options.shape);
        checks.length("parameters", parameters, &[count])?;
        let priors = options.priors;
        for weight in [priors.total_variation, priors.mean_norm, priors.batch_norm] {
            let finite = weight.is_finite();
            checks.setting(
                "a prior's weight",
                weight,
                finite,
                "it must be a finite number",
            )?;
        }
        let (size, is_pixels) = (
            [height, width],
            options.parametrisation == Parametrisation::Pixels,
        );
        let spectrum = (!is_pixels).then(|| backend.spectrum_scratch(batch, size));
        let batch_norm = batch_norm.map(|prior| backend.batch_norm_scratch(prior, batch, size));
        let places = Places::new(options.shape, count, spectrum, batch_norm);
        backend.lay_out_images(queue, places.length)?;
        backend.upload(queue, parameters, places.parameters);
        backend.finish(queue)?;
        let limits = valid_range(options.normalisation);
        let weight = priors.total_variation;
        let weights = || backend.total_variation_weights(batch, size, weight);
        Ok(Self {
            total_variation: (weight != 0.0).then(weights),
            warped: false,
            options,
            steps_done: 0,
            undecided: false,
            limits: is_pixels.then(|| backend.vector(limits.as_flattened())),
            spectrum: (!is_pixels).then(|| backend.spectrum(batch, size, options.normalisation)),
            places,
        })
    }

    /// Goes on with the optimiser from `state`.
    ///
    /// # Errors
    /// Other lengths than those of the parameters; [`DeviceError`].
    pub fn resume(
        &mut self,
        backend: &B,
        queue: &mut B::Queue,
        state: &AdamState,
    ) -> Result<(), OperationError> {
        let count = [self.places.parameters.columns];
        Checks(OPERATION).length("first moments", &state.first, &count)?;
        Checks(OPERATION).length("second moments", &state.second, &count)?;
        backend.upload(queue, &state.first, self.places.first);
        backend.upload(queue, &state.second, self.places.second);
        backend.finish(queue)?;
        self.steps_done = state.steps_done;
        Ok(())
    }

    /// The images as a network sees them in a step, normalised: `[batch, 3·height·width]`.
    pub fn augmented(&self) -> Matrix {
        self.places.augmented
    }

    /// The gradient at [`Self::augmented`], to be added to between [`Self::begin`] and [`Self::end`].
    pub fn daugmented(&self) -> Matrix {
        self.places.daugmented
    }

    fn size(&self) -> [usize; 2] {
        [self.options.shape[2], self.options.shape[3]]
    }

    /// Queues the images of the parameters, which are the parameters themselves or those of their spectrum.
    fn make_images(&mut self, backend: &B, queue: &mut B::Queue) {
        if let (Some(spectrum), Some(operands)) = (&mut self.spectrum, self.places.spectrum) {
            backend.spectrum_images(queue, spectrum, operands);
        }
    }

    /// Queues the images of the parameters, changed, and clears the gradient.
    ///
    /// # Errors
    /// A change that does not fit the batch; nothing is queued then.
    pub fn begin(
        &mut self,
        backend: &B,
        queue: &mut B::Queue,
        change: &Change,
    ) -> Result<(), OperationError> {
        if let Change::Affine(changes) = change {
            let checks = Checks("affine warp");
            check_changes(checks, changes, self.options.shape[0])?;
            for change in changes {
                let some = change.scale != 0.0;
                checks.setting("a scale", change.scale, some, "it must not be zero")?;
            }
        }
        self.make_images(backend, queue);
        let (places, size) = (&self.places, self.size());
        backend.fill_zero(queue, places.report);
        backend.fill_zero(queue, places.daugmented);
        let (images, augmented) = (places.images, places.augmented);
        let draw = match change {
            Change::Nothing => RollFlip::default(),
            Change::RollFlip(draw) => *draw,
            Change::Affine(changes) => {
                self.warped = true;
                backend.upload_warps(queue, changes, size, places.maps);
                backend.warp(queue, images, size, places.maps, augmented);
                return Ok(());
            }
        };
        self.warped = false;
        backend.upload_indices(queue, &draw.numbers(), places.draw);
        backend.roll_flip(queue, images, size, places.draw, augmented);
        Ok(())
    }

    /// Queues the priors of the images as a network sees them, and their gradient where asked. `batch_norm` is what the batch was made with.
    pub fn priors(
        &self,
        backend: &B,
        queue: &mut B::Queue,
        batch_norm: Option<&mut B::BatchNormPrior>,
        gradient: bool,
    ) {
        let places = &self.places;
        let pixels = places.augmented;
        let dpixels = gradient.then_some(places.daugmented);
        let weight = self.options.priors.batch_norm;
        if let (Some(prior), Some(scratch)) = (batch_norm, places.batch_norm)
            && weight != 0.0
        {
            let (size, loss) = (self.size(), places.loss(Places::BATCH_NORM));
            backend.batch_norm(queue, prior, pixels, size, weight, dpixels, scratch, loss);
        }
        if let Some(weights) = &self.total_variation {
            let loss = places.loss(Places::TOTAL_VARIATION);
            backend.total_variation(queue, pixels, self.size(), weights, dpixels, loss);
        }
        let weight = self.options.priors.mean_norm;
        if weight != 0.0 {
            let loss = places.loss(Places::MEAN_NORM);
            backend.mean_norm(queue, pixels, weight, dpixels, loss);
        }
    }

    /// Queues the way of the gradient to the parameters and a step of the optimiser, which changes nothing where something is not finite.
    ///
    /// # Errors
    /// A learning rate that is not finite; nothing is queued then.
    pub fn end(
        &mut self,
        backend: &B,
        queue: &mut B::Queue,
        learning_rate: f64,
    ) -> Result<(), OperationError> {
        Checks(OPERATION).setting(
            "the learning rate",
            learning_rate as f32,
            learning_rate.is_finite(),
            "it must be a finite number",
        )?;
        let places = &self.places;
        let (size, dimages) = (self.size(), places.dimages);
        match self.warped {
            true => backend.warp_adjoint(queue, places.daugmented, size, places.maps, dimages),
            false => {
                backend.roll_flip_adjoint(queue, places.daugmented, size, places.draw, dimages);
            }
        }
        if let (Some(spectrum), Some(operands)) = (&mut self.spectrum, places.spectrum) {
            let gradients = SpectrumOperands {
                parameters: places.dparameters,
                images: dimages,
                ..operands
            };
            backend.spectrum_backward(queue, spectrum, gradients);
        }
        for suspect in places.suspects() {
            let matrix = places.of(suspect);
            backend.flag_not_finite(queue, matrix, suspect.bit(), places.flags);
        }
        self.steps_done += 1;
        self.undecided = true;
        let rates = self.options.adam.rates(self.steps_done, learning_rate);
        backend.upload(queue, &rates, places.rates);
        let operands = AdamOperands {
            values: places.parameters,
            gradient: places.dparameters,
            first: places.first,
            second: places.second,
            rates: places.rates,
            flags: places.flags,
        };
        let limits = self.limits.as_ref().map(|limits| ChannelLimits {
            limits,
            plane: self.options.shape[2] * self.options.shape[3],
        });
        backend.adam(queue, operands, &self.options.adam, limits);
        self.send_losses(backend, queue);
        Ok(())
    }

    /// Sends what [`Self::losses`] reads to the host; [`Self::end`] does so too.
    pub fn send_losses(&self, backend: &B, queue: &mut B::Queue) {
        backend.download(queue, self.places.report);
    }

    /// What the priors of the last step have found, after [`Self::end`] or [`Self::send_losses`], and [`crate::backend::Backend::finish`].
    ///
    /// # Errors
    /// [`OperationError::NotFinite`] where something was not finite: the step has changed nothing then. [`DeviceError`] in the search for it.
    pub fn losses(
        &mut self,
        backend: &B,
        queue: &mut B::Queue,
    ) -> Result<PriorLosses, OperationError> {
        let mut report = [0.0; Places::REPORT];
        backend.downloaded(queue, self.places.report, &mut report);
        let flags = report[0].to_bits();
        let ended = std::mem::take(&mut self.undecided);
        if flags != 0 {
            self.steps_done -= u64::from(ended);
            return Err(self.not_finite(backend, queue, flags));
        }
        let loss = |place: usize| whole([report[2 * place], report[2 * place + 1]]);
        Ok(PriorLosses {
            total_variation: loss(Places::TOTAL_VARIATION),
            mean_norm: loss(Places::MEAN_NORM),
            batch_norm: loss(Places::BATCH_NORM),
        })
    }

    /// The first value that is not finite, among those that `flags` suspect.
    fn not_finite(&self, backend: &B, queue: &mut B::Queue, flags: u32) -> OperationError {
        let suspects = self.places.suspects();
        let flagged = suspects.filter(|own| flags & own.bit() != 0);
        for suspect in flagged {
            let matrix = self.places.of(suspect);
            let (operation, name) = suspect.names();
            let shape: &[usize] = if matrix.rows == 1 {
                &[matrix.columns]
            } else {
                &self.options.shape
            };
            let found = self
                .fetch(backend, queue, matrix)
                .map_err(OperationError::from)
                .and_then(|values| Checks(operation).finite(name, &values, shape));
            if let Err(error) = found {
                return error;
            }
        }
        let reason = format!("it has flagged what is not finite ({flags:b}), but all values are");
        OperationError::Device(DeviceError::Lost { reason })
    }

    fn fetch(
        &self,
        backend: &B,
        queue: &mut B::Queue,
        matrix: Matrix,
    ) -> Result<Vec<f32>, DeviceError> {
        let mut values = vec![0.0; matrix.rows * matrix.columns];
        backend.download(queue, matrix);
        backend.finish(queue)?;
        backend.downloaded(queue, matrix, &mut values);
        Ok(values)
    }

    /// The parameters, after all steps that have ended. Waits.
    ///
    /// # Errors
    /// [`DeviceError`]
    pub fn parameters(&self, backend: &B, queue: &mut B::Queue) -> Result<Vec<f32>, DeviceError> {
        self.fetch(backend, queue, self.places.parameters)
    }

    /// What the optimiser remembers. Waits.
    ///
    /// # Errors
    /// [`DeviceError`]
    pub fn adam_state(&self, backend: &B, queue: &mut B::Queue) -> Result<AdamState, DeviceError> {
        Ok(AdamState {
            steps_done: self.steps_done,
            first: self.fetch(backend, queue, self.places.first)?,
            second: self.fetch(backend, queue, self.places.second)?,
        })
    }

    /// The images of the parameters, normalised, `[batch, 3, height, width]`, not changed. Waits.
    ///
    /// # Errors
    /// [`DeviceError`]
    pub fn images(&mut self, backend: &B, queue: &mut B::Queue) -> Result<Vec<f32>, DeviceError> {
        self.make_images(backend, queue);
        self.fetch(backend, queue, self.places.images)
    }
}
