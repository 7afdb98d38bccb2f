//! The student before its first step: an adapter that changes nothing, or the compressed sum of the pool's changes.

use super::MetaTrainError;
use super::member::TaskSource;
use super::recipe::{MetaTrainRecipe, Start};
use crate::fresh_adapter::{PairShape, fresh_adapter};
use model::adapter::{Adapter, LowRankPair, MergeInput, MergeMethod, MergeOptions, merge};
use model::backbone::BackboneConfig;

/// Low-rank pairs of `recipe`'s sites and rank, scale 1, which change nothing.
pub(super) fn fresh_student(
    config: &BackboneConfig,
    layers: &[usize],
    recipe: &MetaTrainRecipe,
) -> Adapter {
    let shape = PairShape {
        layers,
        targets: &recipe.targets,
        rank: recipe.rank,
        scale: 1.0,
    };
    fresh_adapter(config, shape, recipe.seed)
}

/// The scale of the sum that a start from `adapters` adapters takes; `None` where it takes no sum.
pub(super) fn sum_scale(start: Start, adapters: usize) -> Option<f32> {
    match start {
        Start::Zero => None,
        Start::Merge { scale } => {
            let scale = scale.unwrap_or_else(|| (STUDIED_SUM / adapters as f64).min(1.0));
            Some(scale as f32)
        }
    }
}

/// The best scale of a study times its number of adapters, 0.33·12.
const STUDIED_SUM: f64 = 4.0;

/// Gives the sites of `student` the nearest change of its rank to the sum of the adapters' changes, each times
/// `coefficient(adapter, layer)`.
pub(super) fn take_sum(
    student: &mut Adapter,
    sources: &[TaskSource],
    rank: usize,
    coefficient: impl Fn(usize, usize) -> f32,
) -> Result<(), MetaTrainError> {
    // A single adapter would be taken as it is, whatever its rank: two halves of it are compressed.
    let halves = if sources.len() == 1 { 2 } else { 1 };
    let scaled = |index: usize, source: &TaskSource| {
        let own = student.pairs.keys().filter_map(|site| {
            let mut own = source.member.adapter.pairs.get(site)?.clone();
            own.scale *= coefficient(index, site.layer);
            Some((*site, own))
        });
        Adapter {
            pairs: own.collect(),
            head: None,
        }
    };
    let parts: Vec<Adapter> = (0..sources.len())
        .flat_map(|index| std::iter::repeat_n(index, halves))
        .map(|index| scaled(index, &sources[index]))
        .collect();
    let inputs: Vec<MergeInput<'_>> = parts
        .iter()
        .enumerate()
        .map(|(index, adapter)| MergeInput {
            name: &sources[index / halves].member.label,
            adapter,
            weight: 1.0 / halves as f32,
        })
        .collect();
    let options = MergeOptions {
        rank: Some(rank),
        ..MergeOptions::new(MergeMethod::PeftSvd)
    };
    let sum = merge(&inputs, &options)?.adapter;
    for (site, own) in &mut student.pairs {
        if let Some(part) = sum.pairs.get(site) {
            take_over(own, part);
        }
    }
    Ok(())
}

/// Puts the rank-one parts of `part` first into `own`, each with both sides of one length, so that steps of one size suit both. Pairs
/// that `part` does not have change nothing: their column of B stays zero.
fn take_over(own: &mut LowRankPair, part: &LowRankPair) {
    let (inputs, rank) = (own.inputs(), own.rank());
    let length = |values: &[f32]| {
        let squares = values.iter().map(|value| f64::from(*value).powi(2));
        squares.sum::<f64>().sqrt()
    };
    for pair in 0..part.rank().min(rank) {
        let a = part.a.row(pair);
        let rows = 0..part.outputs();
        let b: Vec<f32> = rows.map(|row| part.b.row(row)[pair] * part.scale).collect();
        let (of_a, of_b) = (length(a), length(&b));
        let root = (of_a * of_b).sqrt();
        if root == 0.0 {
            let rows = own.b.data_mut().chunks_exact_mut(rank);
            rows.for_each(|row| row[pair] = 0.0);
            continue;
        }
        let target = &mut own.a.data_mut()[pair * inputs..][..inputs];
        for (slot, &value) in target.iter_mut().zip(a) {
            *slot = (f64::from(value) * root / of_a) as f32;
        }
        let targets = own.b.data_mut().chunks_exact_mut(rank);
        for (row, &value) in targets.zip(&b) {
            row[pair] = (f64::from(value) * root / of_b) as f32;
        }
    }
}
