//! The student before its first step: an adapter that changes nothing, or the compressed sum of the pool's changes.

use super::MetaTrainError;
use super::member::Source;
use super::recipe::{MetaTrainRecipe, Start};
use crate::adapter::{Adapter, Factors, MergeInput, MergeMethod, MergeOptions, Site, merge};
use crate::backbone::BackboneConfig;
use crate::recycle::fresh_adapter::{FactorShape, fresh_adapter};

/// Factors of `recipe`'s sites and rank, scale 1.
pub(super) fn student(
    config: &BackboneConfig,
    sources: &[Source],
    layers: &[usize],
    recipe: &MetaTrainRecipe,
) -> Result<Adapter, MetaTrainError> {
    let shape = FactorShape {
        layers,
        targets: &recipe.targets,
        rank: recipe.rank,
        scale: 1.0,
    };
    let mut student = fresh_adapter(config, shape, recipe.seed);
    if let Start::Merge { factor } = recipe.start {
        let factor = factor.unwrap_or_else(|| (STUDIED_SUM / sources.len() as f64).min(1.0));
        let sum = compressed_sum(sources, factor as f32, recipe.rank, student.factors.keys())?;
        for (site, own) in &mut student.factors {
            if let Some(part) = sum.factors.get(site) {
                take_over(own, part);
            }
        }
    }
    Ok(student)
}

/// The best factor of a study times its number of adapters, 0.33·12.
const STUDIED_SUM: f64 = 4.0;

/// The nearest change of `rank` to `factor` times the sum of the changes, at `sites`.
fn compressed_sum<'s>(
    sources: &[Source],
    factor: f32,
    rank: usize,
    sites: impl Iterator<Item = &'s Site> + Clone,
) -> Result<Adapter, MetaTrainError> {
    // A single adapter would be taken as it is, whatever its rank: two halves of it are compressed.
    let halves = if sources.len() == 1 { 2 } else { 1 };
    let parts: Vec<(&str, Adapter)> = sources
        .iter()
        .flat_map(|source| std::iter::repeat_n(source, halves))
        .map(|source| {
            let all = &source.member.adapter.factors;
            let own = sites
                .clone()
                .filter_map(|site| Some((*site, all.get(site)?.clone())));
            let adapter = Adapter {
                factors: own.collect(),
                head: None,
            };
            (source.member.label.as_str(), adapter)
        })
        .collect();
    let inputs: Vec<MergeInput<'_>> = parts
        .iter()
        .map(|(name, adapter)| MergeInput {
            name,
            adapter,
            weight: factor / halves as f32,
        })
        .collect();
    let options = MergeOptions {
        svd_rank: Some(rank),
        ..MergeOptions::new(MergeMethod::Svd)
    };
    Ok(merge(&inputs, &options)?.adapter)
}

/// Puts the pairs of `part` first into `own`, each with both sides of one length, so that steps of one size suit both. Pairs
/// that `part` does not have change nothing: their column of B stays zero.
fn take_over(own: &mut Factors, part: &Factors) {
    let (inputs, rank) = (own.inputs(), own.rank());
    let length = |values: &mut dyn Iterator<Item = f32>| {
        values
            .map(|value| f64::from(value).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    for pair in 0..part.rank().min(rank) {
        let a = part.a.row(pair);
        let b: Vec<f32> = (0..part.outputs())
            .map(|row| part.b.row(row)[pair] * part.scale)
            .collect();
        let (of_a, of_b) = (
            length(&mut a.iter().copied()),
            length(&mut b.iter().copied()),
        );
        if of_a == 0.0 || of_b == 0.0 {
            continue;
        }
        let root = (of_a * of_b).sqrt();
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
