//! A backbone ready to compute on batches: checks what it is given, splits a batch into micro-batches for its threads, and
//! joins their answers in a fixed order, so that the same numbers come out on every run with the same number of threads.
//! Knows backbones, adapters and tensors; knows nothing of losses, optimisers or images.

mod checks;
mod micro_batch;
mod results;

pub use results::{Gradients, Output, PairGradients};

use super::backend::{Backend, DeviceError};
use super::cpu::Cpu;
use super::operation::OperationError;
use super::vit::{
    Differentiate, ForwardOutput, LowRank, Network, NormInputGradients, NormInputVectors, Pass,
    Plan,
};
use checks::Checked;
use micro_batch::MicroBatch;
use model::adapter::{Adapter, HeadInput};
use model::backbone::{Backbone, BackboneConfig};
use model::tensor::Tensor;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// How a session computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionOptions {
    /// Worker threads; 0 takes one per core.
    pub threads: usize,
    /// Most images that a worker takes at a time; 0 chooses so that their activations stay in the cache.
    pub images_per_micro_batch: usize,
}

/// What enters a pass.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// `[batch, 3, side, side]`, normalised
    Pixels(&'a Tensor),
    /// `[batch, tokens, width]`: the residual stream before `layer`, as [`Session::hidden_states`] gives it
    Hidden {
        /// The first layer of the pass.
        layer: usize,
        /// `[batch, tokens, width]`
        values: &'a Tensor,
    },
}

/// Drops the patches that the class token looks at least, inside a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pruning {
    /// 0-based.
    pub layer: usize,
    /// Share of the patches that goes, 0 to 1: int(patches·ratio).
    pub ratio: f64,
}

/// One batch.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Pixels, or the residual stream inside the backbone.
    pub entry: Entry<'a>,
    /// `[batch·tokens]`: which tokens of each image enter, ascending, 0 (the class token) first, patch p = p + 1. The same
    /// number for each image. Without it all enter.
    pub tokens: Option<&'a [u32]>,
    /// `None` is the bare backbone.
    pub adapter: Option<&'a Adapter>,
    /// In any order; patches that one drops are gone for those after it.
    pub pruning: &'a [Pruning],
    /// What [`Output::features`] is.
    pub read: HeadInput,
}

impl<'a> Input<'a> {
    /// All tokens of `pixels` through the bare backbone, to its feature.
    pub fn pixels(pixels: &'a Tensor) -> Self {
        Self {
            entry: Entry::Pixels(pixels),
            tokens: None,
            adapter: None,
            pruning: &[],
            read: HeadInput::Feature,
        }
    }
}

/// What a forward pass is asked for besides the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// See [`Output::class_attention`].
    pub class_attention: bool,
    /// See [`Output::last_hidden_state`].
    pub last_hidden_state: bool,
    /// See [`Output::kept_tokens`].
    pub kept_tokens: bool,
    /// See [`Output::norm_input_sums`].
    pub norm_input_sums: bool,
}

/// A forward pass that waits for its backward.
struct Pending {
    checked: Checked,
    differentiate: Differentiate,
    micro_batches: Vec<MicroBatch>,
}

/// A backbone ready to compute.
pub struct Session<B: Backend = Cpu> {
    backend: B,
    network: Network<B>,
    pool: rayon::ThreadPool,
    queues: Vec<B::Queue>,
    threads: usize,
    rows_aimed_at: usize,
    images_per_micro_batch: usize,
    low_rank: Option<LowRank<B>>,
    norm_inputs: Option<NormInputVectors<B>>,
    plans: Vec<Arc<Plan>>,
    output: Output,
    gradients: Gradients,
    pending: Option<Pending>,
    published_residual: bool,
}

impl Session<Cpu> {
    /// Prepares `backbone` for the processor.
    ///
    /// # Errors
    /// [`OperationError::NotFinite`] for weights that are not finite; [`OperationError::Threads`] where threads cannot start.
    pub fn new(backbone: &Backbone, options: SessionOptions) -> Result<Self, OperationError> {
        Self::on(Cpu::default(), backbone, options)
    }
}

impl<B: Backend> Session<B> {
    /// Prepares `backbone` for `backend`.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn on(
        backend: B,
        backbone: &Backbone,
        options: SessionOptions,
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
            network: Network::new(&backend, backbone),
            backend,
            pool,
            images_per_micro_batch: options.images_per_micro_batch,
            low_rank: None,
            norm_inputs: None,
            plans: Vec::new(),
            output: Output::default(),
            gradients: Gradients::default(),
            pending: None,
            published_residual: false,
        })
    }

    /// For measurements alone: layers named in [`Input::pruning`] take their second residual after the LayerNorm instead of
    /// before it, as the published code of LoRA Recycle does by mistake.
    #[doc(hidden)]
    pub fn published_residual(&mut self, on: bool) {
        self.published_residual = on;
    }

    /// [`checks::input`], with what only this session does.
    fn check(
        &self,
        input: &Input<'_>,
        end_layer: Option<usize>,
    ) -> Result<Checked, OperationError> {
        let mut checked = checks::input(&self.network.config, input, end_layer)?;
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

    /// Worker threads, at least 1.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Computes features and what `wanted` asks for; keeps nothing for a backward.
    ///
    /// # Errors
    /// [`OperationError`] names what does not fit; nothing has been computed then.
    pub fn forward(
        &mut self,
        input: &Input<'_>,
        wanted: Wanted,
    ) -> Result<&Output, OperationError> {
        self.run_forward(input, wanted, Differentiate::default())?;
        self.pending = None;
        Ok(&self.output)
    }

    /// Computes what [`Self::forward`] does and keeps what [`Self::backward`] needs, for losses that couple the images of a
    /// batch.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_for(
        &mut self,
        input: &Input<'_>,
        wanted: Wanted,
        differentiate: Differentiate,
    ) -> Result<&Output, OperationError> {
        self.run_forward(input, wanted, differentiate)?;
        Ok(&self.output)
    }

    /// The residual stream before `layer`, `[batch, tokens, width]`: what [`Entry::Hidden`] takes.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn hidden_states(
        &mut self,
        input: &Input<'_>,
        layer: usize,
    ) -> Result<Tensor, OperationError> {
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
        checked.norm_input_sums = wanted.norm_input_sums;
        checked.class_only_end &= !wanted.last_hidden_state && !wanted.norm_input_sums;
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
        let network = &self.network;
        let low_rank = input.adapter.and(self.low_rank.as_ref());
        let queues = &mut self.queues;
        self.pool.install(|| {
            let work = queues.par_iter_mut().zip(shares);
            work.try_for_each(|(queue, share)| {
                for (index, (micro_batch, mut output)) in share.into_iter().enumerate() {
                    let slot = if slots == Slots::Own { index } else { 0 };
                    let plan = &micro_batch.plan;
                    let mut pass = Pass::enter(backend, network, low_rank, plan, queue, slot)?;
                    let (source, positions) = checked.part(input, &micro_batch.images);
                    pass.forward(source, positions, checked.read, &output);
                    pass.finish()?;
                    pass.take_output(checked.read, &mut output);
                }
                Ok(())
            })
        })
    }

    /// Gradients of the loss whose gradient at the features of the last [`Self::forward_for`] is `dfeatures`
    /// (`[batch, feature_width]`), and at the inputs of the LayerNorms `norm_inputs`.
    ///
    /// # Errors
    /// [`OperationError`] where no forward pass waits or shapes do not fit.
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
        let dpixels = gradients.split(&micro_batches);
        let shares = self.share(micro_batches.iter().zip(dpixels));
        let backend = &self.spread(micro_batches.len());
        let network = &self.network;
        let low_rank = self.low_rank.as_ref().filter(|_| checked.has_adapter);
        let trained = low_rank.filter(|_| differentiate.pairs);
        // Laid out once: memory of a device is not given back in the middle of its work.
        if let Some(given) = norm_inputs {
            match &mut self.norm_inputs {
                Some(own) => own.write(backend, given),
                own => *own = Some(NormInputVectors::new(backend, given)),
            }
        }
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
                    pass.backward(dfeatures, checked.read, norm_inputs);
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

    /// Forward and backward of each micro-batch at once, which keeps the activations of one micro-batch a queue only.
    /// `loss(images, features, dfeatures)` writes the gradient at the features of these images of the batch and returns their
    /// part of the loss; losses that couple images of different micro-batches go through [`Self::forward_for`]. Returns the
    /// sum of the parts and the gradients.
    ///
    /// # Errors
    /// As [`Self::forward`], or the first error of `loss`.
    pub fn step<L>(
        &mut self,
        input: &Input<'_>,
        differentiate: Differentiate,
        loss: L,
    ) -> Result<(f64, &Gradients), OperationError>
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
        let network = &self.network;
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
                    let mut pass = Pass::enter(backend, network, low_rank, plan, queue, 0)?;
                    let images = micro_batch.images.clone();
                    let (source, positions) = checked.part(input, &images);
                    pass.forward(source, positions, checked.read, &output);
                    pass.finish()?;
                    pass.take_output(checked.read, &mut output);
                    *result = loss(images, output.features, dfeatures);
                    let has_loss = result.is_ok();
                    if has_loss {
                        pass.backward(dfeatures, checked.read, None);
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
        let mut total = 0.0;
        for part in losses {
            total += part?;
        }
        Ok((total, &self.gradients))
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

/// Whether each micro-batch keeps its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slots {
    Own,
    Shared,
}
