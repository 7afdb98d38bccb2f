//! Merging adapters into one, by the definitions of PEFT's `add_weighted_adapter`. A weight `w` means: `w` times the adapter's change.
//! Only changes are merged; heads of different classes have no common meaning.

mod svd;

use super::{Adapter, Factors, Site};
use crate::tensor::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;
use utoipa::ToSchema;

/// How changes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeMethod {
    /// Sums the factors `A` and `B`, each times √weight: a rough approximation of the sum of the changes. Needs equal ranks.
    Linear,
    /// Stacks the factors: the weighted sum of the changes exactly, with the sum of the ranks.
    Cat,
    /// The nearest change of a given rank to the weighted sum of the changes.
    Svd,
    /// Keeps each factor's largest values and those that agree on their sign. Needs equal ranks and a density.
    Ties,
    /// Drops values at random and scales the rest up, then sums as `linear`. Needs equal ranks and a density.
    DareLinear,
}

impl MergeMethod {
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Svd => "svd",
            Self::Ties => "ties",
            Self::DareLinear => "dare_linear",
        }
    }
}

/// How `ties` elects the sign of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MajoritySign {
    /// The sign of the sum.
    #[default]
    Total,
    /// The sign that more adapters have.
    Frequency,
}

/// Settings of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MergeOptions {
    pub method: MergeMethod,
    /// Rank of the result of `svd`; the largest rank of the adapters where it is not given.
    pub svd_rank: Option<usize>,
    /// Share of values that `ties` and `dare_linear` keep, above 0 and at most 1.
    pub density: Option<f64>,
    pub majority_sign: MajoritySign,
    /// Seed of `dare_linear`'s choice.
    pub seed: u64,
}

impl MergeOptions {
    pub fn new(method: MergeMethod) -> Self {
        Self {
            method,
            svd_rank: None,
            density: None,
            majority_sign: MajoritySign::default(),
            seed: 0,
        }
    }
}

/// An adapter to merge.
#[derive(Debug, Clone, Copy)]
pub struct MergeInput<'a> {
    pub name: &'a str,
    pub adapter: &'a Adapter,
    pub weight: f32,
}

/// The result of a merge and what is worth knowing of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    pub adapter: Adapter,
    /// One sentence each.
    pub notes: Vec<String>,
}

/// Why adapters cannot be merged.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum MergeError {
    #[error("there is nothing to merge; name at least one adapter")]
    Nothing,
    #[error("the weight of {name} is {weight}, not a finite number")]
    Weight { name: String, weight: f32 },
    #[error("{method} needs a density above 0 and at most 1; {found}")]
    Density { method: &'static str, found: String },
    #[error("the rank of svd must be at least 1")]
    Rank,
    #[error(
        "{method} needs equal ranks, but {site} has rank {first_rank} in {first} and {second_rank} in {second}; use cat or svd"
    )]
    UnlikeRanks {
        method: &'static str,
        site: Site,
        first: String,
        first_rank: usize,
        second: String,
        second_rank: usize,
    },
    #[error("{first} and {second} are for different backbones: {site} has other widths")]
    UnlikeShapes {
        site: Site,
        first: String,
        second: String,
    },
    #[error("the change of {site} could not be decomposed: it is too large or not finite")]
    Decomposition { site: Site },
    #[error("the merged change of {site} is not finite; use smaller weights")]
    NotFinite { site: Site },
}

/// Merges adapters of one backbone.
///
/// # Errors
/// [`MergeError`] says which adapters do not go together, or which setting is missing.
pub fn merge(inputs: &[MergeInput<'_>], options: &MergeOptions) -> Result<Merged, MergeError> {
    check(inputs, options)?;
    if let [only] = inputs {
        return Ok(single(only));
    }
    let mut notes = Vec::new();
    let with_heads: Vec<&str> = inputs
        .iter()
        .filter(|input| input.adapter.head.is_some())
        .map(|input| input.name)
        .collect();
    if !with_heads.is_empty() {
        notes.push(format!(
            "the heads of {} were left out: heads of different classes cannot be merged",
            with_heads.join(", ")
        ));
    }
    let sites: BTreeSet<Site> = inputs
        .iter()
        .flat_map(|input| input.adapter.factors.keys().copied())
        .collect();
    let largest_rank = inputs
        .iter()
        .map(|input| input.adapter.largest_rank())
        .max()
        .unwrap_or(0);
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut merged = Adapter::default();
    for site in sites {
        let parts: Vec<Part<'_>> = inputs
            .iter()
            .filter_map(|input| {
                input.adapter.factors.get(&site).map(|factors| Part {
                    name: input.name,
                    factors,
                    weight: input.weight,
                })
            })
            .collect();
        if parts.len() < inputs.len() {
            notes.push(format!(
                "{site} is changed by {} of {} adapters",
                parts.len(),
                inputs.len()
            ));
        }
        check_widths(site, &parts)?;
        let factors = match options.method {
            MergeMethod::Cat => cat(&parts),
            MergeMethod::Svd => svd::merge(site, &parts, options.svd_rank.unwrap_or(largest_rank))?,
            MergeMethod::Linear | MergeMethod::Ties | MergeMethod::DareLinear => {
                check_ranks(site, &parts, options.method)?;
                by_values(&parts, options, &mut random)
            }
        };
        let finite = |tensor: &Tensor| tensor.first_non_finite().is_none();
        if !finite(&factors.a) || !finite(&factors.b) {
            return Err(MergeError::NotFinite { site });
        }
        merged.factors.insert(site, factors);
    }
    Ok(Merged {
        adapter: merged,
        notes,
    })
}

/// One adapter's factors at the site at hand.
struct Part<'a> {
    name: &'a str,
    factors: &'a Factors,
    weight: f32,
}

fn check(inputs: &[MergeInput<'_>], options: &MergeOptions) -> Result<(), MergeError> {
    if inputs.is_empty() {
        return Err(MergeError::Nothing);
    }
    for input in inputs {
        if !input.weight.is_finite() {
            return Err(MergeError::Weight {
                name: input.name.to_owned(),
                weight: input.weight,
            });
        }
    }
    if matches!(options.method, MergeMethod::Ties | MergeMethod::DareLinear) {
        let found = match options.density {
            Some(density) if density > 0.0 && density <= 1.0 => None,
            Some(density) => Some(format!("it is {density}")),
            None => Some("it is not given".into()),
        };
        if let Some(found) = found {
            return Err(MergeError::Density {
                method: options.method.name(),
                found,
            });
        }
    }
    if options.svd_rank == Some(0) {
        return Err(MergeError::Rank);
    }
    Ok(())
}

/// PEFT takes every method for a plain scaling where there is one adapter. The factors stay as they are, bit for bit.
fn single(only: &MergeInput<'_>) -> Merged {
    let mut adapter = only.adapter.clone();
    for factors in adapter.factors.values_mut() {
        factors.scale *= only.weight;
    }
    let mut notes = vec![format!(
        "there is one adapter, {}: its change times {}",
        only.name, only.weight
    )];
    if only.weight != 1.0 && adapter.head.take().is_some() {
        notes.push(format!(
            "the head of {} was left out: it was tuned for the change times 1",
            only.name
        ));
    }
    Merged { adapter, notes }
}

fn check_widths(site: Site, parts: &[Part<'_>]) -> Result<(), MergeError> {
    let widths = |part: &Part<'_>| (part.factors.outputs(), part.factors.inputs());
    match parts.iter().find(|part| widths(part) != widths(&parts[0])) {
        Some(other) => Err(MergeError::UnlikeShapes {
            site,
            first: parts[0].name.to_owned(),
            second: other.name.to_owned(),
        }),
        None => Ok(()),
    }
}

fn check_ranks(site: Site, parts: &[Part<'_>], method: MergeMethod) -> Result<(), MergeError> {
    let first = &parts[0];
    match parts
        .iter()
        .find(|part| part.factors.rank() != first.factors.rank())
    {
        Some(other) => Err(MergeError::UnlikeRanks {
            method: method.name(),
            site,
            first: first.name.to_owned(),
            first_rank: first.factors.rank(),
            second: other.name.to_owned(),
            second_rank: other.factors.rank(),
        }),
        None => Ok(()),
    }
}

/// `A` is the stack of weight·scale·A, `B` the row of B: `B·A` is the weighted sum of the changes.
fn cat(parts: &[Part<'_>]) -> Factors {
    let (outputs, inputs) = (parts[0].factors.outputs(), parts[0].factors.inputs());
    let rank: usize = parts.iter().map(|part| part.factors.rank()).sum();
    let mut a = Vec::with_capacity(rank * inputs);
    for part in parts {
        let factor = part.weight * part.factors.scale;
        a.extend(part.factors.a.data().iter().map(|value| value * factor));
    }
    let mut b = Vec::with_capacity(outputs * rank);
    for row in 0..outputs {
        for part in parts {
            b.extend_from_slice(part.factors.b.row(row));
        }
    }
    factors([rank, inputs], a, [outputs, rank], b)
}

/// `linear`, `ties` and `dare_linear` treat the values of all `A` and of all `B` apart, each side times √(weight·scale); a sign goes
/// with `A` only.
fn by_values(parts: &[Part<'_>], options: &MergeOptions, random: &mut ChaCha8Rng) -> Factors {
    let roots: Vec<(f32, f32)> = parts
        .iter()
        .map(|part| {
            let product = f64::from(part.weight) * f64::from(part.factors.scale);
            let root = product.abs().sqrt();
            let sign = if product >= 0.0 { 1.0 } else { -1.0 };
            ((root * sign) as f32, root as f32)
        })
        .collect();
    let mut side = |tensors: Vec<&[f32]>, weights: Vec<f32>| match options.method {
        MergeMethod::Ties => {
            let pruned: Vec<Vec<f32>> = tensors
                .iter()
                .map(|tensor| largest(tensor, options.density.unwrap_or(1.0)))
                .collect();
            agreeing(&pruned, &weights, options.majority_sign)
        }
        MergeMethod::DareLinear => {
            let pruned: Vec<Vec<f32>> = tensors
                .iter()
                .map(|tensor| thinned(tensor, options.density.unwrap_or(1.0), random))
                .collect();
            let pruned: Vec<&[f32]> = pruned.iter().map(Vec::as_slice).collect();
            weighted_sum(&pruned, &weights)
        }
        MergeMethod::Linear | MergeMethod::Cat | MergeMethod::Svd => {
            weighted_sum(&tensors, &weights)
        }
    };
    let a = side(
        parts.iter().map(|part| part.factors.a.data()).collect(),
        roots.iter().map(|root| root.0).collect(),
    );
    let b = side(
        parts.iter().map(|part| part.factors.b.data()).collect(),
        roots.iter().map(|root| root.1).collect(),
    );
    let first = parts[0].factors;
    factors(
        [first.rank(), first.inputs()],
        a,
        [first.outputs(), first.rank()],
        b,
    )
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

/// The int(density·n) values of largest magnitude; all others zero.
fn largest(tensor: &[f32], density: f64) -> Vec<f32> {
    if density >= 1.0 {
        return tensor.to_vec();
    }
    let kept = (density * tensor.len() as f64) as usize;
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    order.sort_by(|&i, &j| tensor[j].abs().total_cmp(&tensor[i].abs()));
    let mut pruned = vec![0.0; tensor.len()];
    for &index in &order[..kept] {
        pruned[index] = tensor[index];
    }
    pruned
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

/// The mean of the weighted values whose sign is the elected one; the election is without weights.
fn agreeing(tensors: &[Vec<f32>], weights: &[f32], majority: MajoritySign) -> Vec<f32> {
    let sign = |value: f32| {
        if value == 0.0 { 0.0 } else { value.signum() }
    };
    (0..tensors[0].len())
        .map(|index| {
            let total: f32 = tensors
                .iter()
                .map(|tensor| match majority {
                    MajoritySign::Total => tensor[index],
                    MajoritySign::Frequency => sign(tensor[index]),
                })
                .sum();
            let elected = if total >= 0.0 { 1.0 } else { -1.0 };
            let (mut sum, mut count) = (0f32, 0f32);
            for (tensor, weight) in tensors.iter().zip(weights) {
                if sign(tensor[index]) == elected {
                    sum += tensor[index] * weight;
                    count += 1.0;
                }
            }
            sum / count.max(1.0)
        })
        .collect()
}

/// Factors of scale 1 whose lengths are right by construction.
fn factors(a_shape: [usize; 2], a: Vec<f32>, b_shape: [usize; 2], b: Vec<f32>) -> Factors {
    debug_assert_eq!(a.len(), a_shape[0] * a_shape[1]);
    debug_assert_eq!(b.len(), b_shape[0] * b_shape[1]);
    Factors {
        a: Tensor::new(a_shape, a).unwrap_or_default(),
        b: Tensor::new(b_shape, b).unwrap_or_default(),
        scale: 1.0,
    }
}
