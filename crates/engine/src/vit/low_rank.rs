//! An adapter's low-rank pairs in a backend's memory, and where their gradients are.

use crate::backend::{Backend, Matrix, Region};
use model::adapter::{Adapter, LowRankPair, Site, Target};
use std::collections::BTreeMap;

/// One low-rank pair. `B` is kept transposed, so that every product runs along rows.
pub struct PairVectors<B: Backend> {
    /// Rank of the pair.
    pub rank: usize,
    /// `[rank, in]`
    pub a: B::Vector,
    /// `[rank, out]`
    pub b_transposed: B::Vector,
    /// Multiplies the product of both.
    pub scale: f32,
    /// `[rank, in]` in [`Region::Gradients`]
    pub da: Matrix,
    /// `[rank, out]` in [`Region::Gradients`]
    pub db_transposed: Matrix,
}

/// The low-rank pairs of one layer by target.
pub struct LayerPairs<B: Backend>([Option<PairVectors<B>>; 6]);

impl<B: Backend> LayerPairs<B> {
    /// The pair of `target`, if the adapter has one there.
    pub fn get(&self, target: Target) -> Option<&PairVectors<B>> {
        self.0[target as usize].as_ref()
    }
}

/// All low-rank pairs of an adapter.
pub struct LowRank<B: Backend> {
    /// One a layer of the backbone.
    pub layers: Vec<LayerPairs<B>>,
    /// Values that the gradients of all pairs take.
    pub gradient_length: usize,
    transposed: Vec<f32>,
}

impl<B: Backend> LowRank<B> {
    /// Copies the pairs of `adapter` into the memory of `backend`, for a backbone of `layers` layers.
    pub fn new(backend: &B, adapter: &Adapter, layers: usize) -> Self {
        let mut gradient_length = 0;
        let mut place = |rank: usize, columns: usize| {
            let start = gradient_length;
            gradient_length += (rank * columns).next_multiple_of(16);
            Matrix {
                region: Region::Gradients,
                start,
                rows: rank,
                columns,
                stride: columns,
            }
        };
        let mut by_layer: Vec<LayerPairs<B>> = (0..layers)
            .map(|_| LayerPairs(std::array::from_fn(|_| None)))
            .collect();
        let mut transposed = Vec::new();
        for (site, pair) in &adapter.pairs {
            let rank = pair.rank();
            transpose(pair, &mut transposed);
            by_layer[site.layer].0[site.target as usize] = Some(PairVectors {
                rank,
                a: backend.vector(pair.a.data()),
                b_transposed: backend.vector(&transposed),
                scale: pair.scale,
                da: place(rank, pair.a.shape()[1]),
                db_transposed: place(rank, pair.b.shape()[0]),
            });
        }
        Self {
            layers: by_layer,
            gradient_length,
            transposed,
        }
    }

    /// Every pair, layer by layer.
    pub fn all(&self) -> impl Iterator<Item = &PairVectors<B>> {
        self.layers
            .iter()
            .flat_map(|layer| layer.0.iter().flatten())
    }

    /// Whether `adapter` has the sites and ranks that memory was laid out for.
    pub fn fits(&self, adapter: &Adapter) -> bool {
        self.all().count() == adapter.pairs.len()
            && adapter.pairs.iter().all(|(site, pair)| {
                self.layers[site.layer]
                    .get(site.target)
                    .is_some_and(|own| own.rank == pair.rank())
            })
    }

    /// Takes over the values of an adapter that [`Self::fits`].
    pub fn write(&mut self, backend: &B, adapter: &Adapter) {
        for (site, pair) in &adapter.pairs {
            if let Some(own) = &mut self.layers[site.layer].0[site.target as usize] {
                transpose(pair, &mut self.transposed);
                backend.write_vector(&mut own.a, pair.a.data());
                backend.write_vector(&mut own.b_transposed, &self.transposed);
                own.scale = pair.scale;
            }
        }
    }

    /// Rank by site, in order: what a plan depends on.
    pub fn ranks(&self) -> BTreeMap<Site, usize> {
        let mut ranks = BTreeMap::new();
        for (layer, pairs) in self.layers.iter().enumerate() {
            for target in Target::ALL {
                if let Some(pair) = pairs.get(target) {
                    ranks.insert(Site { layer, target }, pair.rank);
                }
            }
        }
        ranks
    }
}

fn transpose(pair: &LowRankPair, out: &mut Vec<f32>) {
    let (outputs, rank) = (pair.b.shape()[0], pair.b.shape()[1]);
    out.clear();
    out.resize(outputs * rank, 0.0);
    for (row, values) in pair.b.data().chunks_exact(rank).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            out[column * outputs + row] = value;
        }
    }
}
