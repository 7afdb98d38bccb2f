//! One merge coefficient for each adapter and layer: the student is `Σ_i c_il·ΔW_il` exactly, stacked and not compressed, and only the
//! coefficients are learned. Where a task's own adapters are left out of the sum, its classes are new to it, as those of later use will be.

use super::member::TaskSource;
use crate::saved_state::{SavedState, SavedStateError};
use engine::operation::OperationError;
use engine::optimise::{Adam, AdamSettings};
use engine::session::Gradients;
use model::adapter::{Adapter, LowRankPair, Site};
use model::tensor::Tensor;
use std::collections::BTreeMap;

/// Learning the merge coefficients under way.
pub(super) struct CoefficientLearning {
    /// `[adapters, layers]`
    coefficients: Vec<f32>,
    layers: usize,
    /// All changes side by side, `B` with the coefficients of the newest task.
    stack: Adapter,
    blocks: BTreeMap<Site, Vec<Block>>,
    adam: Adam,
    pub steps_done: u64,
}

/// The change of one adapter in the stack of a site.
struct Block {
    source: usize,
    /// Its first column of the stacked `B`.
    first: usize,
    /// `scale·B`, `[outputs, rank]`
    b: Tensor,
}

impl CoefficientLearning {
    /// All coefficients are `scale`; `sites` are those of the student.
    pub fn new<'s>(
        sources: &[TaskSource],
        sites: impl Iterator<Item = &'s Site>,
        layers: usize,
        scale: f32,
    ) -> Self {
        let mut stack = Adapter::default();
        let mut blocks = BTreeMap::new();
        for site in sites {
            if let Some((stacked, own)) = stacked(sources, *site) {
                stack.pairs.insert(*site, stacked);
                blocks.insert(*site, own);
            }
        }
        let coefficients = vec![scale; sources.len() * layers];
        Self {
            adam: Adam::new(AdamSettings::default(), coefficients.len()),
            coefficients,
            layers,
            stack,
            blocks,
            steps_done: 0,
        }
    }

    /// Whether no adapter changes any of the student's sites.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub fn coefficient(&self, source: usize, layer: usize) -> f32 {
        self.coefficients[source * self.layers + layer]
    }

    pub fn by_adapter(&self) -> Vec<Vec<f32>> {
        self.coefficients
            .chunks(self.layers)
            .map(<[f32]>::to_vec)
            .collect()
    }

    /// The sum without the adapters `left_out`.
    pub fn student(&mut self, left_out: &[usize]) -> &Adapter {
        for (site, blocks) in &self.blocks {
            let Some(stacked) = self.stack.pairs.get_mut(site) else {
                continue;
            };
            let columns = stacked.rank();
            for block in blocks {
                let coefficient = match left_out.contains(&block.source) {
                    true => 0.0,
                    false => self.coefficients[block.source * self.layers + site.layer],
                };
                let rank = block.b.shape()[1];
                let rows = stacked.b.data_mut().chunks_exact_mut(columns);
                for (row, own) in rows.zip(block.b.data().chunks_exact(rank)) {
                    for (slot, value) in row[block.first..].iter_mut().zip(own) {
                        *slot = coefficient * value;
                    }
                }
            }
        }
        &self.stack
    }

    /// One step down `gradients`, which are at the stack without the adapters `left_out`.
    pub fn step(
        &mut self,
        gradients: &Gradients,
        left_out: &[usize],
        rate: f64,
    ) -> Result<(), OperationError> {
        let mut sums = vec![0.0f64; self.coefficients.len()];
        for (site, blocks) in &self.blocks {
            let Some(gradient) = gradients.pairs.get(site) else {
                continue;
            };
            let columns = gradient.db.shape()[1];
            for block in blocks.iter().filter(|own| !left_out.contains(&own.source)) {
                let rank = block.b.shape()[1];
                let rows = gradient.db.data().chunks_exact(columns);
                let products =
                    rows.zip(block.b.data().chunks_exact(rank))
                        .flat_map(|(row, own)| {
                            let row = row[block.first..].iter();
                            row.zip(own).map(|(d, b)| f64::from(*d) * f64::from(*b))
                        });
                sums[block.source * self.layers + site.layer] += products.sum::<f64>();
            }
        }
        let gradient: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        self.adam.step(&mut self.coefficients, &gradient, rate)?;
        self.steps_done += 1;
        Ok(())
    }

    pub fn save(&self, state: &mut SavedState) {
        state.put_f32("merge_coefficients", &self.coefficients);
        state.put_adam("merge_coefficients_adam", self.adam.state());
        state.put_u64("merge_coefficient_steps", &[self.steps_done]);
    }

    pub fn read(&mut self, state: &SavedState) -> Result<(), SavedStateError> {
        let count = self.coefficients.len();
        self.coefficients = state.f32("merge_coefficients", count)?;
        let adam = state.adam("merge_coefficients_adam", count)?;
        self.adam = Adam::resume(AdamSettings::default(), adam);
        [self.steps_done] = state.u64("merge_coefficient_steps")?;
        Ok(())
    }
}

/// The changes of all adapters at `site` side by side; `None` where there are none.
fn stacked(sources: &[TaskSource], site: Site) -> Option<(LowRankPair, Vec<Block>)> {
    let parts: Vec<(usize, &LowRankPair)> = sources
        .iter()
        .enumerate()
        .filter_map(|(index, source)| Some((index, source.member.adapter.pairs.get(&site)?)))
        .collect();
    let (_, first) = parts.first()?;
    let (outputs, inputs) = (first.outputs(), first.inputs());
    let rank = parts.iter().map(|(_, own)| own.rank()).sum();
    let mut a = Vec::with_capacity(rank * inputs);
    let mut blocks = Vec::with_capacity(parts.len());
    let mut next = 0;
    for (source, own) in parts {
        a.extend_from_slice(own.a.data());
        let mut b = own.b.clone();
        b.data_mut()
            .iter_mut()
            .for_each(|value| *value *= own.scale);
        blocks.push(Block {
            source,
            first: next,
            b,
        });
        next += own.rank();
    }
    let pair = LowRankPair {
        a: Tensor::new([rank, inputs], a).ok()?,
        b: Tensor::zeros([outputs, rank]),
        scale: 1.0,
    };
    Some((pair, blocks))
}
