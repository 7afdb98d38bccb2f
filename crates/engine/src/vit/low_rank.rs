//! An adapter's factors in a backend's memory, and where their gradients lie.

use crate::backend::{Backend, Matrix, Region};
use model::adapter::{Adapter, Factors, Site, Target};
use std::collections::BTreeMap;

/// One pair of factors. `B` is kept transposed, so that every product runs along rows.
pub struct FactorVectors<B: Backend> {
    pub rank: usize,
    /// `[rank, in]`
    pub a: B::Vector,
    /// `[rank, out]`
    pub b_transposed: B::Vector,
    pub scale: f32,
    /// `[rank, in]` in [`Region::Gradients`]
    pub da: Matrix,
    /// `[rank, out]` in [`Region::Gradients`]
    pub db_transposed: Matrix,
}

/// The factors of one layer by target.
pub struct LayerFactors<B: Backend>([Option<FactorVectors<B>>; 6]);

impl<B: Backend> LayerFactors<B> {
    pub fn get(&self, target: Target) -> Option<&FactorVectors<B>> {
        self.0[target as usize].as_ref()
    }
}

/// All factors of an adapter.
pub struct LowRank<B: Backend> {
    pub layers: Vec<LayerFactors<B>>,
    /// Values that the gradients of all factors take.
    pub gradient_length: usize,
    transposed: Vec<f32>,
}

impl<B: Backend> LowRank<B> {
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
        let mut by_layer: Vec<LayerFactors<B>> = (0..layers)
            .map(|_| LayerFactors(std::array::from_fn(|_| None)))
            .collect();
        let mut transposed = Vec::new();
        for (site, factors) in &adapter.factors {
            let rank = factors.rank();
            transpose(factors, &mut transposed);
            by_layer[site.layer].0[site.target as usize] = Some(FactorVectors {
                rank,
                a: backend.vector(factors.a.data()),
                b_transposed: backend.vector(&transposed),
                scale: factors.scale,
                da: place(rank, factors.a.shape()[1]),
                db_transposed: place(rank, factors.b.shape()[0]),
            });
        }
        Self {
            layers: by_layer,
            gradient_length,
            transposed,
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &FactorVectors<B>> {
        self.layers
            .iter()
            .flat_map(|layer| layer.0.iter().flatten())
    }

    /// Whether `adapter` has the sites and ranks that memory was laid out for.
    pub fn fits(&self, adapter: &Adapter) -> bool {
        self.all().count() == adapter.factors.len()
            && adapter.factors.iter().all(|(site, factors)| {
                self.layers[site.layer]
                    .get(site.target)
                    .is_some_and(|own| own.rank == factors.rank())
            })
    }

    /// Takes over the values of an adapter that [`Self::fits`].
    pub fn write(&mut self, backend: &B, adapter: &Adapter) {
        for (site, factors) in &adapter.factors {
            if let Some(own) = &mut self.layers[site.layer].0[site.target as usize] {
                transpose(factors, &mut self.transposed);
                backend.write_vector(&mut own.a, factors.a.data());
                backend.write_vector(&mut own.b_transposed, &self.transposed);
                own.scale = factors.scale;
            }
        }
    }

    /// Rank by site, in order: what a plan depends on.
    pub fn ranks(&self) -> BTreeMap<Site, usize> {
        let mut ranks = BTreeMap::new();
        for (layer, factors) in self.layers.iter().enumerate() {
            for target in Target::ALL {
                if let Some(factors) = factors.get(target) {
                    ranks.insert(Site { layer, target }, factors.rank);
                }
            }
        }
        ranks
    }
}

fn transpose(factors: &Factors, out: &mut Vec<f32>) {
    let (outputs, rank) = (factors.b.shape()[0], factors.b.shape()[1]);
    out.clear();
    out.resize(outputs * rank, 0.0);
    for (row, values) in factors.b.data().chunks_exact(rank).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            out[column * outputs + row] = value;
        }
    }
}
