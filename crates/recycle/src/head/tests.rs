use super::copies::{CopySpec, copy_of};
use super::*;
use crate::classifier::{Classifier, ClassifierSettings, Support};
use engine::distance::Distance;
use matrix::Mat;
use model::tensor::Tensor;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn drawn(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
    let mut random = random(seed);
    let values: Vec<f64> = (0..rows * columns)
        .map(|_| random.random_range(-1.0..1.0))
        .collect();
    Mat::from_fn(rows, columns, |i, j| values[i * columns + j])
}

/// `Σ = (1−a)·S + a·tr(S)/D·I`, value by value.
fn plain_covariance(deviations: &Mat<f64>, degrees: f64, share: f64) -> Mat<f64> {
    let (rows, width) = (deviations.nrows(), deviations.ncols());
    let variance = |i: usize, j: usize| {
        let products = (0..rows).map(|row| deviations[(row, i)] * deviations[(row, j)]);
        products.sum::<f64>() / degrees
    };
    let trace: f64 = (0..width).map(|i| variance(i, i)).sum();
    Mat::from_fn(width, width, |i, j| {
        let floor = if i == j {
            share * trace / width as f64
        } else {
            0.0
        };
        (1.0 - share) * variance(i, j) + floor
    })
}

#[test]
fn the_metric_is_the_inverse_of_the_shrunk_covariance_for_few_and_for_many_deviations() {
    for (rows, width) in [(4, 9), (1, 5), (9, 9), (30, 7), (3, 1)] {
        let deviations = drawn(rows, width, 5);
        for share in [0.1, 0.5, 1.0] {
            let degrees = rows as f64 + 2.0;
            let metric =
                Metric::of(deviations.transpose(), degrees, Shrinkage::Fixed(share)).unwrap();
            let identity = Mat::from_fn(width, width, |i, j| f64::from(u8::from(i == j)));
            let half = metric.whiten(identity.as_ref());
            let inverse = metric.whiten(half.as_ref());
            let covariance = plain_covariance(&deviations, degrees, share);
            let product = matrix::product(covariance.as_ref(), inverse.as_ref());
            for i in 0..width {
                for j in 0..width {
                    // The metric holds what `f32` can.
                    let expected = identity[(i, j)];
                    assert!(
                        (product[(i, j)] - expected).abs() < 2e-5,
                        "{rows} x {width}, a = {share}: {} for {expected}",
                        product[(i, j)]
                    );
                }
            }
        }
    }
}

#[test]
fn oas_shrinks_few_deviations_and_leaves_many_unequal_ones_alone() {
    let share = |rows: usize| {
        let mut deviations = drawn(rows, 6, 3);
        for row in 0..rows {
            deviations[(row, 0)] *= 10.0;
        }
        let metric = Metric::of(deviations.transpose(), rows as f64, Shrinkage::Oas).unwrap();
        // W along the widest direction against W across it says how much was added to all.
        let axes = Mat::from_fn(6, 2, |i, j| f64::from(u8::from(i == 3 * j)));
        let scaled = metric.whiten(axes.as_ref());
        scaled.col(1).norm_l2() / scaled.col(0).norm_l2()
    };
    // The standard deviations are as 10 to 1.
    assert!((share(4000) - 10.0).abs() < 0.5, "{}", share(4000));
    assert!(share(3) < 6.0, "{}", share(3));
}

#[test]
fn distances_of_lda_are_those_of_its_definition() {
    let features: Vec<Vec<f32>> = (0..8)
        .map(|seed| {
            let mut random = random(seed);
            (0..5).map(|_| random.random_range(-1.0f32..1.0)).collect()
        })
        .collect();
    let example = |i: usize| LabelledFeature {
        class: i % 3,
        feature: &features[i],
        copies: &[],
    };
    let examples: Vec<LabelledFeature<'_>> = (0..7).map(example).collect();
    let settings = HeadSettings {
        shrinkage: Shrinkage::Fixed(0.3),
        ..HeadKind::Lda.into()
    };
    let head = FittedHead::fit(&settings, 3, &examples).unwrap();
    let found = head.squared_distances(&[&features[7]]).unwrap();

    let unit = |feature: &[f32]| -> Vec<f64> {
        let length = feature
            .iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
            .sqrt();
        feature.iter().map(|&v| f64::from(v) / length).collect()
    };
    let units: Vec<Vec<f64>> = features.iter().map(|own| unit(own)).collect();
    let mean = |class: usize, j: usize| {
        let own: Vec<f64> = (0..7)
            .filter(|i| i % 3 == class)
            .map(|i| units[i][j])
            .collect();
        own.iter().sum::<f64>() / own.len() as f64
    };
    let deviations = Mat::from_fn(7, 5, |i, j| units[i][j] - mean(i % 3, j));
    let covariance = plain_covariance(&deviations, 4.0, 0.3);
    let eigen = matrix::symmetric_eigen(covariance.as_ref()).unwrap();
    for class in 0..3 {
        let along = |k: usize| -> f64 {
            let difference = (0..5).map(|j| units[7][j] - mean(class, j));
            difference
                .enumerate()
                .map(|(j, own)| own * eigen.vectors[(j, k)])
                .sum()
        };
        let expected: f64 = (0..5).map(|k| along(k).powi(2) / eigen.values[k]).sum();
        let found = found[(0, class)];
        assert!(
            (found - expected).abs() < 1e-4 * expected,
            "{found} {expected}"
        );
    }
}

#[test]
fn what_is_left_out_is_scored_by_a_head_that_has_not_seen_it() {
    let features: Vec<Vec<f32>> = (0..6)
        .map(|seed| {
            let mut random = random(seed + 20);
            (0..4).map(|_| random.random_range(0.1f32..1.0)).collect()
        })
        .collect();
    let example = |i: usize| LabelledFeature {
        class: [0, 0, 1, 1, 2, 0][i],
        feature: &features[i],
        copies: &[],
    };
    let examples: Vec<LabelledFeature<'_>> = (0..6).map(example).collect();
    let settings: HeadSettings = HeadKind::Lda.into();
    let whole = FittedHead::fit(&settings, 3, &examples).unwrap();
    let left_out = leave_out(&settings, &whole, &examples).unwrap();
    // The only example of class 2 stays in.
    let classes: Vec<usize> = left_out.iter().map(|own| own.class).collect();
    assert_eq!(classes, [0, 1, 0, 1, 0]);
    let kept: Vec<LabelledFeature<'_>> = [1, 3, 4, 5].map(example).to_vec();
    let head = FittedHead::fit(&settings, 3, &kept).unwrap();
    let expected = head.squared_distances(&[&features[0]]).unwrap();
    for class in 0..3 {
        assert_eq!(left_out[0].squared_distances[class], expected[(0, class)]);
    }
    // With two of each, what is left has no deviations and another metric.
    let two = [0, 1, 2, 3].map(example);
    let whole = FittedHead::fit(&settings, 2, &two).unwrap();
    assert_eq!(leave_out(&settings, &whole, &two).unwrap(), []);
}

#[test]
fn the_temperature_is_that_of_many_answers_and_stays_near_the_usual_one_for_a_few() {
    let mut random = random(9);
    let mut outcomes = |count: usize, true_temperature: f64| -> Vec<LeftOut> {
        let outcome = |_| {
            let squared_distances: Vec<f64> =
                (0..4).map(|_| random.random_range(0.0..8.0)).collect();
            let weights = squared_distances
                .iter()
                .map(|d| (-d / true_temperature).exp());
            let weights: Vec<f64> = weights.collect();
            let mut place = random.random_range(0.0..weights.iter().sum());
            let mut class = 0;
            while class < 3 && place > weights[class] {
                place -= weights[class];
                class += 1;
            }
            LeftOut {
                class,
                squared_distances,
            }
        };
        (0..count).map(outcome).collect()
    };
    let found = temperature(&outcomes(4000, 3.0), 1.0);
    assert!((found / 3.0).ln().abs() < 0.15, "{found}");
    assert!((temperature(&[], 0.7) - 0.7).abs() < 1e-12);
    // Five right answers would have no temperature at all.
    let right = vec![
        LeftOut {
            class: 0,
            squared_distances: vec![0.0, 9.0],
        };
        5
    ];
    let found = temperature(&right, 2.0);
    assert!((0.5..2.0).contains(&found), "{found}");
}

#[test]
fn novelty_is_the_share_of_known_images_that_are_nearer() {
    let left_out: Vec<LeftOut> = (1..=99)
        .map(|place| LeftOut {
            class: 0,
            // Logarithms of the distances are even about ln 10.
            squared_distances: vec![100.0 * (f64::from(place - 50) / 25.0).exp(), 1e6],
        })
        .collect();
    let scale = NoveltyScale::of(&left_out, Squares::Rooted).unwrap();
    assert!((scale.share_nearer(10.0) - 0.5).abs() < 1e-6);
    assert!(scale.share_nearer(0.0) < 1e-6 && scale.share_nearer(1e6) > 1.0 - 1e-6);
    // Of ten images the same distance says less than of ninety-nine.
    let few: Vec<LeftOut> = left_out.iter().step_by(10).cloned().collect();
    let few = NoveltyScale::of(&few, Squares::Rooted).unwrap();
    let deviations = |scale: NoveltyScale| {
        let distance = (scale.mean + 2.0 * scale.deviation).exp();
        scale.share_nearer(distance as f32)
    };
    assert!(deviations(few) < deviations(scale));
    assert!(scale.share_nearer(14.0) > scale.share_nearer(11.0));
    assert_eq!(NoveltyScale::of(&left_out[..3], Squares::Rooted), None);
}

#[test]
fn copies_repeat_for_a_picture_and_differ_by_their_number() {
    let mut random = random(1);
    let values = (0..3 * 14 * 14)
        .map(|_| random.random_range(-1.0f32..1.0))
        .collect();
    let pixels = Tensor::new([3, 14, 14], values).unwrap();
    let spec = CopySpec {
        index: 0,
        negative: false,
        mirrored: false,
        strength_percent: 100,
    };
    let normalisation = ([0.5; 3], [0.25; 3]);
    let copy = |spec| copy_of(&pixels, spec, normalisation).unwrap();
    assert_eq!(copy(spec), copy(spec));
    assert_ne!(copy(spec), copy(CopySpec { index: 1, ..spec }));
    assert_ne!(copy(spec), pixels);
    let still = CopySpec {
        strength_percent: 0,
        ..spec
    };
    let nearly = |a: &Tensor, b: &Tensor| {
        let mut pairs = a.data().iter().zip(b.data());
        pairs.all(|(a, b)| (a - b).abs() < 1e-5)
    };
    assert!(nearly(&copy(still), &pixels));
    // The levels' mean is their middle, so a negative changes the sign.
    let negative = copy(CopySpec {
        negative: true,
        ..still
    });
    let opposite = Tensor::new([3, 14, 14], pixels.data().iter().map(|v| -v).collect()).unwrap();
    assert!(nearly(&negative, &opposite));
    let mirrored = copy(CopySpec {
        mirrored: true,
        ..still
    });
    assert!((mirrored.data()[0] - pixels.data()[13]).abs() < 1e-5);
    let flat = Tensor::new([12], vec![0.0; 12]).unwrap();
    assert!(copy_of(&flat, spec, normalisation).is_err());
}

#[test]
fn a_head_is_read_with_its_settings_and_written_as_it_was_read() {
    for text in [
        "auto",
        "nearest-mean",
        "lda",
        "lda:shrinkage=oas",
        "lda-augmented:shrinkage=0.25:copies=3:strength=50:negatives=false:mirrored=true:means=true:queries=true",
    ] {
        let choice: HeadChoice = text.parse().unwrap();
        let written = choice.to_string();
        assert_eq!(written.parse(), Ok(choice), "{written}");
    }
    assert_eq!("lda".parse::<HeadChoice>().unwrap().to_string(), "lda");
    for (text, reason) in [
        ("ridge", "there are auto, nearest-mean, lda, lda-augmented"),
        ("lda:shrinkage=0", "above 0"),
        ("lda:shrinkage=nan", "above 0"),
        ("lda:a=1", "no setting \"a\""),
        ("lda:copies", "no setting"),
        ("lda-augmented:copies=99", "up to 32"),
        ("lda:means=1", "true or false"),
    ] {
        let error = text.parse::<HeadChoice>().unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

/// Features that a classifier may meet: drawn, repeated, zero, of one direction.
fn any_feature() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        4 => prop::collection::vec(-1.0f32..1.0, 6),
        2 => Just(vec![0.5, -0.25, 0.0, 1.0, 0.0, 0.0]),
        1 => Just(vec![0.0; 6]),
        1 => prop::collection::vec(-1e-20f32..1e-20, 6),
        1 => prop::collection::vec(-1e18f32..1e18, 6),
    ]
}

proptest! {
    #[test]
    fn whatever_the_examples_are_answers_are_finite_and_probabilities_sum_to_one(
        classes in prop::collection::vec(prop::collection::vec(any_feature(), 1..6), 2..5),
        repeats in prop_oneof![Just(1usize), Just(60)],
        query in any_feature(),
        has_copies in any::<bool>(),
        head in prop_oneof![
            Just("auto"), Just("nearest-mean"), Just("lda"), Just("lda:shrinkage=oas"), Just("lda-augmented"),
            Just("lda-augmented:shrinkage=0.001:means=true"),
        ],
    ) {
        let labels: Vec<String> = (0..classes.len()).map(|class| class.to_string()).collect();
        let mut supports = Vec::new();
        for (class, features) in classes.iter().enumerate() {
            let times = if class == 0 { repeats } else { 1 };
            for feature in features.iter().cycle().take(features.len() * times) {
                let copies = if has_copies { features.iter().cycle().take(6).cloned().collect() } else { Vec::new() };
                supports.push(Support { image: String::new(), class, feature: feature.clone(), copies });
            }
        }
        let settings = ClassifierSettings { head: head.parse().unwrap(), distance: Distance::Cosine };
        let classifier = Classifier::new(labels, supports, settings).unwrap();
        let answer = classifier.classify(query, 3).unwrap();
        let sum: f32 = answer.scores.iter().map(|score| score.probability).sum();
        prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        prop_assert!(answer.scores.iter().all(|score| score.distance.is_finite()));
        prop_assert!(answer.novelty.is_none_or(|novelty| (0.0..=1.0).contains(&novelty)));
        let read = Classifier::from_json(&classifier.to_json().unwrap()).unwrap();
        prop_assert_eq!(read, classifier);
    }
}

#[test]
fn means_moved_towards_queries_are_those_of_the_plain_steps_and_stay_without_any() {
    let width = 6;
    let features: Vec<Vec<f32>> = (0..30)
        .map(|seed| {
            let mut random = random(seed);
            (0..width)
                .map(|_| random.random_range(-1.0f32..1.0))
                .collect()
        })
        .collect();
    let examples: Vec<LabelledFeature<'_>> = (0..9)
        .map(|i| LabelledFeature {
            class: i % 2,
            feature: &features[i],
            copies: &[],
        })
        .collect();
    let settings: HeadChoice = "lda".parse().unwrap();
    let head = FittedHead::fit(&settings.settings(), 2, &examples).unwrap();
    let same = head.moved_towards(&[], &[5, 4]).unwrap().unwrap();
    let query = &features[20];
    let distances = |head: &FittedHead, of: &[f32]| {
        let found = head.squared_distances(&[of]).unwrap();
        [found[(0, 0)], found[(0, 1)]]
    };
    for (a, b) in distances(&same, query).iter().zip(distances(&head, query)) {
        assert!((a - b).abs() < 1e-4 * b, "{a}, before {b}");
    }
    // In the space of W, where distances are plain, found through the distances to the queries themselves.
    let queries: Vec<&[f32]> = features[9..].iter().map(Vec::as_slice).collect();
    let moved = head.moved_towards(&queries, &[5, 4]).unwrap().unwrap();
    let unit = |of: &[f32]| {
        let length = of.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        Mat::from_fn(width, 1, |i, _| f64::from(of[i]) / length)
    };
    let plain = |of: &[f32]| -> Vec<f64> {
        let z = head.whitened(unit(of).as_ref());
        z.col(0).iter().copied().collect()
    };
    let mean = |class: usize| -> Vec<f64> {
        let own: Vec<Vec<f64>> = (0..9)
            .filter(|i| i % 2 == class)
            .map(|i| plain(&features[i]))
            .collect();
        (0..width)
            .map(|j| own.iter().map(|z| z[j]).sum::<f64>() / own.len() as f64)
            .collect()
    };
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
    let first = [mean(0), mean(1)];
    let mut means = first.clone();
    let z: Vec<Vec<f64>> = queries.iter().map(|own| plain(own)).collect();
    for _ in 0..3 {
        let shares: Vec<[f64; 2]> = z
            .iter()
            .map(|z| {
                let raw = [0, 1].map(|c| (-square(z, &means[c]) / (0.03 * width as f64)).exp());
                raw.map(|own| own / (raw[0] + raw[1]))
            })
            .collect();
        for (class, worth) in [(0, 75.0), (1, 60.0)] {
            let all = worth + shares.iter().map(|own| own[class]).sum::<f64>();
            means[class] = (0..width)
                .map(|j| {
                    let sum: f64 = z
                        .iter()
                        .zip(&shares)
                        .map(|(z, own)| own[class] * z[j])
                        .sum();
                    (worth * first[class][j] + sum) / all
                })
                .collect();
        }
    }
    for query in &queries {
        for (class, found) in distances(&moved, query).into_iter().enumerate() {
            let expected = square(&plain(query), &means[class]);
            assert!(
                (found - expected).abs() < 1e-3 * (1.0 + expected),
                "{found}, plain {expected}"
            );
        }
    }
}

/// `count` directions near each of three axes, with `copies` near to each.
fn three_axes(count: usize, copies: usize) -> Vec<Support> {
    let mut random = random(3);
    let mut near = |centre: &[f32], reach: f32| -> Vec<f32> {
        let values = centre.iter();
        values
            .map(|value| value + random.random_range(-reach..reach))
            .collect()
    };
    let mut supports = Vec::new();
    for class in 0..3 {
        let axis: Vec<f32> = (0..12).map(|j| f32::from(u8::from(j == class))).collect();
        for _ in 0..count {
            let feature = near(&axis, 0.3);
            supports.push(Support {
                image: String::new(),
                class,
                copies: (0..copies).map(|_| near(&feature, 0.2)).collect(),
                feature,
            });
        }
    }
    supports
}

#[test]
fn one_example_of_each_class_with_copies_tells_what_is_far_from_all_of_them_roughly() {
    let labels = || ["a", "b", "c"].map(str::to_owned).to_vec();
    let classifier = |count, copies| {
        let settings = ClassifierSettings {
            head: HeadChoice::Auto,
            distance: Distance::Cosine,
        };
        Classifier::new(labels(), three_axes(count, copies), settings).unwrap()
    };
    let rough = classifier(1, 6);
    assert_eq!(rough.novelty_calibration(), Calibration::Copies);
    let novelty = |feature: Vec<f32>| rough.classify(feature, 0).unwrap().novelty.unwrap();
    let known = novelty(three_axes(1, 0)[1].feature.clone());
    let unknown = novelty((0..12).map(|j| f32::from(u8::from(j == 9))).collect());
    assert!(known < unknown && unknown > 0.95, "{known}, {unknown}");
    let none = classifier(1, 0);
    assert_eq!(none.novelty_calibration(), Calibration::None);
    assert_eq!(
        classifier(4, 6).novelty_calibration(),
        Calibration::Supports
    );
    // Written down and read, it is as rough as before.
    let read = Classifier::from_json(&rough.to_json().unwrap()).unwrap();
    assert_eq!(read.novelty_calibration(), Calibration::Copies);
}
