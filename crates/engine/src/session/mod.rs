//! A backbone ready to compute on batches: checks what it is given, and computes it on the processor or a CUDA device, so that the same
//! numbers come out on every run on the same device with the same number of threads.
//! Knows backbones, adapters and tensors; knows nothing of losses, optimisers or images.

mod checks;
mod device;
mod device_session;
mod results;
mod view;

pub use device::{Arithmetic, Device};
pub use results::{Gradients, Output, PairGradients};
pub use view::{CoupledGradient, CoupledLoss, ImageStep, SeparateLoss, View, ViewLoss};

use super::cpu::Cpu;
use super::cuda::Cuda;
use super::images::{Change, ImageBatchOptions, PriorLosses};
use super::operation::OperationError;
use super::optimise::AdamState;
use super::resnet::ResNet;
use super::vit::{Differentiate, NormInputGradients};
use device_session::DeviceSession;
use model::adapter::{Adapter, HeadInput};
use model::backbone::{Backbone, BackboneConfig};
use model::tensor::Tensor;
use std::ops::Range;

/// How a session computes.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Worker threads; 0 takes one per core.
    pub threads: usize,
    /// Most images that a worker takes at a time; 0 chooses so that their activations stay in the cache, or fit a CUDA device.
    pub images_per_micro_batch: usize,
    /// What computes.
    pub device: Device,
}

impl SessionOptions {
    /// On `threads` threads of the processor; 0 takes one per core.
    pub fn on_threads(threads: usize) -> Self {
        Self {
            threads,
            ..Self::default()
        }
    }
}

/// What enters a pass.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// `[batch, 3, side, side]`, normalised
    Pixels(&'a Tensor),
    /// Pictures that stay on the device
    Pictures {
        /// As [`Session::keep_pictures`] has numbered it.
        set: usize,
        /// `[batch]`: places in the set, from 0 on.
        numbers: &'a [u32],
        /// `[batch]`
        mirrored: &'a [bool],
    },
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

/// A backbone ready to compute.
pub struct Session(OnDevice);

enum OnDevice {
    Cpu(DeviceSession<Cpu>),
    Cuda(DeviceSession<Cuda>),
}

macro_rules! on_its_device {
    ($on_device:expr, $own:ident => $work:expr) => {
        match $on_device {
            OnDevice::Cpu($own) => $work,
            OnDevice::Cuda($own) => $work,
        }
    };
}

impl Session {
    /// Prepares `backbone`.
    ///
    /// # Errors
    /// [`OperationError::NotFinite`] for weights that are not finite; [`OperationError::Threads`] where threads cannot start. A device
    /// without room for the weights says so at the first pass.
    pub fn new(backbone: &Backbone, options: SessionOptions) -> Result<Self, OperationError> {
        Ok(Self(match &options.device {
            Device::Cpu => OnDevice::Cpu(DeviceSession::new(Cpu::default(), backbone, &options)?),
            Device::Cuda(cuda) => {
                OnDevice::Cuda(DeviceSession::new(cuda.clone(), backbone, &options)?)
            }
        }))
    }

    /// For measurements alone: layers named in [`Input::pruning`] take their second residual after the LayerNorm instead of
    /// before it, as the published code of LoRA Recycle does by mistake.
    #[doc(hidden)]
    pub fn published_residual(&mut self, on: bool) {
        on_its_device!(&mut self.0, own => own.published_residual = on);
    }

    /// Of the backbone.
    pub fn config(&self) -> &BackboneConfig {
        on_its_device!(&self.0, own => own.config())
    }

    /// Worker threads, at least 1.
    pub fn threads(&self) -> usize {
        on_its_device!(&self.0, own => own.threads)
    }

    /// Computes features and what `wanted` asks for; keeps nothing for a backward.
    ///
    /// # Errors
    /// [`OperationError`] names what does not fit; nothing has been computed then. A device without room is asked again for half as
    /// many images at a time, down to one.
    pub fn forward(
        &mut self,
        input: &Input<'_>,
        wanted: Wanted,
    ) -> Result<&Output, OperationError> {
        on_its_device!(&mut self.0, own => own.forward(input, wanted))
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
        on_its_device!(&mut self.0, own => own.forward_for(input, wanted, differentiate))
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
        on_its_device!(&mut self.0, own => own.hidden_states(input, layer))
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
        on_its_device!(&mut self.0, own => own.backward(dfeatures, norm_inputs))
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
        on_its_device!(&mut self.0, own => own.step(input, differentiate, loss))
    }

    /// Keeps `adapter` of `backbone`, the session's own, for [`View::held`], and gives its number. On a device its changes are added to a copy of
    /// the weights.
    ///
    /// # Errors
    /// [`OperationError`] where the adapter does not fit.
    pub fn hold(
        &mut self,
        backbone: &Backbone,
        adapter: &Adapter,
    ) -> Result<usize, OperationError> {
        on_its_device!(&mut self.0, own => own.hold(backbone, adapter))
    }

    /// Copies pictures to the device, once, for [`Entry::Pictures`], and gives the number of their set. `parts`, each `[pictures, 3, side, side]` with a
    /// byte a value, follow one another; `table` says what a level of a channel is. `None` where they would take too much of the device's
    /// memory, and on the processor, which has them already.
    ///
    /// # Errors
    /// [`OperationError`] where a part does not consist of such pictures, or the table is not finite; an error of the device.
    pub fn keep_pictures(
        &mut self,
        parts: &[&[u8]],
        side: usize,
        table: &[[f32; 256]; 3],
    ) -> Result<Option<usize>, OperationError> {
        on_its_device!(&mut self.0, own => own.keep_pictures(parts, side, table))
    }

    /// Images that are started from now on can have the BatchNorm prior of `network`.
    pub fn set_batch_norm_prior(&mut self, network: ResNet) {
        on_its_device!(&mut self.0, own => own.set_batch_norm_prior(network));
    }

    /// Begins to optimise images from `parameters`, in place of those before.
    ///
    /// # Errors
    /// As [`crate::images::ImageBatch::new`].
    pub fn start_images(
        &mut self,
        options: ImageBatchOptions,
        parameters: &[f32],
    ) -> Result<(), OperationError> {
        on_its_device!(&mut self.0, own => own.start_images(options, parameters))
    }

    /// The optimiser goes on from `state`.
    ///
    /// # Errors
    /// Another length than that of the parameters; [`OperationError::NoImages`]; an error of the device.
    pub fn resume_images(&mut self, state: &AdamState) -> Result<(), OperationError> {
        on_its_device!(&mut self.0, own => own.resume_images(state))
    }

    /// Parameters and optimiser after the last step.
    ///
    /// # Errors
    /// [`OperationError::NoImages`]; [`OperationError::NotFinite`] where the images have diverged; an error of the device.
    pub fn image_state(&mut self) -> Result<(Vec<f32>, AdamState), OperationError> {
        on_its_device!(&mut self.0, own => own.image_state())
    }

    /// The images as they are, `[batch, 3, side, side]`, normalised.
    ///
    /// # Errors
    /// [`OperationError::NoImages`]; an error of the device.
    pub fn image_pixels(&mut self) -> Result<Vec<f32>, OperationError> {
        on_its_device!(&mut self.0, own => own.image_pixels())
    }

    /// What the priors of the images under optimisation say about other `pixels` of the same shape; not weighted.
    ///
    /// # Errors
    /// [`OperationError::NoImages`]; an error of the device.
    pub fn image_priors(&mut self, pixels: &Tensor) -> Result<PriorLosses, OperationError> {
        on_its_device!(&mut self.0, own => own.image_priors(pixels))
    }

    /// A step of the images down the gradient of the losses of all `views`, and of their priors, at the images after `change`. On a device an
    /// image that becomes infinite or not a number is found by the next call.
    ///
    /// # Errors
    /// The first error of a loss; [`OperationError::NotFinite`] where the images have diverged; [`OperationError::NoImages`]; an error of the
    /// device, which is asked again for less at a time where it has no room.
    pub fn step_images(
        &mut self,
        change: &Change,
        views: &mut [View<'_>],
        learning_rate: f64,
    ) -> Result<ImageStep, OperationError> {
        on_its_device!(&mut self.0, own => own.step_images(change, views, learning_rate))
    }
}
