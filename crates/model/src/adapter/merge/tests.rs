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
const NEW: [MergeMethod; 11] = [
    MergeMethod::Sum,
    MergeMethod::Ties,
    MergeMethod::Knots,
    MergeMethod::Tsv,
    MergeMethod::CoreSpace,
    MergeMethod::CompressThenMerge,
    MergeMethod::IsoC,
    MergeMethod::IsoCts,
    MergeMethod::TsvIso,
    MergeMethod::Wudi,
    MergeMethod::Pico,
];
/// All of these, as they are and with Pico before them.
fn with_and_without_pico() -> Vec<Merging> {
    let plain = NEW.map(Merging::plain).into_iter();
    plain.chain(Merging::all_after_pico()).collect()
}

/// Those that make all singular values of their result equal.
const FLAT: [MergeMethod; 3] = [MergeMethod::IsoC, MergeMethod::IsoCts, MergeMethod::TsvIso];
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

fn inputs<'a>(adapters: &'a [Adapter], weights: &[f32]) -> Vec<MergeInput<'a>> {
    let inputs = adapters.iter().zip(weights);
    let inputs = inputs.map(|(adapter, &weight)| MergeInput {
        name: "x",
        adapter,
        weight,
    });
    inputs.collect()
}

fn merged(adapters: &[Adapter], weights: &[f32], options: &MergeOptions) -> Adapter {
    let inputs = inputs(adapters, weights);
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

/// What rounding may do to `expected`: WUDI's grows without bound as the inputs that adapters react to get alike.
fn allowed(method: impl Into<Merging>, expected: &Mat<f64>) -> f64 {
    match method.into().method() {
        MergeMethod::Wudi => TOLERANCE * expected.norm_max().max(1.0),
        _ => TOLERANCE,
    }
}

fn set(method: impl Into<Merging>, rank: Option<usize>, density: Option<f64>) -> MergeOptions {
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

/// The first `rank` singular vectors and values.
fn triplets(matrix: &Mat<f64>, rank: usize) -> (Mat<f64>, Vec<f64>, Mat<f64>) {
    let svd = matrix.thin_svd().unwrap();
    let [u, v] = [svd.U(), svd.V()].map(|own| own.subcols(0, rank).to_owned());
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    (u, values[..rank].to_vec(), v)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The matrix with orthonormal columns that is nearest to the parts side by side.
fn polar(parts: &[Mat<f64>]) -> Mat<f64> {
    let all = beside(parts);
    let svd = all.thin_svd().unwrap();
    svd.U() * svd.V().transpose()
}

fn weighted(changes: &[Mat<f64>], weights: &[f32]) -> Vec<Mat<f64>> {
    let each = changes.iter().zip(weights);
    each.map(|(own, &weight)| matrix::scaled(f64::from(weight), own.as_ref()))
        .collect()
}

fn plain_sum(changes: &[Mat<f64>]) -> Mat<f64> {
    let mut sum = Mat::zeros(OUTPUTS, INPUTS);
    for own in changes {
        sum += own;
    }
    sum
}

/// Iso-CTS as its paper states it, with the sum's `rank` in place of the full one.
fn plain_iso_cts(changes: &[Mat<f64>], rank: usize) -> Mat<f64> {
    let tasks = changes.len() as f64;
    let for_tasks = rank - (0.8 * rank as f64) as usize;
    let each = (for_tasks as f64 / tasks).round_ties_even() as usize;
    let common = rank - each * changes.len();
    let (u, mut values, v) = triplets(&plain_sum(changes), common);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for own in changes {
        let rest = own - &u * (u.transpose() * own);
        let own = triplets(&rest, each);
        left.push(own.0);
        values.extend(own.1);
        right.push(own.2);
    }
    left.push(u);
    right.push(v);
    matrix::scaled(
        mean(&values),
        (polar(&left) * polar(&right).transpose()).as_ref(),
    )
}

/// WUDI's closed form. The changes are not zero.
fn plain_wudi(changes: &[Mat<f64>]) -> Mat<f64> {
    let mut outer = Mat::zeros(OUTPUTS, INPUTS);
    let mut inner = Mat::zeros(INPUTS, INPUTS);
    for own in changes {
        let importance = 1.0 / own.squared_norm_l2();
        let square = matrix::scaled(importance, (own.transpose() * own).as_ref());
        outer += own * &square;
        inner += square;
    }
    let (u, values, v) = triplets(&inner, INPUTS);
    let inverse = Mat::from_fn(INPUTS, INPUTS, |row, j| {
        let counts = values[j] > values[0] * 1e-12;
        if counts { v[(row, j)] / values[j] } else { 0.0 }
    });
    outer * inverse * u.transpose()
}

/// What WUDI minimises.
fn wudi_loss(merged: &Mat<f64>, changes: &[Mat<f64>]) -> f64 {
    let terms = changes.iter().map(|own| {
        let interference = (merged - own) * own.transpose();
        interference.squared_norm_l2() / own.squared_norm_l2()
    });
    terms.sum()
}

/// `adapters` after Pico.
fn plain_pico(adapters: &[Adapter], weights: &[f32]) -> Vec<Adapter> {
    let b = adapters.iter().zip(weights).map(|(own, weight)| {
        let scale = f64::from(own.pairs[&SITE].scale * weight);
        matrix::scaled(scale, stored(own).0.as_ref())
    });
    let all = beside(&b.collect::<Vec<_>>());
    let (u, values, _) = triplets(&all, all.ncols().min(OUTPUTS));
    let squares: f64 = values.iter().map(|value| value * value).sum();
    let mut calibration = Mat::identity(OUTPUTS, OUTPUTS);
    for (j, value) in values.iter().enumerate() {
        let share = value * value / squares;
        let kept = 1.0 / (1.0 + (adapters.len() as f64 - 1.0) * share);
        let direction = u.subcols(j, 1);
        calibration += matrix::scaled(kept - 1.0, (direction * direction.transpose()).as_ref());
    }
    let calibrated = adapters.iter().map(|own| {
        let b = &calibration * stored(own).0;
        let pair = &own.pairs[&SITE];
        let shape = [OUTPUTS, pair.rank()];
        let places = (0..OUTPUTS).flat_map(|row| (0..pair.rank()).map(move |j| (row, j)));
        let b = places.map(|place| b[place] as f32).collect();
        adapter_of(pair.a.clone(), Tensor::new(shape, b).unwrap(), pair.scale)
    });
    calibrated.collect()
}

fn mean_norm(changes: &[Mat<f64>]) -> f64 {
    mean(&changes.iter().map(|own| own.norm_l2()).collect::<Vec<_>>())
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
    method: impl Into<Merging>,
    adapters: &[Adapter],
    weights: &[f32],
    density: f64,
) -> Option<Mat<f64>> {
    let (method, is_after_pico) = method.into().steps();
    if !is_after_pico {
        return dense_without_pico(method, adapters, weights, density);
    }
    let changes: Vec<Mat<f64>> = adapters.iter().map(exact_change).collect();
    let calibrated = plain_pico(adapters, weights);
    let merged = dense_without_pico(method, &calibrated, weights, density)?;
    let scale = mean_norm(&weighted(&changes, weights)) / merged.norm_l2();
    Some(matrix::scaled(scale, merged.as_ref()))
}

fn dense_without_pico(
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
        MergeMethod::Tsv | MergeMethod::TsvIso => {
            let svds = changes.iter().zip(&ranks);
            let svds: Vec<_> = svds.map(|(own, &rank)| triplets(own, rank)).collect();
            let mut u = polar(&svds.iter().map(|own| own.0.clone()).collect::<Vec<_>>());
            let v = polar(&svds.iter().map(|own| own.2.clone()).collect::<Vec<_>>());
            let values = svds.iter().zip(weights);
            let values = values.flat_map(|(own, &w)| own.1.iter().map(move |s| s * f64::from(w)));
            let mut values: Vec<f64> = values.collect();
            if method == MergeMethod::TsvIso {
                let magnitudes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
                let mean = mean(&magnitudes);
                values
                    .iter_mut()
                    .for_each(|value| *value = mean.copysign(*value));
            }
            for (j, value) in values.into_iter().enumerate() {
                for i in 0..OUTPUTS {
                    u[(i, j)] *= value;
                }
            }
            u * v.transpose()
        }
        MergeMethod::IsoC => {
            let sum = plain_sum(&weighted(&changes, weights));
            let (u, values, v) = triplets(&sum, total.min(INPUTS));
            matrix::scaled(mean(&values), (u * v.transpose()).as_ref())
        }
        MergeMethod::IsoCts => plain_iso_cts(&weighted(&changes, weights), total.min(INPUTS)),
        MergeMethod::Wudi => plain_wudi(&weighted(&changes, weights)),
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
        _ => plain_sum(&weighted(&changes, weights)),
    })
}

#[test]
fn what_is_compared_is_seldom_left_to_rounding() {
    let mut decided = 0;
    for seed in 0..20 {
        let adapters = adapters(&[2, 3, 1], seed);
        let each = with_and_without_pico().into_iter();
        let each = each.filter_map(|method| dense(method, &adapters, &[1.0, 0.5, 1.25], 1.0));
        decided += each.count();
    }
    let all = 20 * with_and_without_pico().len();
    assert!(decided > all * 9 / 10, "{decided} of {all}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_merge_is_what_the_whole_changes_give(seed in any::<u64>(), ranks in prop::collection::vec(1usize..4, 2..4)) {
        let adapters = adapters(&ranks, seed);
        let weights = &[1.0, 0.5, 1.25][..ranks.len()];
        for method in with_and_without_pico() {
            let takes_density = method.method().default_density().is_some();
            for density in [0.5, 1.0] {
                let options = set(method, None, takes_density.then_some(density));
                let found = change(&merged(&adapters, weights, &options));
                let Some(expected) = dense(method, &adapters, weights, density) else { continue };
                let difference = (&found - &expected).norm_max();
                let allowed = allowed(method, &expected);
                prop_assert!(difference < allowed, "{} {density}: {difference} of {allowed}", method.name());
            }
        }
    }

    #[test]
    fn a_rank_gives_the_nearest_change_of_that_rank(seed in any::<u64>()) {
        let adapters = adapters(&[3, 2, 3], seed);
        let weights = [1.0, -0.5, 0.75];
        let plain = [
            MergeMethod::Sum, MergeMethod::Ties, MergeMethod::Knots, MergeMethod::CoreSpace, MergeMethod::Tsv, MergeMethod::Wudi, MergeMethod::Pico,
        ];
        let after_pico = plain.iter().filter_map(|&method| Merging::after_pico(method).ok());
        for method in plain.map(Merging::plain).into_iter().chain(after_pico) {
            let whole = change(&merged(&adapters, &weights, &set(method, None, None)));
            let small = merged(&adapters, &weights, &set(method, Some(2), None));
            prop_assert_eq!(small.largest_rank(), 2);
            let values = whole.thin_svd().unwrap();
            let values = values.S().column_vector();
            // Rounding turns the kept vectors towards the dropped ones the more, the closer their values are (Wedin).
            let allowed = allowed(method, &whole) * (1.0 + values[1] / (values[1] - values[2]));
            let difference = (change(&small) - nearest_of_rank(&whole, 2)).norm_max();
            prop_assert!(difference < allowed, "{}: {difference} of {allowed}", method.name());
        }
    }

    #[test]
    fn one_adapter_comes_back_also_without_the_short_cut(seed in any::<u64>(), rank in 1usize..5) {
        let adapter = &adapters(&[rank], seed)[0];
        let parts = [Part { name: "x", pair: &adapter.pairs[&SITE], weight: 1.0 }];
        let (u, values, v) = triplets(&exact_change(adapter), rank);
        let flat = matrix::scaled(mean(&values), (u * v.transpose()).as_ref());
        for method in with_and_without_pico() {
            let density = method.method().default_density().map(|_| 1.0);
            let mut random = ChaCha8Rng::seed_from_u64(0);
            let found = merge_site(SITE, &parts, &set(method, None, density), rank, &mut random).unwrap();
            let found = adapter_of(found.a, found.b, found.scale);
            // With equal singular values, where the method makes them equal, and after Pico with the norm that it had.
            let expected = match (FLAT.contains(&method.method()), method.steps().1) {
                (true, false) => flat.clone(),
                (true, true) => matrix::scaled(change(adapter).norm_l2() / flat.norm_l2(), flat.as_ref()),
                (false, _) => change(adapter),
            };
            assert_equal(change(&found).as_ref(), expected.as_ref(), method.name());
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
    let inputs = inputs(&many, &vec![1.0; many.len()]);
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
    for method in with_and_without_pico() {
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

/// The singular values of `adapter`'s change that are not rounding.
fn values_of(adapter: &Adapter) -> Vec<f64> {
    let values = triplets(&change(adapter), INPUTS).1;
    let least = values[0] * 1e-5;
    values.into_iter().filter(|value| *value > least).collect()
}

#[test]
fn a_flat_spectrum_is_flat_and_a_rank_gives_a_nearest_change_of_that_rank() {
    for seed in 0..20 {
        let adapters = adapters(&[3, 2, 3], seed);
        let weights = [1.0, -0.5, 0.75];
        for method in FLAT {
            let whole = merged(&adapters, &weights, &set(method, None, None));
            let values = values_of(&whole);
            assert_eq!(values.len(), 8, "{}", method.name());
            let mean = mean(&values);
            assert!(values.iter().all(|value| (value - mean).abs() < TOLERANCE));
            let small = merged(&adapters, &weights, &set(method, Some(3), None));
            assert_eq!(small.largest_rank(), 3, "{}", method.name());
            let distance = (change(&whole) - change(&small)).norm_l2();
            let least = mean * 5f64.sqrt();
            assert!((distance - least).abs() < TOLERANCE, "{distance} {least}");
        }
        let sum = merged(&adapters, &weights, &set(MergeMethod::Sum, Some(3), None));
        let flat = merged(&adapters, &weights, &set(MergeMethod::IsoC, Some(3), None));
        let (u, _, v) = triplets(&change(&sum), 3);
        let own = change(&flat);
        let projected = &u * (u.transpose() * &own * &v) * v.transpose();
        let difference = (projected - own).norm_max();
        assert!(difference < 1e-3, "the strongest of the sum: {difference}");
    }
}

#[test]
fn adapters_with_more_ranks_than_the_matrix_has_dimensions_are_merged_as_whole_changes() {
    let weights = [1.0, 0.5, 1.25];
    for seed in 0..20 {
        let adapters = adapters(&[4, 5, 4], seed);
        let plain = [
            MergeMethod::IsoC,
            MergeMethod::IsoCts,
            MergeMethod::Wudi,
            MergeMethod::Pico,
        ];
        let after_pico = plain
            .iter()
            .filter_map(|&method| Merging::after_pico(method).ok());
        for method in plain.map(Merging::plain).into_iter().chain(after_pico) {
            let found = change(&merged(&adapters, &weights, &set(method, None, None)));
            let expected = dense(method, &adapters, &weights, 1.0).unwrap();
            let difference = (&found - &expected).norm_max();
            let name = method.name();
            assert!(
                difference < allowed(method, &expected),
                "{name}: {difference}"
            );
        }
    }
}

#[test]
fn iso_cts_gives_four_fifths_of_the_dimensions_to_all_and_the_others_to_each_alike() {
    for (dimensions, adapters, expected) in [
        (160, 10, (130, 3)),
        (12, 3, (9, 1)),
        (10, 3, (7, 1)),
        (5, 2, (5, 0)),
        (1, 1, (0, 1)),
        (0, 1, (0, 0)),
    ] {
        let found = singular_vectors::common_and_own(dimensions, adapters);
        assert_eq!(found, expected, "{dimensions} {adapters}");
    }
    for dimensions in 0..200 {
        for adapters in 1..30 {
            let (common, own) = singular_vectors::common_and_own(dimensions, adapters);
            assert_eq!(common + own * adapters, dimensions);
        }
    }
}

#[test]
fn wudi_is_where_descent_on_its_definition_ends() {
    let weights = [1.0, 0.5, 1.25];
    // More inputs that adapters react to than there are inputs: no change can suit all.
    let adapters = adapters(&[4, 5, 4], 2);
    let changes: Vec<Mat<f64>> = adapters.iter().map(exact_change).collect();
    let changes = weighted(&changes, &weights);
    let slope = |merged: &Mat<f64>| {
        let slopes = changes.iter().map(|own| {
            let slope = (merged - own) * own.transpose() * own;
            matrix::scaled(2.0 / own.squared_norm_l2(), slope.as_ref())
        });
        plain_sum(&slopes.collect::<Vec<_>>())
    };
    // From the sum, as in the paper. No step is too large, since every change adds at most 2 to the curvature.
    let mut descended = plain_sum(&changes);
    let step = 1.0 / (2.0 * changes.len() as f64);
    for _ in 0..20_000 {
        descended -= matrix::scaled(step, slope(&descended).as_ref());
    }
    assert!(slope(&descended).norm_max() < 1e-7, "it has not ended");
    let found = merged(&adapters, &weights, &set(MergeMethod::Wudi, None, None));
    let found = change(&found);
    assert_equal(found.as_ref(), descended.as_ref(), "wudi");
    let least = wudi_loss(&found, &changes);
    assert!(least > 0.01, "it is a compromise: {least}");
    assert!(least < wudi_loss(&plain_sum(&changes), &changes));
    assert!((least - wudi_loss(&descended, &changes)).abs() < TOLERANCE);
}

#[test]
fn wudi_does_to_the_inputs_of_each_adapter_what_that_adapter_does_where_they_are_independent() {
    let adapters = adapters(&[3, 2, 3], 4);
    let found = merged(&adapters, &[1.0; 3], &set(MergeMethod::Wudi, None, None));
    let found = change(&found);
    for own in &adapters {
        let inputs = stored(own).1;
        let expected = exact_change(own) * &inputs;
        assert_equal((&found * &inputs).as_ref(), expected.as_ref(), "wudi");
    }
}

#[test]
fn pico_has_the_mean_norm_of_the_changes_and_less_of_what_all_of_them_write() {
    let mut adapters = adapters(&[1, 1, 1], 6);
    // All write mostly into the first output.
    for adapter in &mut adapters {
        let pair = adapter.pairs.get_mut(&SITE).unwrap();
        pair.b.data_mut()[0] = 4.0;
    }
    let changes: Vec<Mat<f64>> = adapters.iter().map(exact_change).collect();
    let found = merged(&adapters, &[1.0; 3], &set(MergeMethod::Pico, None, None));
    let found = change(&found);
    assert!((found.norm_l2() - mean_norm(&changes)).abs() < TOLERANCE);
    let share = |own: &Mat<f64>| own.subrows(0, 1).squared_norm_l2() / own.squared_norm_l2();
    let (before, after) = (share(&plain_sum(&changes)), share(&found));
    assert!(after < before * 0.9, "{before} {after}");
}

#[test]
fn after_pico_every_merge_has_the_mean_norm_of_the_changes_before_a_rank_is_chosen() {
    let weights = [1.0, -0.5, 0.75];
    let adapters = adapters(&[2, 3, 2], 19);
    let changes: Vec<Mat<f64>> = adapters.iter().map(exact_change).collect();
    let expected = mean_norm(&weighted(&changes, &weights));
    for method in Merging::all_after_pico() {
        let found = merged(&adapters, &weights, &set(method, None, None));
        let found = change(&found).norm_l2();
        let name = method.name();
        assert!((found - expected).abs() < TOLERANCE, "{name}: {found}");
        let small = change(&merged(&adapters, &weights, &set(method, Some(1), None)));
        // The rank of this one is that of the spaces in which it merges.
        if method.method() != MergeMethod::CompressThenMerge {
            assert!(small.norm_l2() < expected, "{name}");
        }
    }
}

#[test]
fn adapters_that_say_the_same_are_merged_without_directions_that_none_of_them_has() {
    let adapter = adapters(&[3], 8).remove(0);
    let own = exact_change(&adapter);
    let twice = [adapter.clone(), adapter];
    for method in [&FLAT[..], &[MergeMethod::Wudi, MergeMethod::Pico]].concat() {
        let found = merged(&twice, &[1.0; 2], &set(method, None, None));
        assert_eq!(values_of(&found).len(), 3, "{}", method.name());
        let (u, _, v) = triplets(&own, 3);
        let found = change(&found);
        let projected = &u * (u.transpose() * &found * &v) * v.transpose();
        assert_equal(projected.as_ref(), found.as_ref(), method.name());
        if method == MergeMethod::Wudi {
            assert_equal(found.as_ref(), own.as_ref(), "wudi");
        }
    }
}

#[test]
fn changes_of_zero_are_merged_and_those_that_cancel_each_other_leave_nothing() {
    let mut zero = adapters(&[2], 9).remove(0);
    zero.pairs.get_mut(&SITE).unwrap().b = Tensor::zeros([OUTPUTS, 2]);
    let nothing = Mat::<f64>::zeros(OUTPUTS, INPUTS);
    for method in with_and_without_pico() {
        let zeros = [zero.clone(), zero.clone()];
        let found = merged(&zeros, &[1.0; 2], &set(method, None, None));
        assert_equal(change(&found).as_ref(), nothing.as_ref(), method.name());
    }
    let some = adapters(&[3, 2], 10);
    let with_zero = [some[0].clone(), zero, some[1].clone(), some[0].clone()];
    let plain = [&FLAT[..], &[MergeMethod::Wudi, MergeMethod::Pico]].concat();
    let plain = plain.into_iter().map(Merging::plain);
    for method in plain.chain(Merging::all_after_pico()) {
        let expected = merged(&some, &[1.0, 0.5], &set(method, None, None));
        // The last one has no weight.
        let weights = [1.0, 2.0, 0.5, 0.0];
        let found = merged(&with_zero, &weights, &set(method, None, None));
        assert_equal(
            change(&found).as_ref(),
            change(&expected).as_ref(),
            method.name(),
        );
    }
    let opposed = [some[0].clone(), some[0].clone()];
    for method in [MergeMethod::IsoC, MergeMethod::IsoCts, MergeMethod::Pico] {
        let found = merged(&opposed, &[1.0, -1.0], &set(method, None, None));
        assert_equal(change(&found).as_ref(), nothing.as_ref(), method.name());
    }
}

#[test]
fn every_merge_repeats_bit_for_bit_and_those_without_ties_refuse_values_that_are_not_finite() {
    let mut adapters = adapters(&[2, 3], 12);
    for method in with_and_without_pico() {
        let once = merged(&adapters, &[1.0, 0.5], &set(method, None, None));
        let again = merged(&adapters, &[1.0, 0.5], &set(method, None, None));
        assert_eq!(once, again, "{}", method.name());
    }
    for value in [f32::NAN, f32::INFINITY] {
        let pair = adapters[1].pairs.get_mut(&SITE).unwrap();
        pair.a.data_mut()[3] = value;
        let inputs = inputs(&adapters, &vec![1.0; adapters.len()]);
        // TIES passes over NaN, whose sign is not the elected one.
        let without_ties = with_and_without_pico().into_iter();
        let without_ties = without_ties.filter(|own| own.method().default_density().is_none());
        for method in without_ties {
            let result = merge(&inputs, &set(method, None, None));
            let refused = matches!(
                result,
                Err(MergeError::Decomposition { .. } | MergeError::NotFinite { .. })
            );
            assert!(refused, "{} {value}", method.name());
        }
    }
}
