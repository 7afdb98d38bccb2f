//! The vision transformer, written once over [`super::backend::Backend`]: forward and backward of one micro-batch.
//! Knows layers, adapters and where activations are; knows nothing of threads, batches or losses.

mod backward;
mod forward;
mod low_rank;
mod plan;
mod weights;

pub use backward::{NormInputGradients, NormInputVectors};
pub use forward::{ForwardOutput, PassInput};
pub use low_rank::{LayerPairs, LowRank, PairVectors};
pub use plan::{Differentiate, PassShape, PassStart, Plan};
pub use weights::Network;

use super::backend::{Backend, DeviceError, Matrix};

/// One micro-batch on its way through the network.
pub struct Pass<'a, 'm, B: Backend> {
    /// What computes.
    pub backend: &'a B,
    /// The backbone's weights.
    pub network: &'a Network<B>,
    /// The adapter's low-rank pairs, if there is one.
    pub low_rank: Option<&'a LowRank<B>>,
    /// Where the activations are.
    pub plan: &'a Plan,
    /// Has entered the plan's memory.
    pub queue: &'m mut B::Queue,
}

impl<'a, 'm, B: Backend> Pass<'a, 'm, B> {
    /// A pass of the micro-batch `slot` whose memory is laid out in `queue`.
    ///
    /// # Errors
    /// As [`Backend::enter`].
    pub fn enter(
        backend: &'a B,
        network: &'a Network<B>,
        low_rank: Option<&'a LowRank<B>>,
        plan: &'a Plan,
        queue: &'m mut B::Queue,
        slot: usize,
    ) -> Result<Self, DeviceError> {
        backend.enter(queue, slot, plan.lengths)?;
        Ok(Self {
            backend,
            network,
            low_rank,
            plan,
            queue,
        })
    }

    /// Waits for what has been queued.
    ///
    /// # Errors
    /// As [`Backend::finish`].
    pub fn finish(&mut self) -> Result<(), DeviceError> {
        self.backend.finish(self.queue)
    }

    /// After [`Self::backward`]: waits for the gradients at the pixels, and for those of the low-rank pairs of the queue where this is
    /// its last micro-batch; they stay sent. Where neither is asked for, nobody waits.
    ///
    /// # Errors
    /// As [`Backend::finish`].
    pub fn end_backward(
        &mut self,
        trained: Option<&LowRank<B>>,
        dpixels: Option<&mut [f32]>,
    ) -> Result<(), DeviceError> {
        if let Some(trained) = trained {
            self.backend.download(self.queue, trained.gradients());
        }
        if trained.is_some() || dpixels.is_some() {
            self.finish()?;
        }
        if let Some(dpixels) = dpixels {
            self.take_dpixels(dpixels);
        }
        Ok(())
    }

    fn pair(&self, layer: usize, target: model::adapter::Target) -> Option<&PairVectors> {
        self.low_rank?.layers[layer].get(target)
    }

    /// Adds the adapter's part to `y = W x`.
    fn add_low_rank(
        &mut self,
        layer: usize,
        target: model::adapter::Target,
        x: Matrix,
        u: Option<Matrix>,
        y: Matrix,
    ) {
        let (Some(low_rank), Some(u)) = (self.low_rank, u) else {
            return;
        };
        if let Some(pair) = low_rank.layers[layer].get(target) {
            self.backend
                .low_rank_down(self.queue, x, low_rank.matrix_of(pair.da), pair.scale, u);
            self.backend
                .low_rank_up(self.queue, u, low_rank.matrix_of(pair.db_transposed), y);
        }
    }
}
