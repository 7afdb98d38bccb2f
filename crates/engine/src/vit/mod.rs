//! The vision transformer, written once over [`super::backend::Backend`]: forward and backward of one micro-batch.
//! Knows layers, adapters and where activations are; knows nothing of threads, batches or losses.

mod backward;
mod forward;
mod low_rank;
mod plan;
mod weights;

pub use backward::NormInputGradients;
pub use forward::{ForwardOutput, PassInput};
pub use low_rank::{LayerPairs, LowRank, PairVectors};
pub use plan::{Differentiate, PassShape, PassStart, Plan};
pub use weights::Network;

use super::backend::{Backend, Matrix, MemoryOf};

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
    /// The buffers that the plan points into.
    pub memory: MemoryOf<'m, B>,
}

impl<B: Backend> Pass<'_, '_, B> {
    fn pair(&self, layer: usize, target: model::adapter::Target) -> Option<&PairVectors<B>> {
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
                .low_rank_down(&mut self.memory, x, &pair.a, pair.scale, u);
            self.backend
                .low_rank_up(&mut self.memory, u, &pair.b_transposed, y);
        }
    }
}
