//! How a batch is cut into parts that are computed as a whole, and dealt to the queues.

use super::{Checked, DeviceSession};
use crate::image_backend::ImageBackend;
use crate::vit::{Differentiate, PassShape, PassStart, Plan};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Plans that are remembered.
const MOST_PLANS: usize = 32;

/// A part of a batch that is computed as a whole.
#[derive(Clone)]
pub struct MicroBatch {
    pub images: Range<usize>,
    pub plan: Arc<Plan>,
}

impl<B: ImageBackend> DeviceSession<B> {
    /// Most images of a micro-batch with this many tokens each.
    pub(super) fn most_images(&self, tokens: usize) -> usize {
        match self.images_per_micro_batch {
            0 => (self.rows_aimed_at / tokens).max(1),
            most => most,
        }
    }

    /// Cuts the batch into micro-batches of nearly equal size, a multiple of the queues where there are enough images.
    pub(super) fn split(
        &mut self,
        checked: &Checked,
        differentiate: Differentiate,
    ) -> Vec<MicroBatch> {
        let queues = self.queues.len();
        let most = self.most_images(checked.tokens);
        let parts = checked
            .batch
            .div_ceil(most)
            .next_multiple_of(queues)
            .min(checked.batch);
        let bound = |part: usize| part * checked.batch / parts;
        if let PassStart::Pixels { grid } = checked.start {
            self.network.prepare_grid(&self.backend, grid);
        }
        let mut micro_batches: Vec<MicroBatch> = Vec::with_capacity(parts);
        for part in 0..parts {
            let images = bound(part)..bound(part + 1);
            // Sizes differ by one at most, so that a plan of the same size is among the last ones.
            let known = micro_batches.iter().rev();
            let known = known.map(|own| &own.plan);
            let plan = match known.clone().find(|plan| plan.shape.images == images.len()) {
                Some(plan) => plan.clone(),
                None => self.plan(checked, images.len(), differentiate),
            };
            micro_batches.push(MicroBatch { images, plan });
        }
        micro_batches
    }

    fn plan(
        &mut self,
        checked: &Checked,
        images: usize,
        differentiate: Differentiate,
    ) -> Arc<Plan> {
        let ranks = match &self.low_rank {
            Some(low_rank) if checked.has_adapter => low_rank.ranks(),
            _ => BTreeMap::new(),
        };
        let shape = PassShape {
            images,
            start: checked.start,
            tokens: checked.tokens,
            sparse: checked.sparse,
            tokens_after: checked.tokens_after.clone(),
            class_only_end: checked.class_only_end,
            pooled_width: checked.pooled_width,
            feature_width: checked.feature_width,
            differentiate,
            ranks,
            end_layer: checked.end_layer,
            norm_input_sums: checked.norm_input_sums,
            residual_after_norm: checked.residual_after_norm.clone(),
        };
        if let Some(plan) = self.plans.iter().find(|plan| plan.shape == shape) {
            return plan.clone();
        }
        if self.plans.len() == MOST_PLANS {
            self.plans.remove(0);
        }
        let plan = Arc::new(Plan::new(&self.backend, shape, &self.network.config));
        self.plans.push(plan.clone());
        plan
    }

    /// The backend for a pass of so few micro-batches that each has several threads to itself.
    pub(super) fn spread(&self, micro_batches: usize) -> B {
        self.backend
            .spread((self.threads / micro_batches.max(1)).max(1))
    }

    /// Deals items to queues like cards, so that who computes what does not depend on timing.
    pub(super) fn share<T>(&self, items: impl Iterator<Item = T>) -> Vec<Vec<T>> {
        let mut shares: Vec<Vec<T>> = self.queues.iter().map(|_| Vec::new()).collect();
        for (index, item) in items.enumerate() {
            shares[index % self.queues.len()].push(item);
        }
        shares
    }
}
