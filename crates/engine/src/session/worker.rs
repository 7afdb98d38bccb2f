//! What one worker of a session owns.

use crate::backend::{Backend, Memory};
use crate::vit::{Differentiate, LowRank, Plan};

/// Memory of one worker.
pub struct Worker<B: Backend> {
    /// One a micro-batch that waits for its backward; the first serves all others.
    pub kept: Vec<B::Buffer>,
    pub scratch: B::Buffer,
    pub gradients: B::Buffer,
}

impl<B: Backend> Worker<B> {
    pub fn memory(&mut self, backend: &B, slot: usize, plan: &Plan) -> Memory<'_, B::Buffer> {
        while self.kept.len() <= slot {
            self.kept.push(backend.buffer());
        }
        let kept = &mut self.kept[slot];
        backend.reserve(kept, plan.kept_length);
        backend.reserve(&mut self.scratch, plan.scratch_length);
        Memory {
            kept,
            scratch: &mut self.scratch,
            gradients: &mut self.gradients,
        }
    }

    pub fn clear_gradients(
        &mut self,
        backend: &B,
        differentiate: Differentiate,
        low_rank: Option<&LowRank<B>>,
    ) {
        if !differentiate.pairs {
            return;
        }
        if self.kept.is_empty() {
            self.kept.push(backend.buffer());
        }
        if let Some(low_rank) = low_rank {
            backend.reserve(&mut self.gradients, low_rank.gradient_length);
            let mut memory = Memory {
                kept: &mut self.kept[0],
                scratch: &mut self.scratch,
                gradients: &mut self.gradients,
            };
            for pair in low_rank.all() {
                backend.fill_zero(&mut memory, pair.da);
                backend.fill_zero(&mut memory, pair.db_transposed);
            }
        }
    }
}
