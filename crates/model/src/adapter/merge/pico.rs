//! Pico (arXiv 2604.16826): before a merge, the directions into which many adapters write are made weaker; after it, the merged change
//! gets the mean norm of the changes as they were.

use super::spaces::{Decomposition, MergedChange, NEGLIGIBLE, Spaces, decompose};
use super::{MergeError, Part, effective};
use crate::adapter::{LowRankPair, Site};
use crate::tensor::Tensor;
use matrix::{Mat, product};

/// The low-rank pairs at one site after Pico, for any merge of changes.
///
/// `[B_1 … B_n] = U diag(σ) Vᵀ`, where `B_i` has the scale and the weight of its adapter; every `B_i` becomes `C·B_i`. `C` multiplies the
/// direction `u_j`, with the share `s_j = σ_j² / Σ σ²` of all squares, by `1 / (1 + (n−1)·s_j)`. The paper's `B` have neither scale nor
/// weight; where these are alike, they change no share.
pub(super) struct Calibrated<'a> {
    parts: Vec<Part<'a>>,
    /// `C·B_i` beside `A_i`, in the order of `parts`.
    pairs: Vec<LowRankPair>,
    /// Mean of `‖w_i·ΔW_i‖` before Pico.
    mean_norm: f64,
}

impl<'a> Calibrated<'a> {
    /// Those of `parts` that change anything.
    ///
    /// # Errors
    /// [`MergeError::Decomposition`] for values that are not finite.
    pub fn of(site: Site, parts: &[Part<'a>]) -> Result<Self, MergeError> {
        let parts = effective(parts);
        let spaces = Spaces::of(&parts);
        let Decomposition { u, values, .. } =
            decompose(site, spaces.weighted_b(&parts).as_ref())?.first(usize::MAX, 0.0);
        let all: f64 = values.iter().map(|value| value * value).sum();
        let others = parts.len() as f64 - 1.0;
        // What each direction loses of every B: [k, Σ ranks].
        let along = product(u.transpose(), spaces.b.as_ref());
        let lost = Mat::from_fn(along.nrows(), along.ncols(), |j, column| {
            let crowd = others * values[j] * values[j] / all;
            along[(j, column)] * crowd / (1.0 + crowd)
        });
        let lost = product(u.as_ref(), lost.as_ref());
        let lost = product(spaces.left.as_ref(), lost.as_ref());
        let mut first = 0;
        let pairs = parts.iter().map(|part| {
            let pair = less(part.pair, &lost, first);
            first += part.pair.rank();
            pair
        });
        let pairs = pairs.collect();
        let norms = spaces.weighted_cores(&parts);
        let norms = norms
            .iter()
            .map(|core| matrix::squared_norm(core.as_ref()).sqrt());
        Ok(Self {
            pairs,
            mean_norm: norms.sum::<f64>() / parts.len() as f64,
            parts,
        })
    }

    /// What is merged in place of the parts.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let parts = self.parts.iter().zip(&self.pairs);
        parts.map(|(part, pair)| Part { pair, ..*part }).collect()
    }

    /// Gives `merged` the mean norm of the changes before Pico.
    pub fn rescale(&self, merged: &mut MergedChange) {
        let norm = merged.norm();
        // Changes that cancel each other leave rounding, which must not become a change.
        if norm > self.mean_norm * NEGLIGIBLE {
            merged.scale(self.mean_norm / norm);
        }
    }
}

/// `pair` with its `B` without the columns of `lost` `[out, ·]` from `first` on.
fn less(pair: &LowRankPair, lost: &Mat<f64>, first: usize) -> LowRankPair {
    let mut b = Tensor::zeros([pair.outputs(), pair.rank()]);
    let rows = b.data_mut().chunks_exact_mut(pair.rank().max(1));
    for (row, slots) in rows.enumerate() {
        for (j, (slot, value)) in slots.iter_mut().zip(pair.b.row(row)).enumerate() {
            *slot = (f64::from(*value) - lost[(row, first + j)]) as f32;
        }
    }
    LowRankPair {
        a: pair.a.clone(),
        b,
        scale: pair.scale,
    }
}
