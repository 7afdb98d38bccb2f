//! An adapter's low-rank pairs in a backend's memory, and where their gradients are.

use crate::backend::{Backend, Matrix, Region, VectorPart};
use model::adapter::{Adapter, LowRankPair, Site, Target};
use std::collections::BTreeMap;

/// One low-rank pair. `B` is kept transposed, so that every product runs along rows.
#[derive(Debug, Clone, Copy)]
pub struct PairVectors {
    /// Rank of the pair.
    pub rank: usize,
    /// Multiplies the product of both.
    pub scale: f32,
    /// `[rank, in]` in [`Region::Gradients`]
    pub da: Matrix,
    /// `[rank, out]` in [`Region::Gradients`]
    pub db_transposed: Matrix,
}

/// The low-rank pairs of one layer by target.
#[derive(Debug, Clone, Default)]
pub struct LayerPairs([Option<PairVectors>; 6]);

impl LayerPairs {
    /// The pair of `target`, if the adapter has one there.
    pub fn get(&self, target: Target) -> Option<&PairVectors> {
        self.0[target as usize].as_ref()
    }
}

/// All low-rank pairs of an adapter. Their matrices and gradients are laid out alike, each in one piece.
pub struct LowRank<B: Backend> {
    /// One a layer of the backbone.
    pub layers: Vec<LayerPairs>,
    /// Values that the matrices of all pairs take, and their gradients.
    pub length: usize,
    matrices: B::Vector,
    /// The matrices before they are copied to the device.
    staging: Vec<f32>,
}

impl<B: Backend> LowRank<B> {
    /// Copies the pairs of `adapter` into the memory of `backend`, for a backbone of `layers` layers.
    pub fn new(backend: &B, adapter: &Adapter, layers: usize) -> Self {
        let mut length = 0;
        let mut place = |rank: usize, columns: usize| {
            let start = length;
            length += (rank * columns).next_multiple_of(16);
            Matrix {
                region: Region::Gradients,
                start,
                rows: rank,
                columns,
                stride: columns,
            }
        };
        let mut by_layer = vec![LayerPairs::default(); layers];
        for (site, pair) in &adapter.pairs {
            let rank = pair.rank();
            by_layer[site.layer].0[site.target as usize] = Some(PairVectors {
                rank,
                scale: pair.scale,
                da: place(rank, pair.a.shape()[1]),
                db_transposed: place(rank, pair.b.shape()[0]),
            });
        }
        let mut own = Self {
            layers: by_layer,
            length,
            matrices: backend.vector(&vec![0.0; length]),
            staging: vec![0.0; length],
        };
        own.write(backend, adapter);
        own
    }

    /// The matrix whose gradient is `gradient`, of the same shape.
    pub fn matrix_of(&self, gradient: Matrix) -> VectorPart<'_, B::Vector> {
        VectorPart {
            vector: &self.matrices,
            start: gradient.start,
        }
    }

    /// The gradients of all pairs.
    pub fn gradients(&self) -> Matrix {
        Matrix {
            region: Region::Gradients,
            start: 0,
            rows: 1,
            columns: self.length,
            stride: self.length,
        }
    }

    /// Every pair, layer by layer.
    pub fn all(&self) -> impl Iterator<Item = &PairVectors> {
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
                own.scale = pair.scale;
                let values = pair.a.data();
                self.staging[own.da.start..][..values.len()].copy_from_slice(values);
                transpose(pair, &mut self.staging[own.db_transposed.start..]);
            }
        }
        backend.write_vector(&mut self.matrices, &self.staging);
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

/// `B` `[outputs, rank]` as `out` `[rank, outputs]`.
fn transpose(pair: &LowRankPair, out: &mut [f32]) {
    let (outputs, rank) = (pair.b.shape()[0], pair.b.shape()[1]);
    for (row, values) in pair.b.data().chunks_exact(rank).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            out[column * outputs + row] = value;
        }
    }
}
