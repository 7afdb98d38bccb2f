//! PEFT's merges of values: `peft-linear`, `peft-ties` and `peft-dare-linear` treat the values of all `A` and of all `B` apart, each side times
//! √(weight·scale); a sign goes with `A` only.

use super::ties::Ties;
use super::{MergeError, MergeMethod, MergeOptions, Part, unscaled_pair};
use crate::adapter::{LowRankPair, Site};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

pub(super) fn merge(
    site: Site,
    parts: &[Part<'_>],
    options: &MergeOptions,
    random: &mut ChaCha8Rng,
) -> Result<LowRankPair, MergeError> {
    let method = options.method.method();
    check_ranks(site, parts, method)?;
    let roots: Vec<(f32, f32)> = parts
        .iter()
        .map(|part| {
            let product = f64::from(part.weight) * f64::from(part.pair.scale);
            let root = product.abs().sqrt();
            let sign = if product >= 0.0 { 1.0 } else { -1.0 };
            ((root * sign) as f32, root as f32)
        })
        .collect();
    let density = options.density_or_default();
    let mut side = |tensors: Vec<&[f32]>, weights: Vec<f32>| match method {
        MergeMethod::PeftTies => Ties {
            density,
            majority_sign: options.majority_sign,
            weights: &weights,
        }
        .merge(|index| tensors[index].to_vec()),
        MergeMethod::PeftDareLinear => {
            let thin = |tensor: &&[f32]| thinned(tensor, density, random);
            let thinned: Vec<Vec<f32>> = tensors.iter().map(thin).collect();
            let thinned: Vec<&[f32]> = thinned.iter().map(Vec::as_slice).collect();
            weighted_sum(&thinned, &weights)
        }
        _ => weighted_sum(&tensors, &weights),
    };
    let a = side(
        parts.iter().map(|part| part.pair.a.data()).collect(),
        roots.iter().map(|root| root.0).collect(),
    );
    let b = side(
        parts.iter().map(|part| part.pair.b.data()).collect(),
        roots.iter().map(|root| root.1).collect(),
    );
    let first = parts[0].pair;
    Ok(unscaled_pair(
        [first.rank(), first.inputs()],
        a,
        [first.outputs(), first.rank()],
        b,
    ))
}

fn check_ranks(site: Site, parts: &[Part<'_>], method: MergeMethod) -> Result<(), MergeError> {
    let first = &parts[0];
    match parts
        .iter()
        .find(|part| part.pair.rank() != first.pair.rank())
    {
        Some(other) => Err(MergeError::UnlikeRanks {
            method: method.name(),
            site,
            first: first.name.to_owned(),
            first_rank: first.pair.rank(),
            second: other.name.to_owned(),
            second_rank: other.pair.rank(),
        }),
        None => Ok(()),
    }
}

fn weighted_sum(tensors: &[&[f32]], weights: &[f32]) -> Vec<f32> {
    let mut sum = vec![0f32; tensors[0].len()];
    for (tensor, weight) in tensors.iter().zip(weights) {
        for (sum, value) in sum.iter_mut().zip(*tensor) {
            *sum += value * weight;
        }
    }
    sum
}

/// Each value kept with probability `density` and divided by it.
fn thinned(tensor: &[f32], density: f64, random: &mut ChaCha8Rng) -> Vec<f32> {
    if density >= 1.0 {
        return tensor.to_vec();
    }
    let divisor = density as f32;
    tensor
        .iter()
        .map(|value| {
            if random.random_bool(density) {
                value / divisor
            } else {
                0.0
            }
        })
        .collect()
}
