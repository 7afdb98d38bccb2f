//! Each merge against the same computed on whole changes, and against what defines it.

use super::*;
use crate::adapter::Target;
use matrix::{Mat, MatRef};
use proptest::prelude::*;
use rand::RngExt;

const SITE: Site = Site {
    layer: 0,
    target: Target::Query,
};
const OUTPUTS: usize = 12;
const INPUTS: usize = 10;
const NEW: [MergeMethod; 6] = [
    MergeMethod::Sum,
    MergeMethod::Ties,
    MergeMethod::Knots,
    MergeMethod::Tsv,
    MergeMethod::CoreSpace,
    MergeMethod::CompressThenMerge,
];
/// Sums of tens of products below 1, kept as `f32`.
const TOLERANCE: f64 = 2e-5;

fn random_tensor(shape: [usize; 2], random: &mut ChaCha8Rng) -> Tensor {
    let mut tensor = Tensor::zeros(shape);
    let values = tensor.data_mut().iter_mut();
    values.for_each(|value| *value = random.random_range(-1.0..1.0));
    tensor
}

fn adapter_of(a: Tensor, b: Tensor, scale: f32) -> Adapter {
    Adapter {
        pairs: [(SITE, LowRankPair { a, b, scale })].into(),
        head: None,
    }
}

fn adapters(ranks: &[usize], seed: u64) -> Vec<Adapter> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let adapters = ranks.iter().map(|&rank| {
        let a = random_tensor([rank, INPUTS], &mut random);
        let b = random_tensor([OUTPUTS, rank], &mut random);
        adapter_of(a, b, 0.5)
    });
    adapters.collect()
}

fn merged(adapters: &[Adapter], weights: &[f32], options: &MergeOptions) -> Adapter {
    let inputs = adapters.iter().zip(weights);
    let inputs: Vec<MergeInput<'_>> = inputs
        .map(|(adapter, &weight)| MergeInput {
            name: "x",
            adapter,
            weight,
        })
        .collect();
    merge(&inputs, options).unwrap().adapter
}

fn change(adapter: &Adapter) -> Mat<f64> {
    let delta = adapter.delta(SITE).unwrap();
    spaces::from_rows(delta.data(), delta.shape()[1])
}

fn assert_equal(found: MatRef<'_, f64>, expected: MatRef<'_, f64>, what: &str) {
    let difference = (found - expected).norm_max();
    assert!(difference < TOLERANCE, "{what}: {difference}");
}

fn set(method: MergeMethod, rank: Option<usize>, density: Option<f64>) -> MergeOptions {
    MergeOptions {
        rank,
        density,
        ..MergeOptions::new(method)
    }
}

/// TIES by its definition on whole matrices: trim, elect by the sum, mean of what agrees. `None` where a value so close to being
/// trimmed, or a value or sum so close to 0, is among them that rounding decides.
fn plain_ties(changes: &[Mat<f64>], weights: &[f32], density: f64) -> Option<Mat<f64>> {
    let (rows, columns) = (changes[0].nrows(), changes[0].ncols());
    let mut least_margin = f64::INFINITY;
    let trimmed: Vec<Mat<f64>> = changes
        .iter()
        .map(|change| {
            let mut magnitudes: Vec<f64> = (0..rows * columns)
                .map(|i| change[(i / columns, i % columns)].abs())
                .collect();
            magnitudes.sort_by(|a, b| b.total_cmp(a));
            let kept = ((density * (rows * columns) as f64) as usize).max(1);
            let least = magnitudes[kept - 1];
            if let Some(dropped) = magnitudes.get(kept) {
                least_margin = least_margin.min(least - dropped);
            }
            Mat::from_fn(rows, columns, |i, j| {
                let value = change[(i, j)];
                if value.abs() >= least { value } else { 0.0 }
            })
        })
        .collect();
    let merged = Mat::from_fn(rows, columns, |i, j| {
        let total: f64 = trimmed.iter().map(|own| own[(i, j)]).sum();
        let values = trimmed.iter().map(|own| own[(i, j)].abs());
        for value in values.filter(|value| *value > 0.0) {
            least_margin = least_margin.min(value).min(total.abs());
        }
        let agreeing = trimmed.iter().zip(weights);
        let agreeing = agreeing.filter(|(own, _)| own[(i, j)] * total > 0.0);
        let values: Vec<f64> = agreeing
            .map(|(own, weight)| own[(i, j)] * f64::from(*weight))
            .collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    });
    (least_margin > TOLERANCE).then_some(merged)
}

fn beside(matrices: &[Mat<f64>]) -> Mat<f64> {
    let columns: usize = matrices.iter().map(|own| own.ncols()).sum();
    let mut all = Mat::zeros(matrices[0].nrows(), columns);
    let mut start = 0;
    for own in matrices {
        all.subcols_mut(start, own.ncols()).copy_from(own);
        start += own.ncols();
    }
    all
}

/// The first `rank` left singular vectors.
fn left_vectors(matrix: &Mat<f64>, rank: usize) -> Mat<f64> {
    matrix.thin_svd().unwrap().U().subcols(0, rank).to_owned()
}

fn nearest_of_rank(matrix: &Mat<f64>, rank: usize) -> Mat<f64> {
    let u = left_vectors(matrix, rank);
    &u * (u.transpose() * matrix)
}

fn stored(adapter: &Adapter) -> (Mat<f64>, Mat<f64>) {
    let pair = &adapter.pairs[&SITE];
    let b = spaces::from_rows(pair.b.data(), pair.rank());
    let a = spaces::from_rows(pair.a.data(), pair.inputs());
    (b, a.transpose().to_owned())
}

/// Not rounded: singular vectors of near values turn far for a little of it, and TIES depends on them.
fn exact_change(adapter: &Adapter) -> Mat<f64> {
    let (b, a) = stored(adapter);
    let scale = f64::from(adapter.pairs[&SITE].scale);
    matrix::scaled(scale, (b * a.transpose()).as_ref())
}

/// `None` as in [`plain_ties`].
fn dense(
    method: MergeMethod,
    adapters: &[Adapter],
    weights: &[f32],
    density: f64,
) -> Option<Mat<f64>> {
    let changes: Vec<Mat<f64>> = adapters.iter().map(exact_change).collect();
    let ranks = adapters.iter().map(|own| own.pairs[&SITE].rank());
    let ranks: Vec<usize> = ranks.collect();
    let total: usize = ranks.iter().sum();
    Some(match method {
        MergeMethod::Ties => plain_ties(&changes, weights, density)?,
        MergeMethod::Knots => {
            let u = left_vectors(&beside(&changes), total.min(OUTPUTS));
            let right: Vec<Mat<f64>> = changes.iter().map(|own| u.transpose() * own).collect();
            &u * plain_ties(&right, weights, density)?
        }
        MergeMethod::Tsv => {
            let svds = changes.iter().zip(&ranks).map(|(own, &rank)| {
                let svd = own.thin_svd().unwrap();
                let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
                let [u, v] = [svd.U(), svd.V()].map(|own| own.subcols(0, rank).to_owned());
                (u, values[..rank].to_vec(), v)
            });
            let svds: Vec<_> = svds.collect();
            let polar = |parts: Vec<Mat<f64>>| {
                let all = beside(&parts);
                let svd = all.thin_svd().unwrap();
                svd.U() * svd.V().transpose()
            };
            let mut u = polar(svds.iter().map(|own| own.0.clone()).collect());
            let v = polar(svds.iter().map(|own| own.2.clone()).collect());
            let values = svds.iter().zip(weights);
            let values = values.flat_map(|(own, &w)| own.1.iter().map(move |s| s * f64::from(w)));
            for (j, value) in values.enumerate() {
                for i in 0..OUTPUTS {
                    u[(i, j)] *= value;
                }
            }
            u * v.transpose()
        }
        MergeMethod::CoreSpace => {
            let (b, a): (Vec<_>, Vec<_>) = adapters.iter().map(stored).unzip();
            let left = left_vectors(&beside(&b), total.min(OUTPUTS));
            let right = left_vectors(&beside(&a), total.min(INPUTS));
            let cores: Vec<Mat<f64>> = changes
                .iter()
                .map(|own| left.transpose() * own * &right)
                .collect();
            &left * plain_ties(&cores, weights, density)? * right.transpose()
        }
        MergeMethod::CompressThenMerge => {
            let rank = ranks.iter().copied().max().unwrap();
            let left = left_vectors(&beside(&changes), rank);
            let turned: Vec<Mat<f64>> = changes
                .iter()
                .map(|own| own.transpose().to_owned())
                .collect();
            let right = left_vectors(&beside(&turned), rank);
            let cores: Vec<Mat<f64>> = changes
                .iter()
                .map(|own| left.transpose() * own * &right)
                .collect();
            &left * plain_ties(&cores, weights, density)? * right.transpose()
        }
        _ => {
            let mut sum = Mat::zeros(OUTPUTS, INPUTS);
            for (own, &weight) in changes.iter().zip(weights) {
                sum += matrix::scaled(f64::from(weight), own.as_ref());
            }
            sum
        }
    })
}

#[test]
fn what_is_compared_is_seldom_left_to_rounding() {
    let mut decided = 0;
    for seed in 0..20 {
        let adapters = adapters(&[2, 3, 1], seed);
        let each = NEW.map(|method| dense(method, &adapters, &[1.0, 0.5, 1.25], 1.0));
        decided += each.iter().flatten().count();
    }
    assert!(decided > 20 * NEW.len() * 9 / 10, "{decided}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_merge_is_what_the_whole_changes_give(seed in any::<u64>(), ranks in prop::collection::vec(1usize..4, 2..4)) {
        let adapters = adapters(&ranks, seed);
        let weights = &[1.0, 0.5, 1.25][..ranks.len()];
        for method in NEW {
            let takes_density = method.default_density().is_some();
            for density in [0.5, 1.0] {
                let options = set(method, None, takes_density.then_some(density));
                let found = change(&merged(&adapters, weights, &options));
                let Some(expected) = dense(method, &adapters, weights, density) else { continue };
                let difference = (&found - &expected).norm_max();
                prop_assert!(difference < TOLERANCE, "{} {density}: {difference}", method.name());
            }
        }
    }

    #[test]
    fn a_rank_gives_the_nearest_change_of_that_rank(seed in any::<u64>()) {
        let adapters = adapters(&[3, 2, 3], seed);
        let weights = [1.0, -0.5, 0.75];
        for method in [MergeMethod::Sum, MergeMethod::Ties, MergeMethod::Knots, MergeMethod::CoreSpace, MergeMethod::Tsv] {
            let whole = change(&merged(&adapters, &weights, &set(method, None, None)));
            let small = merged(&adapters, &weights, &set(method, Some(2), None));
            prop_assert_eq!(small.largest_rank(), 2);
            let values = whole.thin_svd().unwrap();
            let values = values.S().column_vector();
            // Rounding turns the kept vectors towards the dropped ones the more, the closer their values are (Wedin).
            let allowed = TOLERANCE * (1.0 + values[1] / (values[1] - values[2]));
            let difference = (change(&small) - nearest_of_rank(&whole, 2)).norm_max();
            prop_assert!(difference < allowed, "{}: {difference} of {allowed}", method.name());
        }
    }

    #[test]
    fn one_adapter_comes_back_also_without_the_short_cut(seed in any::<u64>(), rank in 1usize..5) {
        let adapter = &adapters(&[rank], seed)[0];
        let parts = [Part { name: "x", pair: &adapter.pairs[&SITE], weight: 1.0 }];
        for method in NEW {
            let density = method.default_density().map(|_| 1.0);
            let mut random = ChaCha8Rng::seed_from_u64(0);
            let found = merge_site(SITE, &parts, &set(method, None, density), rank, &mut random).unwrap();
            let found = adapter_of(found.a, found.b, found.scale);
            assert_equal(change(&found).as_ref(), change(adapter).as_ref(), method.name());
            prop_assert!(found.largest_rank() <= rank, "{}", method.name());
        }
    }
}

#[test]
fn what_all_adapters_say_comes_back_from_every_merge_by_ties() {
    let first = adapters(&[3], 5).remove(0);
    let louder = |by: f32| {
        let mut adapter = first.clone();
        let pairs = adapter.pairs.values_mut();
        pairs.for_each(|own| own.scale *= by);
        adapter
    };
    let adapters = [louder(1.0), louder(2.0), louder(0.6)];
    let expected = change(&louder(1.2));
    for method in [
        MergeMethod::Ties,
        MergeMethod::Knots,
        MergeMethod::CoreSpace,
        MergeMethod::CompressThenMerge,
    ] {
        let found = merged(&adapters, &[1.0; 3], &set(method, None, Some(1.0)));
        assert_equal(change(&found).as_ref(), expected.as_ref(), method.name());
        assert_eq!(found.largest_rank(), 3, "{}", method.name());
    }
}

#[test]
fn tsv_keeps_every_singular_value_though_the_vectors_overlap() {
    let mut adapters = adapters(&[2, 3, 2], 7);
    // Two adapters that write into the same directions.
    let shared = adapters[0].pairs[&SITE].b.clone();
    adapters[2].pairs.get_mut(&SITE).unwrap().b = shared;
    let values = |matrix: &Mat<f64>, rank: usize| -> Vec<f64> {
        let svd = matrix.thin_svd().unwrap();
        svd.S().column_vector().iter().take(rank).copied().collect()
    };
    let mut expected: Vec<f64> = adapters
        .iter()
        .flat_map(|own| values(&change(own), own.largest_rank()))
        .collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    let found = merged(&adapters, &[1.0; 3], &set(MergeMethod::Tsv, None, None));
    for (found, expected) in values(&change(&found), 7).iter().zip(expected) {
        assert!((found - expected).abs() < TOLERANCE, "{found} {expected}");
    }
}

#[test]
fn tsv_takes_fewer_vectors_of_each_where_all_are_too_many_and_says_when_even_one_is() {
    let tsv = set(MergeMethod::Tsv, None, None);
    let found = merged(&adapters(&[4; 4], 1), &[1.0; 4], &tsv);
    assert_eq!(
        found.largest_rank(),
        8,
        "10 dimensions for 4 adapters: 2 each"
    );
    let many = adapters(&[1; 11], 1);
    let inputs: Vec<MergeInput<'_>> = many
        .iter()
        .map(|adapter| MergeInput {
            name: "x",
            adapter,
            weight: 1.0,
        })
        .collect();
    let error = merge(&inputs, &tsv).unwrap_err();
    assert_eq!(
        error.to_string(),
        "11 adapters have more singular vectors at query of layer 0 than the 10 that can be orthonormal; merge fewer, or use sum"
    );
}

#[test]
fn knots_sums_changes_that_write_into_directions_of_their_own() {
    let mut adapters = adapters(&[2, 2], 3);
    for (index, adapter) in adapters.iter_mut().enumerate() {
        let pair = adapter.pairs.get_mut(&SITE).unwrap();
        let rows = pair.b.data_mut().chunks_exact_mut(2).enumerate();
        for (row, values) in rows {
            if row % 2 != index {
                values.fill(0.0);
            }
        }
    }
    let options = set(MergeMethod::Knots, None, Some(1.0));
    let found = change(&merged(&adapters, &[1.0; 2], &options));
    let expected = change(&adapters[0]) + change(&adapters[1]);
    assert_equal(found.as_ref(), expected.as_ref(), "knots");
}

#[test]
fn core_space_loses_nothing() {
    let adapters = adapters(&[3, 1, 2], 11);
    let parts: Vec<Part<'_>> = adapters
        .iter()
        .map(|adapter| Part {
            name: "x",
            pair: &adapter.pairs[&SITE],
            weight: 1.0,
        })
        .collect();
    let spaces = spaces::Spaces::of(&parts);
    for (core, adapter) in spaces.cores().iter().zip(&adapters) {
        let back = &spaces.left * core * spaces.right.transpose();
        assert_equal(back.as_ref(), change(adapter).as_ref(), "core");
    }
}

#[test]
fn compress_then_merge_stays_within_the_shared_spaces() {
    let adapters = adapters(&[3, 3, 3], 13);
    let options = set(MergeMethod::CompressThenMerge, Some(2), None);
    let found = merged(&adapters, &[1.0; 3], &options);
    assert!(found.largest_rank() <= 2);
    let changes: Vec<Mat<f64>> = adapters.iter().map(change).collect();
    let shared = left_vectors(&beside(&changes), 2);
    let own = change(&found);
    let projected = &shared * (shared.transpose() * &own);
    assert_equal(projected.as_ref(), own.as_ref(), "shared space");
}

#[test]
fn the_scale_multiplies_every_merge() {
    let adapters = adapters(&[2, 2], 17);
    for method in NEW {
        let mut options = set(method, None, None);
        let whole = change(&merged(&adapters, &[1.0; 2], &options));
        options.scale = 0.25;
        let quarter = change(&merged(&adapters, &[1.0; 2], &options));
        assert_equal(
            quarter.as_ref(),
            matrix::scaled(0.25, whole.as_ref()).as_ref(),
            method.name(),
        );
    }
}
