//! A session on one kind of device: splits a batch into micro-batches for its queues, and joins their answers in a fixed order.
//! Knows backbones, adapters and tensors; knows nothing of losses, optimisers or images.

mod images;
mod micro_batch;
mod pictures;

pub use micro_batch::MicroBatch;

use super::checks::{self, Checked, Entered};
use super::{Gradients, Input, Output, SessionOptions, Wanted};
use crate::backend::{Backend, DeviceError};
use crate::image_backend::ImageBackend;
use crate::operation::OperationError;
use crate::vit::{
    Differentiate, ForwardOutput, LowRank, Network, NormInputGradients, NormInputVectors, Pass,
    Plan,
};
use images::{Held, Images};
use model::adapter::Adapter;
use model::backbone::{Backbone, BackboneConfig};
use model::tensor::Tensor;
use pictures::Kept;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// A forward pass that waits for its backward.
struct Pending {
    checked: Checked,
    differentiate: Differentiate,
    micro_batches: Vec<MicroBatch>,
}

/// A backbone ready to compute on one kind of device.
pub struct DeviceSession<B: ImageBackend> {
    backend: B,
    network: Network<B>,
    pool: rayon::ThreadPool,
    queues: Vec<B::Queue>,
    pub(super) threads: usize,
    rows_aimed_at: usize,
    images_per_micro_batch: usize,
    low_rank: Option<LowRank<B>>,
    norm_inputs: Option<NormInputVectors<B>>,
    plans: Vec<Arc<Plan>>,
    output: Output,
    gradients: Gradients,
    pending: Option<Pending>,
    images: Option<Box<Images<B>>>,
    held: Vec<Held<B>>,
    kept: Kept<B>,
    batch_norm: Option<B::BatchNormPrior>,
    /// See [`super::Session::published_residual`].
    pub(super) published_residual: bool,
}

impl<B: ImageBackend> DeviceSession<B> {
    /// See [`super::Session::new`].
    pub fn new(
        backend: B,
        backbone: &Backbone,
        options: &SessionOptions,
    ) -> Result<Self, OperationError> {
        checks::weights(backbone)?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(|error| OperationError::Threads {
                threads,
                reason: error.to_string(),
            })?;
        let work = backend.work_shape(threads);
        Ok(Self {
            queues: (0..work.queues).map(|_| backend.queue()).collect(),
            threads,
            rows_aimed_at: work.rows_aimed_at,
            network: Network::new(&backend, &backbone.config, &backbone.weights),
            backend,
            pool,
            images_per_micro_batch: options.images_per_micro_batch,
            low_rank: None,
            norm_inputs: None,
            plans: Vec::new(),
            output: Output::default(),
            gradients: Gradients::default(),
            pending: None,
            images: None,
            held: Vec::new(),
            kept: Kept::default(),
            batch_norm: None,
            published_residual: false,
        })
    }

    /// [`checks::input`], with what only this session does.
    fn check(
        &self,
        input: &Input<'_>,
        end_layer: Option<usize>,
    ) -> Result<Checked, OperationError> {
        let entered = checks::entry(&self.network.config, input, &self.kept.sizes)?;
        self.check_entered(input, entered, end_layer)
    }

    fn check_entered(
        &self,
        input: &Input<'_>,
        entered: Entered,
        end_layer: Option<usize>,
    ) -> Result<Checked, OperationError> {
        let mut checked = checks::input(&self.network.config, input, entered, end_layer)?;
        if self.published_residual {
            let layers = input.pruning.iter().map(|pruning| pruning.layer);
            checked.residual_after_norm = layers.collect();
        }
        Ok(checked)
    }

    /// Of the backbone.
    pub fn config(&self) -> &BackboneConfig {
        &self.network.config
    }

    /// See [`super::Session::forward`].
    pub fn forward(
        &mut self,
        input: &Input<'_>,
        wanted: Wanted,
    ) -> Result<&Output, OperationError> {
        self.forward_for(input, wanted, Differentiate::default())
    }

    /// See [`super::Session::forward_for`].
    pub fn forward_for(
        &mut self,
        input: &Input<'_>,
        wanted: Wanted,
        differentiate: Differentiate,
    ) -> Result<&Output, OperationError> {
        self.with_room(input, |own| own.run_forward(input, wanted, differentiate))?;
        Ok(&self.output)
    }

    /// Does `work` again with half as many images at a time as long as the device has no room.
    fn with_room<T>(
        &mut self,
        input: &Input<'_>,
        mut work: impl FnMut(&mut Self) -> Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        loop {
            let result = work(self);
            if !(is_out_of_memory(&result) && self.halve_micro_batches(input)) {
                return result;
            }
        }
    }

    /// Whether smaller micro-batches than before are left for `input`.
    fn halve_micro_batches(&mut self, input: &Input<'_>) -> bool {
        let Ok(checked) = self.check(input, None) else {
            return false;
        };
        self.halve_micro_batches_of(checked.batch, checked.tokens)
    }

    /// As [`Self::halve_micro_batches`], for a batch of images with this many tokens each.
    fn halve_micro_batches_of(&mut self, batch: usize, tokens: usize) -> bool {
        let images = self.most_images(tokens).min(batch) / 2;
        match self.images_per_micro_batch {
            0 => self.rows_aimed_at = images * tokens,
            _ => self.images_per_micro_batch = images.max(1),
        }
        images > 0
    }

    /// See [`super::Session::hidden_states`].
    pub fn hidden_states(
        &mut self,
        input: &Input<'_>,
        layer: usize,
    ) -> Result<Tensor, OperationError> {
        self.with_room(input, |own| own.run_to(input, layer))
    }

    fn run_to(&mut self, input: &Input<'_>, layer: usize) -> Result<Tensor, OperationError> {
        let mut checked = self.check(input, Some(layer))?;
        checked.class_only_end = false;
        self.pending = None;
        self.take_adapter(input.adapter);
        let micro_batches = self.split(&checked, Differentiate::default());
        let width = self.network.config.width;
        let tokens = checked.tokens_at(layer);
        let mut values = vec![0.0; checked.batch * tokens * width];
        let mut rest = values.as_mut_slice();
        let outputs = micro_batches.iter().map(|micro_batch| {
            let length = micro_batch.images.len() * tokens * width;
            let (own, others) = std::mem::take(&mut rest).split_at_mut(length);
            rest = others;
            ForwardOutput {
                stream: Some(own),
                ..ForwardOutput::default()
            }
        });
        let outputs: Vec<_> = outputs.collect();
        self.run(&checked, input, &micro_batches, outputs, Slots::Shared)?;
        Tensor::new([checked.batch, tokens, width], values).map_err(checks::shape)
    }

    fn run_forward(
        &mut self,
        input: &Input<'_>,
        wanted: Wanted,
        differentiate: Differentiate,
    ) -> Result<(), OperationError> {
        let mut checked = self.check(input, None)?;
        checks::differentiate(&checked, input, differentiate)?;
        checked.want(wanted);
        self.pending = None;
        self.take_adapter(input.adapter);
        let micro_batches = self.split(&checked, differentiate);
        let mut output = std::mem::take(&mut self.output);
        output.prepare(&checked, wanted, &self.network.config, &micro_batches);
        let parts = output.split(&micro_batches);
        let slots = if differentiate == Differentiate::default() {
            Slots::Shared
        } else {
            Slots::Own
        };
        self.run(&checked, input, &micro_batches, parts, slots)?;
        output.join(&checked, &micro_batches, input);
        self.output = output;
        if slots == Slots::Own {
            self.pending = Some(Pending {
                checked,
                differentiate,
                micro_batches,
            });
        }
        Ok(())
    }

    /// Runs the forward passes of all micro-batches.
    fn run(
        &mut self,
        checked: &Checked,
        input: &Input<'_>,
        micro_batches: &[MicroBatch],
        outputs: Vec<ForwardOutput<'_>>,
        slots: Slots,
    ) -> Result<(), DeviceError> {
        let shares = self.share(micro_batches.iter().zip(outputs));
        let backend = &self.spread(micro_batches.len());
        let (network, kept) = (&self.network, &self.kept);
        let low_rank = input.adapter.and(self.low_rank.as_ref());
        let queues = &mut self.queues;
        self.pool.install(|| {
            let work = queues.par_iter_mut().zip(shares);
            work.try_for_each(|(queue, share)| {
                for (index, (micro_batch, mut output)) in share.into_iter().enumerate() {
                    let slot = if slots == Slots::Own { index } else { 0 };
                    let plan = &micro_batch.plan;
                    kept.put(backend, queue, slot, micro_batch, input.entry)?;
                    let mut pass = Pass::enter(backend, network, low_rank, plan, queue, slot)?;
                    let (source, positions) = checked.part(input, &micro_batch.images, plan.pixels);
                    pass.forward(source, positions, checked.read, &output);
                    pass.finish()?;
                    pass.take_output(checked.read, &mut output);
                }
                Ok(())
            })
        })
    }

    /// See [`super::Session::backward`].
    pub fn backward(
        &mut self,
        dfeatures: &[f32],
        norm_inputs: Option<NormInputGradients<'_>>,
    ) -> Result<&Gradients, OperationError> {
        let Some(pending) = &self.pending else {
            return Err(OperationError::NoForward);
        };
        checks::backward(
            &pending.checked,
            dfeatures,
            norm_inputs,
            &self.network.config,
        )?;
        let Some(pending) = self.pending.take() else {
            return Err(OperationError::NoForward);
        };
        let Pending {
            checked,
            differentiate,
            micro_batches,
        } = pending;
        let mut gradients = std::mem::take(&mut self.gradients);
        gradients.prepare(&checked, differentiate, self.low_rank.as_ref());
        self.take_norm_inputs(norm_inputs);
        let dpixels = gradients.split(&micro_batches);
        let shares = self.share(micro_batches.iter().zip(dpixels));
        let backend = &self.spread(micro_batches.len());
        let network = &self.network;
        let low_rank = self.low_rank.as_ref().filter(|_| checked.has_adapter);
        let trained = low_rank.filter(|_| differentiate.pairs);
        let norm_inputs = norm_inputs.and(self.norm_inputs.as_ref());
        let width = checked.feature_width;
        let queues = &mut self.queues;
        self.pool.install(|| {
            let work = queues.par_iter_mut().zip(shares);
            work.try_for_each(|(queue, share)| {
                if let Some(trained) = trained {
                    backend.clear_gradients(queue, trained.length)?;
                }
                let count = share.len();
                for (slot, (micro_batch, dpixels)) in share.into_iter().enumerate() {
                    let plan = &micro_batch.plan;
                    let mut pass = Pass::enter(backend, network, low_rank, plan, queue, slot)?;
                    let images = &micro_batch.images;
                    let dfeatures = &dfeatures[images.start * width..images.end * width];
                    pass.backward(dfeatures, checked.read, norm_inputs, None);
                    let last = slot + 1 == count;
                    pass.end_backward(trained.filter(|_| last), dpixels)?;
                }
                Ok::<(), DeviceError>(())
            })
        })?;
        self.join_pairs(&mut gradients, differentiate, micro_batches.len());
        self.gradients = gradients;
        Ok(&self.gradients)
    }

    /// See [`super::Session::step`].
    pub fn step<L>(
        &mut self,
        input: &Input<'_>,
        differentiate: Differentiate,
        loss: L,
    ) -> Result<(f64, &Gradients), OperationError>
    where
        L: Fn(Range<usize>, &[f32], &mut [f32]) -> Result<f64, OperationError> + Sync,
    {
        let total = self.with_room(input, |own| own.run_step(input, differentiate, &loss))?;
        Ok((total, &self.gradients))
    }

    fn run_step<L>(
        &mut self,
        input: &Input<'_>,
        differentiate: Differentiate,
        loss: &L,
    ) -> Result<f64, OperationError>
    where
        L: Fn(Range<usize>, &[f32], &mut [f32]) -> Result<f64, OperationError> + Sync,
    {
        let checked = self.check(input, None)?;
        checks::differentiate(&checked, input, differentiate)?;
        self.pending = None;
        self.take_adapter(input.adapter);
        let micro_batches = self.split(&checked, differentiate);
        let mut output = std::mem::take(&mut self.output);
        output.prepare(
            &checked,
            Wanted::default(),
            &self.network.config,
            &micro_batches,
        );
        let mut gradients = std::mem::take(&mut self.gradients);
        gradients.prepare(&checked, differentiate, self.low_rank.as_ref());
        gradients
            .dfeatures
            .resize(checked.batch * checked.feature_width, 0.0);
        let mut dfeatures = std::mem::take(&mut gradients.dfeatures);
        let mut losses = vec![Ok(0.0); micro_batches.len()];
        let mut rest = dfeatures.as_mut_slice();
        let dfeature_parts = micro_batches.iter().map(|micro_batch| {
            let length = micro_batch.images.len() * checked.feature_width;
            let (own, others) = std::mem::take(&mut rest).split_at_mut(length);
            rest = others;
            own
        });
        let parts = output.split(&micro_batches).into_iter();
        let parts = parts.zip(gradients.split(&micro_batches));
        let parts = parts.zip(dfeature_parts).zip(losses.iter_mut());
        let shares = self.share(micro_batches.iter().zip(parts));
        let backend = &self.spread(micro_batches.len());
        let (network, kept) = (&self.network, &self.kept);
        let low_rank = input.adapter.and(self.low_rank.as_ref());
        let trained = low_rank.filter(|_| differentiate.pairs);
        let queues = &mut self.queues;
        self.pool.install(|| {
            let work = queues.par_iter_mut().zip(shares);
            work.try_for_each(|(queue, share)| {
                if let Some(trained) = trained {
                    backend.clear_gradients(queue, trained.length)?;
                }
                let count = share.len();
                for (index, (micro_batch, parts)) in share.into_iter().enumerate() {
                    let (((mut output, dpixels), dfeatures), result) = parts;
                    let plan = &micro_batch.plan;
                    kept.put(backend, queue, 0, micro_batch, input.entry)?;
                    let mut pass = Pass::enter(backend, network, low_rank, plan, queue, 0)?;
                    let images = micro_batch.images.clone();
                    let (source, positions) = checked.part(input, &images, plan.pixels);
                    pass.forward(source, positions, checked.read, &output);
                    pass.finish()?;
                    pass.take_output(checked.read, &mut output);
                    *result = loss(images, output.features, dfeatures);
                    let has_loss = result.is_ok();
                    if has_loss {
                        pass.backward(dfeatures, checked.read, None, None);
                    }
                    let last = index + 1 == count;
                    pass.end_backward(trained.filter(|_| last), dpixels.filter(|_| has_loss))?;
                }
                Ok::<(), DeviceError>(())
            })
        })?;
        self.output = output;
        gradients.dfeatures = dfeatures;
        self.join_pairs(&mut gradients, differentiate, micro_batches.len());
        self.gradients = gradients;
        losses.into_iter().sum()
    }

    /// Sums the gradients of the low-rank pairs in the order of the queues; only the first ones have had any of `micro_batches`.
    fn join_pairs(
        &self,
        gradients: &mut Gradients,
        differentiate: Differentiate,
        micro_batches: usize,
    ) {
        if let (true, Some(low_rank)) = (differentiate.pairs, &self.low_rank) {
            for queue in self.queues.iter().take(micro_batches) {
                gradients.add(&self.backend, queue, low_rank);
            }
        }
    }

    /// Takes over the gradients at LayerNorm inputs. They are laid out once: memory of a device is not given back in the middle of its work.
    fn take_norm_inputs(&mut self, given: Option<NormInputGradients<'_>>) {
        let Some(given) = given else {
            return;
        };
        match &mut self.norm_inputs {
            Some(own) => own.write(&self.backend, given),
            own => *own = Some(NormInputVectors::new(&self.backend, given)),
        }
    }

    /// Takes over the adapter's values; memory is laid out again only when its sites or ranks change.
    fn take_adapter(&mut self, adapter: Option<&Adapter>) {
        let Some(adapter) = adapter else {
            return;
        };
        match &mut self.low_rank {
            Some(own) if own.fits(adapter) => own.write(&self.backend, adapter),
            own => {
                let layers = self.network.layers.len();
                *own = Some(LowRank::new(&self.backend, adapter, layers));
            }
        }
    }
}

fn is_out_of_memory<T>(result: &Result<T, OperationError>) -> bool {
    matches!(
        result,
        Err(OperationError::Device(DeviceError::OutOfMemory { .. }))
    )
}

/// Whether each micro-batch keeps its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slots {
    Own,
    Shared,
}
