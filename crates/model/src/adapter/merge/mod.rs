//! Merging adapters into one: PEFT's methods as its `add_weighted_adapter` defines them, newer ones as their papers do. The weight of an
//! adapter is what its change is multiplied by. Only changes are merged, site by site (a [`Site`] is one weight matrix of one layer); heads
//! are left out, because heads of different classes have no common meaning.

mod merging;
mod method;
mod pico;
mod singular_vectors;
mod spaces;
mod subspace;
#[cfg(test)]
mod tests;
mod ties;
mod values;

pub use merging::{Merging, UnknownMerging};
pub use method::{DefaultWeight, Density, MergeMethod, MergeMethodFacts, UnknownMergeMethod};

use super::{Adapter, LowRankPair, Site};
use crate::tensor::Tensor;
use pico::Calibrated;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use singular_vectors::Spectrum;
use std::collections::BTreeSet;
use thiserror::Error;
use ties::Ties;

/// How TIES elects the sign of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MajoritySign {
    /// The sign of the sum.
    #[default]
    Total,
    /// The sign that more adapters have.
    Frequency,
}

/// Settings of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MergeOptions {
    /// The merge method, with Pico before it or not.
    pub method: Merging,
    /// What the merged change is multiplied with.
    #[serde(alias = "factor")] // old spelling
    pub scale: f32,
    /// Rank of the result. Where it is not given, the largest rank of the adapters for `peft-svd` and `compress-then-merge`, and
    /// the rank of the exact result for the others; `average` and PEFT's other methods take none.
    pub rank: Option<usize>,
    /// Share of values that methods with TIES and `peft-dare-linear` keep, above 0 and at most 1.
    pub density: Option<f64>,
    /// How methods with TIES elect the sign of a value.
    pub majority_sign: MajoritySign,
    /// Seed of `peft-dare-linear`'s choice.
    pub seed: u64,
}

impl MergeOptions {
    /// `method` with scale 1 and its default rank and density.
    pub fn new(method: impl Into<Merging>) -> Self {
        Self {
            method: method.into(),
            scale: 1.0,
            rank: None,
            density: None,
            majority_sign: MajoritySign::default(),
            seed: 0,
        }
    }

    fn density_or_default(&self) -> f64 {
        let density = self.density.or(self.method.method().default_density());
        density.unwrap_or(1.0)
    }
}

/// A note on every merge called `ties`, for one version after the name changed its meaning.
const TIES_HAS_CHANGED: &str = "ties now means TIES on the weight changes; PEFT's TIES, which treats A and B separately and was called ties before, is peft-ties";

/// An adapter to merge.
#[derive(Debug, Clone, Copy)]
pub struct MergeInput<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// The adapter.
    pub adapter: &'a Adapter,
    /// What its change is multiplied by.
    pub weight: f32,
}

/// The result of a merge and notes on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The merged adapter.
    pub adapter: Adapter,
    /// One sentence each.
    pub notes: Vec<String>,
}

/// Why adapters cannot be merged.
#[derive(Debug, Error, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum MergeError {
    #[error("there is nothing to merge; name at least one adapter")]
    Nothing,
    #[error("the adapter {0} is named twice; name it once, with the sum of its weights")]
    Twice(String),
    #[error("the weight of {name} is {weight}, not a finite number")]
    Weight { name: String, weight: f32 },
    #[error("the scale is {0}, not a finite number")]
    Scale(f32),
    #[error("{method} needs a density above 0 and at most 1; {found}")]
    Density { method: &'static str, found: String },
    #[error("the rank must be at least 1")]
    Rank,
    #[error(
        "{method} gives the rank of its adapters and takes no other; leave the rank out, or use peft-svd"
    )]
    RankOfMethod { method: &'static str },
    #[error(
        "{adapters} adapters have more singular vectors at {site} than the {dimensions} that can be orthonormal; merge fewer, or use sum"
    )]
    TooMany {
        site: Site,
        adapters: usize,
        dimensions: usize,
    },
    #[error(
        "{method} needs equal ranks, but {site} has rank {first_rank} in {first} and {second_rank} in {second}; use average or peft-svd"
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
        return Ok(single(only, options.scale));
    }
    let mut notes = Vec::new();
    if options.method.method() == MergeMethod::Ties {
        notes.push(TIES_HAS_CHANGED.into());
    }
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
        .flat_map(|input| input.adapter.pairs.keys().copied())
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
                input.adapter.pairs.get(&site).map(|pair| Part {
                    name: input.name,
                    pair,
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
        let mut pair = merge_site(site, &parts, options, largest_rank, &mut random)?;
        pair.scale *= options.scale;
        let finite = |tensor: &Tensor| tensor.first_non_finite().is_none();
        if !finite(&pair.a) || !finite(&pair.b) || !pair.scale.is_finite() {
            return Err(MergeError::NotFinite { site });
        }
        merged.pairs.insert(site, pair);
    }
    Ok(Merged {
        adapter: merged,
        notes,
    })
}

fn merge_site(
    site: Site,
    parts: &[Part<'_>],
    options: &MergeOptions,
    largest_rank: usize,
    random: &mut ChaCha8Rng,
) -> Result<LowRankPair, MergeError> {
    let (method, is_after_pico) = options.method.steps();
    let calibrated = match is_after_pico {
        true => Some(Calibrated::of(site, parts)?),
        false => None,
    };
    let after_pico = calibrated.as_ref().map(Calibrated::parts);
    let parts = after_pico.as_deref().unwrap_or(parts);
    let weights: Vec<f32> = parts.iter().map(|part| part.weight).collect();
    let ties = Ties {
        density: options.density_or_default(),
        majority_sign: options.majority_sign,
        weights: &weights,
    };
    let mut rank = options.rank;
    let mut change = match method {
        MergeMethod::PeftLinear | MergeMethod::PeftTies | MergeMethod::PeftDareLinear => {
            return values::merge(site, parts, options, random);
        }
        MergeMethod::Average => return Ok(stacked(parts)),
        MergeMethod::Sum if rank.is_none() && !is_after_pico => return Ok(stacked(parts)),
        // Before the sum: `steps` has taken it apart.
        MergeMethod::Sum | MergeMethod::Pico => subspace::sum(site, parts)?,
        MergeMethod::PeftSvd => {
            rank = rank.or(Some(largest_rank));
            subspace::sum(site, parts)?
        }
        MergeMethod::Ties => subspace::ties_of_changes(site, parts, &ties)?,
        MergeMethod::Knots => subspace::knots(site, parts, &ties)?,
        MergeMethod::Tsv => singular_vectors::tsv(site, parts, Spectrum::Kept)?,
        MergeMethod::CoreSpace => subspace::core_space(site, parts, &ties)?,
        MergeMethod::CompressThenMerge => {
            subspace::compress_then_merge(site, parts, &ties, rank.unwrap_or(largest_rank))?
        }
        MergeMethod::IsoC => singular_vectors::iso_c(site, parts)?,
        MergeMethod::IsoCts => singular_vectors::iso_cts(site, parts)?,
        MergeMethod::TsvIso => singular_vectors::tsv(site, parts, Spectrum::Flat)?,
        MergeMethod::Wudi => subspace::wudi(site, parts)?,
    };
    if let Some(calibrated) = &calibrated {
        calibrated.rescale(&mut change);
    }
    Ok(change.pair(rank))
}

/// One adapter's low-rank pair at the site that is being merged.
#[derive(Clone, Copy)]
struct Part<'a> {
    name: &'a str,
    pair: &'a LowRankPair,
    weight: f32,
}

/// Without the adapters that change nothing at this site; one, where none does.
fn effective<'a>(parts: &[Part<'a>]) -> Vec<Part<'a>> {
    let changes = |part: &&Part<'_>| {
        let any = |tensor: &Tensor| tensor.data().iter().any(|value| *value != 0.0);
        part.weight != 0.0 && part.pair.scale != 0.0 && any(&part.pair.a) && any(&part.pair.b)
    };
    let some: Vec<Part<'_>> = parts.iter().filter(changes).copied().collect();
    if some.is_empty() {
        return parts[..1].to_vec();
    }
    some
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
    if !options.scale.is_finite() {
        return Err(MergeError::Scale(options.scale));
    }
    let problem = match options.density {
        Some(density) if density > 0.0 && density <= 1.0 => None,
        Some(density) => Some(format!("it is {density}")),
        None => options
            .method
            .method()
            .needs_density()
            .then(|| "it is not given".into()),
    };
    if let Some(found) = problem {
        return Err(MergeError::Density {
            method: options.method.name(),
            found,
        });
    }
    match options.rank {
        Some(0) => Err(MergeError::Rank),
        Some(_) if !options.method.method().facts().takes_rank => Err(MergeError::RankOfMethod {
            method: options.method.name(),
        }),
        _ => Ok(()),
    }
}

/// With one adapter, every method only scales its change, as in PEFT. The LoRA matrices stay as they are, bit for bit.
fn single(only: &MergeInput<'_>, scale: f32) -> Merged {
    let weight = only.weight * scale;
    let mut adapter = only.adapter.clone();
    for pair in adapter.pairs.values_mut() {
        pair.scale *= weight;
    }
    let mut notes = vec![format!(
        "there is one adapter, {}: its change times {}",
        only.name, weight
    )];
    if weight != 1.0 && adapter.head.take().is_some() {
        notes.push(format!(
            "the head of {} was left out: it was tuned for the change times 1",
            only.name
        ));
    }
    Merged { adapter, notes }
}

fn check_widths(site: Site, parts: &[Part<'_>]) -> Result<(), MergeError> {
    let widths = |part: &Part<'_>| (part.pair.outputs(), part.pair.inputs());
    match parts.iter().find(|part| widths(part) != widths(&parts[0])) {
        Some(other) => Err(MergeError::UnlikeShapes {
            site,
            first: parts[0].name.to_owned(),
            second: other.name.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The adapters' matrices weight·scale·A, one below the other, and their B, side by side: the product is the weighted sum of the changes.
fn stacked(parts: &[Part<'_>]) -> LowRankPair {
    let (outputs, inputs) = (parts[0].pair.outputs(), parts[0].pair.inputs());
    let rank: usize = parts.iter().map(|part| part.pair.rank()).sum();
    let mut a = Vec::with_capacity(rank * inputs);
    for part in parts {
        let scale = part.weight * part.pair.scale;
        a.extend(part.pair.a.data().iter().map(|value| value * scale));
    }
    let mut b = Vec::with_capacity(outputs * rank);
    for row in 0..outputs {
        for part in parts {
            b.extend_from_slice(part.pair.b.row(row));
        }
    }
    unscaled_pair([rank, inputs], a, [outputs, rank], b)
}

/// A pair of scale 1 whose lengths are right by construction.
fn unscaled_pair(
    a_shape: [usize; 2],
    a: Vec<f32>,
    b_shape: [usize; 2],
    b: Vec<f32>,
) -> LowRankPair {
    debug_assert_eq!(a.len(), a_shape[0] * a_shape[1]);
    debug_assert_eq!(b.len(), b_shape[0] * b_shape[1]);
    LowRankPair {
        a: Tensor::new(a_shape, a).unwrap_or_default(),
        b: Tensor::new(b_shape, b).unwrap_or_default(),
        scale: 1.0,
    }
}
