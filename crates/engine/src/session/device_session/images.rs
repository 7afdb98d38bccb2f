//! Steps of images that are optimised: what models make of them, back to their pixels. On the processor the images are in memory of the host
//! and pass by pass is done; on a device they stay there, and the host waits once for all passes of a step.

use super::{Backend, Checked, DeviceSession, MicroBatch, checks, is_out_of_memory};
use crate::backend::Matrix;
use crate::image_backend::ImageBackend;
use crate::images::{Change, ImageBatch, ImageBatchOptions, PriorLosses};
use crate::operation::OperationError;
use crate::optimise::AdamState;
use crate::resnet::ResNet;
use crate::session::{CoupledGradient, ImageStep, Input, Output, View, ViewLoss};
use crate::vit::{Differentiate, Network, Pass, PassInput};
use model::adapter::Adapter;
use model::backbone::Backbone;
use model::tensor::Tensor;

const PIXELS: Differentiate = Differentiate {
    pixels: true,
    pairs: false,
};

/// An adapter that stays the same for many steps.
pub struct Held<B: Backend> {
    adapter: Adapter,
    /// The backbone with the adapter in its weights, on a device.
    network: Option<Network<B>>,
}

/// The images under optimisation.
pub struct Images<B: ImageBackend> {
    batch: ImageBatch<B>,
    /// On the processor: the memory that they are in.
    queue: Option<B::Queue>,
    shape: [usize; 4],
    /// On the processor: as the models see them.
    pixels: Tensor,
}

/// A micro-batch of a view: the view's number, the micro-batch's, and where its activations are.
#[derive(Clone, Copy)]
struct Part {
    view: usize,
    index: usize,
    slot: usize,
}

/// What has become of a view in a step so far.
struct Seen {
    checked: Checked,
    micro_batches: Vec<MicroBatch>,
    output: Output,
    gradient: CoupledGradient,
    loss: f64,
}

/// The rows of a micro-batch's images.
fn rows(images: Matrix, micro_batch: &MicroBatch) -> Matrix {
    Matrix {
        start: images.start + micro_batch.images.start * images.stride,
        rows: micro_batch.images.len(),
        ..images
    }
}

impl<B: ImageBackend> DeviceSession<B> {
    /// See [`crate::session::Session::hold`].
    pub fn hold(
        &mut self,
        backbone: &Backbone,
        adapter: &Adapter,
    ) -> Result<usize, OperationError> {
        checks::adapter(&self.network.config, adapter)?;
        let config = &self.network.config;
        let network = match self.backend.is_host() {
            true => None,
            false => {
                let merged = adapter.merged_into(&backbone.weights, config);
                Some(Network::new(&self.backend, config, &merged?))
            }
        };
        self.held.push(Held {
            adapter: adapter.clone(),
            network,
        });
        Ok(self.held.len() - 1)
    }

    /// See [`crate::session::Session::set_batch_norm_prior`].
    pub fn set_batch_norm_prior(&mut self, network: ResNet) {
        self.batch_norm = Some(self.backend.batch_norm_prior(network));
    }

    /// See [`crate::session::Session::start_images`].
    pub fn start_images(
        &mut self,
        options: ImageBatchOptions,
        parameters: &[f32],
    ) -> Result<(), OperationError> {
        let mut own = self.backend.is_host().then(|| self.backend.queue());
        let queue = own.as_mut().unwrap_or(&mut self.queues[0]);
        let prior = self.batch_norm.as_ref();
        let batch = ImageBatch::new(&self.backend, queue, options, parameters, prior)?;
        let on_host = own.is_some();
        self.images = Some(Box::new(Images {
            batch,
            queue: own,
            shape: options.shape,
            pixels: match on_host {
                true => Tensor::zeros(options.shape),
                false => Tensor::default(),
            },
        }));
        Ok(())
    }

    /// The images and the queue whose memory they are in.
    fn with_images<T>(
        &mut self,
        work: impl FnOnce(
            &B,
            &mut B::Queue,
            &mut ImageBatch<B>,
            Option<&mut B::BatchNormPrior>,
        ) -> Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        let Some(images) = &mut self.images else {
            return Err(OperationError::NoImages);
        };
        let queue = images.queue.as_mut().unwrap_or(&mut self.queues[0]);
        let prior = self.batch_norm.as_mut();
        work(&self.backend, queue, &mut images.batch, prior)
    }

    /// See [`crate::session::Session::resume_images`].
    pub fn resume_images(&mut self, state: &AdamState) -> Result<(), OperationError> {
        self.with_images(|backend, queue, batch, _| batch.resume(backend, queue, state))
    }

    /// See [`crate::session::Session::image_state`].
    pub fn image_state(&mut self) -> Result<(Vec<f32>, AdamState), OperationError> {
        self.with_images(|backend, queue, batch, _| {
            batch.send_losses(backend, queue);
            backend.finish(queue)?;
            batch.losses(backend, queue)?;
            let parameters = batch.parameters(backend, queue)?;
            Ok((parameters, batch.adam_state(backend, queue)?))
        })
    }

    /// See [`crate::session::Session::image_pixels`].
    pub fn image_pixels(&mut self) -> Result<Vec<f32>, OperationError> {
        self.with_images(|backend, queue, batch, _| Ok(batch.images(backend, queue)?))
    }

    /// See [`crate::session::Session::image_priors`].
    pub fn image_priors(&mut self, pixels: &Tensor) -> Result<PriorLosses, OperationError> {
        self.with_images(|backend, queue, batch, prior| {
            batch.look_at(backend, queue, pixels.data());
            batch.priors(backend, queue, prior, false);
            batch.send_losses(backend, queue);
            backend.finish(queue)?;
            batch.losses(backend, queue)
        })
    }

    /// See [`crate::session::Session::step_images`].
    pub fn step_images(
        &mut self,
        change: &Change,
        views: &mut [View<'_>],
        learning_rate: f64,
    ) -> Result<ImageStep, OperationError> {
        let Some(mut images) = self.images.take() else {
            return Err(OperationError::NoImages);
        };
        let mut held = std::mem::take(&mut self.held);
        let step = match self.backend.is_host() {
            true => self.step_on_host(&mut images, &held, change, views, learning_rate),
            false => self.step_on_device(&mut images, &mut held, change, views, learning_rate),
        };
        (self.images, self.held) = (Some(images), held);
        step
    }

    fn step_on_host(
        &mut self,
        images: &mut Images<B>,
        held: &[Held<B>],
        change: &Change,
        views: &mut [View<'_>],
        learning_rate: f64,
    ) -> Result<ImageStep, OperationError> {
        let backend = self.backend.clone();
        let batch = &mut images.batch;
        let Some(queue) = &mut images.queue else {
            return Err(OperationError::NoImages);
        };
        batch.begin(&backend, queue, change)?;
        let seen = batch.augmented();
        backend.downloaded(queue, seen, images.pixels.data_mut());
        let mut losses = Vec::with_capacity(views.len());
        for (index, view) in views.iter_mut().enumerate() {
            let input = Input {
                adapter: view.held.map(|held_index| &held[held_index].adapter),
                pruning: view.pruning,
                read: view.read,
                ..Input::pixels(&images.pixels)
            };
            let wanted = view.wanted();
            let (loss, gradients) = match &mut view.loss {
                ViewLoss::Separate(loss) => {
                    let (loss, gradients) = self.step(&input, PIXELS, *loss)?;
                    (loss, Some(gradients))
                }
                ViewLoss::Coupled(loss) => {
                    let output = self.forward_for(&input, wanted, PIXELS)?;
                    let mut gradient = CoupledGradient::of(output);
                    let loss = loss(output, &mut gradient)?;
                    let back = gradient.is_wanted;
                    let gradients = back
                        .then(|| self.backward(&gradient.dfeatures, gradient.norm_inputs()))
                        .transpose()?;
                    (loss, gradients)
                }
            };
            losses.push(loss);
            if let Some(pixels) = gradients.and_then(|own| own.pixels.as_ref()) {
                batch.add_gradient(&backend, queue, pixels.data());
            }
            if index == 0 {
                batch.priors(&backend, queue, self.batch_norm.as_mut(), true);
            }
        }
        batch.end(&backend, queue, learning_rate)?;
        backend.finish(queue)?;
        let priors = batch.losses(&backend, queue)?;
        Ok(ImageStep { losses, priors })
    }

    /// All passes of all views are queued together where they are one micro-batch each and the device has room, so that the host waits once.
    fn step_on_device(
        &mut self,
        images: &mut Images<B>,
        held: &mut [Held<B>],
        change: &Change,
        views: &mut [View<'_>],
        learning_rate: f64,
    ) -> Result<ImageStep, OperationError> {
        let tokens = match self.network.config.grid(images.shape[3]) {
            Some(grid) => {
                let networks = held.iter_mut().filter_map(|own| own.network.as_mut());
                networks.for_each(|network| network.prepare_grid(&self.backend, grid));
                1 + grid * grid
            }
            None => 1,
        };
        let mut together = true;
        loop {
            let step = self.try_on_device(images, held, change, views, learning_rate, together);
            if !is_out_of_memory(&step) {
                return step;
            }
            // First one view after another, then fewer images at a time.
            if !std::mem::take(&mut together)
                && !self.halve_micro_batches_of(images.shape[0], tokens)
            {
                return step;
            }
        }
    }

    fn try_on_device(
        &mut self,
        images: &mut Images<B>,
        held: &[Held<B>],
        change: &Change,
        views: &mut [View<'_>],
        learning_rate: f64,
        together: bool,
    ) -> Result<ImageStep, OperationError> {
        let backend = self.backend.clone();
        let batch = &mut images.batch;
        let mut seen = self.seen(images.shape, views)?;
        let groups = groups(&seen, views, together);
        // What the host waits for, and what follows; many micro-batches are too many pieces to remember.
        let in_pieces = groups.len() == 1;
        if in_pieces {
            backend.begin_piece(&mut self.queues[0]);
        }
        batch.begin(&backend, &mut self.queues[0], change)?;
        batch.priors(
            &backend,
            &mut self.queues[0],
            self.batch_norm.as_mut(),
            true,
        );
        batch.send_losses(&backend, &mut self.queues[0]);
        let mut priors = None;
        for group in &groups {
            self.look(group, &mut seen, views, held, batch.augmented())?;
            if priors.is_none() {
                priors = Some(batch.losses(&backend, &mut self.queues[0])?);
            }
            take_losses(group, &mut seen, views)?;
            self.go_back(group, &seen, views, held, batch.daugmented(), in_pieces)?;
        }
        batch.end(&backend, &mut self.queues[0], learning_rate)?;
        backend.end_piece(&mut self.queues[0]);
        Ok(ImageStep {
            losses: seen.iter().map(|own| own.loss).collect(),
            priors: priors.unwrap_or_default(),
        })
    }

    /// Nothing of any view yet, with the memory for all of it.
    fn seen(&mut self, shape: [usize; 4], views: &[View<'_>]) -> Result<Vec<Seen>, OperationError> {
        let nothing = Tensor::default();
        let seen = views.iter().map(|view| {
            let input = Input {
                pruning: view.pruning,
                read: view.read,
                ..Input::pixels(&nothing)
            };
            let entered = checks::pixels(&self.network.config, &shape)?;
            let mut checked = self.check_entered(&input, entered, None)?;
            let wanted = view.wanted();
            checked.want(wanted);
            let micro_batches = self.split(&checked, PIXELS);
            let mut output = Output::default();
            output.prepare(&checked, wanted, &self.network.config, &micro_batches);
            Ok(Seen {
                gradient: CoupledGradient::of(&output),
                checked,
                micro_batches,
                output,
                loss: 0.0,
            })
        });
        seen.collect()
    }

    /// Queues the forward passes of `group`, waits, and takes what they give.
    fn look(
        &mut self,
        group: &[Part],
        seen: &mut [Seen],
        views: &[View<'_>],
        held: &[Held<B>],
        images: Matrix,
    ) -> Result<(), OperationError> {
        let (backend, queue) = (&self.backend, &mut self.queues[0]);
        let network = |view: usize| network(&self.network, held, views, view);
        let mut outputs = Vec::new();
        for (view, own) in seen.iter_mut().enumerate() {
            let outputs_of_view = own.output.split(&own.micro_batches);
            let all = own.micro_batches.iter().zip(outputs_of_view);
            for (index, (micro_batch, output)) in all.enumerate() {
                let part = group
                    .iter()
                    .find(|own| (own.view, own.index) == (view, index));
                outputs.extend(part.map(|part| (part, micro_batch, output)));
            }
        }
        for (part, micro_batch, output) in &outputs {
            let plan = &micro_batch.plan;
            let network = network(part.view);
            let mut pass = Pass::enter(backend, network, None, plan, queue, part.slot)?;
            let source = PassInput::Images(rows(images, micro_batch));
            pass.forward(source, None, views[part.view].read, output);
        }
        backend.finish(queue)?;
        for (part, micro_batch, output) in &mut outputs {
            let plan = &micro_batch.plan;
            let network = network(part.view);
            let pass = Pass::enter(backend, network, None, plan, queue, part.slot)?;
            pass.take_output(views[part.view].read, output);
        }
        Ok(())
    }

    /// Queues the backward passes of `group`, which add to `dimages`; the last piece is left open.
    fn go_back(
        &mut self,
        group: &[Part],
        seen: &[Seen],
        views: &[View<'_>],
        held: &[Held<B>],
        dimages: Matrix,
        in_pieces: bool,
    ) -> Result<(), OperationError> {
        let backend = self.backend.clone();
        if in_pieces {
            backend.begin_piece(&mut self.queues[0]);
        }
        for part in group {
            let own = &seen[part.view];
            if !own.gradient.is_wanted {
                continue;
            }
            let given = own.gradient.norm_inputs();
            if given.is_some() && in_pieces {
                backend.end_piece(&mut self.queues[0]);
                backend.begin_piece(&mut self.queues[0]);
            }
            self.take_norm_inputs(given);
            let norm_inputs = given.and(self.norm_inputs.as_ref());
            let network = network(&self.network, held, views, part.view);
            let micro_batch = &own.micro_batches[part.index];
            let (images, width) = (&micro_batch.images, own.checked.feature_width);
            let dfeatures = &own.gradient.dfeatures[images.start * width..images.end * width];
            let (queue, plan) = (&mut self.queues[0], &micro_batch.plan);
            let mut pass = Pass::enter(&backend, network, None, plan, queue, part.slot)?;
            let into = Some(rows(dimages, micro_batch));
            pass.backward(dfeatures, views[part.view].read, norm_inputs, into);
        }
        Ok(())
    }
}

/// The backbone, or with the view's adapter in its weights.
fn network<'a, B: Backend>(
    bare: &'a Network<B>,
    held: &'a [Held<B>],
    views: &[View<'_>],
    view: usize,
) -> &'a Network<B> {
    let own = views[view]
        .held
        .and_then(|held_index| held[held_index].network.as_ref());
    own.unwrap_or(bare)
}

/// What is computed at once: all of it where every view is one micro-batch; else each micro-batch whose loss is its own, and all of a view
/// whose images are coupled.
fn groups(seen: &[Seen], views: &[View<'_>], together: bool) -> Vec<Vec<Part>> {
    if together && seen.iter().all(|own| own.micro_batches.len() == 1) {
        let part = |view| Part {
            view,
            index: 0,
            slot: view,
        };
        return vec![(0..views.len()).map(part).collect()];
    }
    let mut groups = Vec::new();
    for (view, own) in seen.iter().enumerate() {
        let parts = (0..own.micro_batches.len()).map(|index| Part {
            view,
            index,
            slot: index,
        });
        match views[view].loss {
            ViewLoss::Separate(_) => {
                groups.extend(parts.map(|part| vec![Part { slot: 0, ..part }]))
            }
            ViewLoss::Coupled(_) => groups.push(parts.collect()),
        }
    }
    groups
}

/// Asks the views of `group` for their losses and gradients.
fn take_losses(
    group: &[Part],
    seen: &mut [Seen],
    views: &mut [View<'_>],
) -> Result<(), OperationError> {
    for part in group {
        let own = &mut seen[part.view];
        match &mut views[part.view].loss {
            ViewLoss::Separate(loss) => {
                let images = own.micro_batches[part.index].images.clone();
                let width = own.checked.feature_width;
                let range = images.start * width..images.end * width;
                let features = &own.output.features.data()[range.clone()];
                own.loss += loss(images, features, &mut own.gradient.dfeatures[range])?;
            }
            ViewLoss::Coupled(loss) if part.index == 0 => {
                let nothing = Tensor::default();
                own.output
                    .join(&own.checked, &own.micro_batches, &Input::pixels(&nothing));
                own.loss = loss(&own.output, &mut own.gradient)?;
            }
            ViewLoss::Coupled(_) => {}
        }
    }
    Ok(())
}
