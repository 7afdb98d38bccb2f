//! Adapters that change nothing yet, and their low-rank pairs as one list of values for an optimiser.

use super::random::{Purpose, generator};
use model::adapter::{Adapter, LowRankPair, Site};
use model::backbone::{BackboneConfig, Target};
use model::tensor::Tensor;
use rand::RngExt;

/// Which maps get a low-rank pair, and of what rank and scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairShape<'a> {
    /// 0-based.
    pub layers: &'a [usize],
    pub targets: &'a [Target],
    pub rank: usize,
    pub scale: f32,
}

/// A Kaiming-uniform with a = √5, which is uniform to 1/√inputs; B zero. Each site draws for itself.
pub(super) fn fresh_adapter(config: &BackboneConfig, shape: PairShape<'_>, seed: u64) -> Adapter {
    let mut adapter = Adapter::default();
    for &layer in shape.layers {
        for &target in shape.targets {
            let (outputs, inputs) = target.widths(config);
            let position = (layer * 16 + target as usize) as u64;
            let mut random = generator(seed, Purpose::Pairs, position);
            let bound = (1.0 / (inputs as f64).sqrt()) as f32;
            let mut a = Tensor::zeros([shape.rank, inputs]);
            for value in a.data_mut() {
                *value = random.random_range(-bound..=bound);
            }
            let pair = LowRankPair {
                a,
                b: Tensor::zeros([outputs, shape.rank]),
                scale: shape.scale,
            };
            adapter.pairs.insert(Site { layer, target }, pair);
        }
    }
    adapter
}

/// A and B of each site in order.
pub(super) fn pair_values(adapter: &Adapter) -> Vec<f32> {
    let pairs = adapter.pairs.values();
    pairs
        .flat_map(|own| own.a.data().iter().chain(own.b.data()).copied())
        .collect()
}

/// Overwrites the low-rank pairs of `adapter` from what [`pair_values`] gives.
pub(super) fn set_pair_values(adapter: &mut Adapter, values: &[f32]) {
    let mut values = values.iter().copied();
    for own in adapter.pairs.values_mut() {
        for slot in own.a.data_mut().iter_mut().chain(own.b.data_mut()) {
            *slot = values.next().unwrap_or_default();
        }
    }
}
