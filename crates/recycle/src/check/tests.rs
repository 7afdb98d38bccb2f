use super::*;
use crate::head::{HeadChoice, HeadKind};

/// Examples around the corners of a simplex, `counts[c]` of class `c`, each `spread` away in a direction of its own.
fn examples(counts: &[usize], spread: f32) -> Vec<(usize, Vec<f32>)> {
    let width = 24;
    let mut made = Vec::new();
    let mut number = 0u32;
    for (class, &count) in counts.iter().enumerate() {
        for _ in 0..count {
            let mut feature = vec![0.01; width];
            feature[class] = 1.0;
            for (place, value) in feature.iter_mut().enumerate() {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (number >> 8) as f32 / (1 << 24) as f32 - 0.5;
                *value += spread * noise * (1.0 + place as f32 / 24.0);
            }
            made.push((class, feature));
        }
    }
    made
}

fn labelled(made: &[(usize, Vec<f32>)]) -> Vec<LabelledFeature<'_>> {
    made.iter()
        .map(|(class, feature)| LabelledFeature {
            class: *class,
            feature,
            copies: &[],
        })
        .collect()
}

fn alone(count: usize) -> Vec<usize> {
    (0..count).collect()
}

fn settings() -> HeadSettings {
    HeadKind::Lda.into()
}

#[test]
fn examples_of_classes_that_lie_apart_are_judged_right_and_each_once() {
    let made = examples(&[4, 7, 5], 0.2);
    let judged = judge(&settings(), 3, &labelled(&made), &alone(16), MOST_PARTS)
        .unwrap()
        .judged;
    let indices: Vec<usize> = judged.iter().map(|own| own.example).collect();
    assert_eq!(indices, alone(16));
    for own in &judged {
        assert_eq!(own.answered, own.class, "{own:?}");
        let sum: f64 = own.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9, "{own:?}");
    }
    assert_eq!(wrong_labels(&judged, 0.1), []);
}

#[test]
fn a_planted_wrong_label_is_the_first_hint() {
    let mut made = examples(&[8, 8, 8], 0.2);
    made[3].0 = 2;
    let judged = judge(&settings(), 3, &labelled(&made), &alone(24), MOST_PARTS)
        .unwrap()
        .judged;
    let found = wrong_labels(&judged, LEAST_SCORE);
    assert_eq!(
        (found[0].example, found[0].class, found[0].looks_like),
        (3, 2, 0)
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn with_two_examples_a_class_probabilities_have_the_scale_of_the_heads_that_judge() {
    // With one example of each class left there is no metric, and distances are those of directions.
    let made = examples(&[2, 2, 2], 0.1);
    let judged = judge(&settings(), 3, &labelled(&made), &alone(6), MOST_PARTS)
        .unwrap()
        .judged;
    for own in &judged {
        assert!(own.probabilities[own.class] > 0.95, "{own:?}");
    }
}

#[test]
fn a_duplicate_does_not_vouch_for_its_twin() {
    // The second class lies everywhere, so that only its own copy speaks for the last example.
    let mut made = examples(&[6, 6], 0.3);
    let mut stray = made[0].1.clone();
    stray[5] += 0.05;
    made.push((1, stray.clone()));
    made.push((1, stray));
    let together = {
        let mut groups = alone(14);
        groups[13] = 12;
        groups
    };
    let judged = judge(&settings(), 2, &labelled(&made), &together, MOST_PARTS)
        .unwrap()
        .judged;
    assert!(
        judged[12..].iter().all(|own| own.answered == 0),
        "{:?}",
        &judged[12..]
    );
}

#[test]
fn a_class_of_one_example_or_of_copies_of_one_stays_and_is_not_judged() {
    let made = examples(&[5, 1, 3], 0.2);
    let mut groups = alone(9);
    groups[7] = 6;
    groups[8] = 6;
    let judged = judge(&settings(), 3, &labelled(&made), &groups, MOST_PARTS)
        .unwrap()
        .judged;
    let indices: Vec<usize> = judged.iter().map(|own| own.example).collect();
    assert_eq!(indices, alone(5));
}

#[test]
fn a_class_whose_pictures_all_lie_in_another_too_makes_no_wrong_label() {
    let mut made = examples(&[6, 2, 6], 0.2);
    // Both examples of the second class are those of the first.
    made[6].1 = made[0].1.clone();
    made[7].1 = made[1].1.clone();
    let mut groups = alone(14);
    groups[6] = 0;
    groups[7] = 1;
    let judged = judge(&settings(), 3, &labelled(&made), &groups, 1);
    assert!(judged.unwrap().judged.iter().all(|own| own.class != 1));
    let judged = judge(&settings(), 3, &labelled(&made), &groups, MOST_PARTS)
        .unwrap()
        .judged;
    let others: Vec<usize> = wrong_labels(&judged, LEAST_SCORE)
        .iter()
        .map(|own| own.example)
        .filter(|example| ![0, 1, 6, 7].contains(example))
        .collect();
    assert_eq!(others, [0usize; 0]);
}

#[test]
fn identical_features_give_sound_numbers() {
    let made: Vec<(usize, Vec<f32>)> = (0..8).map(|index| (index % 2, vec![1.0; 6])).collect();
    for kind in [HeadKind::NearestMean, HeadKind::Lda] {
        let judged = judge(&kind.into(), 2, &labelled(&made), &alone(8), MOST_PARTS)
            .unwrap()
            .judged;
        assert_eq!(judged.len(), 8);
        assert!(
            judged
                .iter()
                .all(|own| own.probabilities.iter().all(|p| p.is_finite()))
        );
    }
    assert_eq!(similar_pairs(&[&[0.0; 4], &[0.0; 4]], 0.9), []);
}

#[test]
fn copies_of_examples_are_taken_by_heads_that_want_them() {
    let made = examples(&[4, 4], 0.2);
    let copies = examples(&[4, 4], 0.25);
    let copies: Vec<Vec<&[f32]>> = copies
        .iter()
        .map(|(_, copy)| vec![copy.as_slice(); 6])
        .collect();
    let with: Vec<LabelledFeature<'_>> = made
        .iter()
        .zip(&copies)
        .map(|((class, feature), copies)| LabelledFeature {
            class: *class,
            feature,
            copies,
        })
        .collect();
    let judged = judge(
        &HeadChoice::Auto.settings(),
        2,
        &with,
        &alone(8),
        MOST_PARTS,
    )
    .unwrap()
    .judged;
    assert!(judged.iter().all(|own| own.answered == own.class));
}

#[test]
fn pairs_that_are_alike_are_found_across_blocks_and_make_groups() {
    let mut made: Vec<Vec<f32>> = examples(&[600], 2.0)
        .into_iter()
        .map(|(_, feature)| feature)
        .collect();
    made.push(made[0].clone());
    made.push(made[520].clone());
    let features: Vec<&[f32]> = made.iter().map(Vec::as_slice).collect();
    let mut pairs = similar_pairs(&features, 0.99999);
    pairs.sort_unstable();
    assert_eq!(pairs, [(0, 600), (520, 601)]);
    let groups = groups_of(602, &[(0, 600), (600, 601)]);
    assert_eq!(
        (groups[0], groups[600], groups[601], groups[1]),
        (0, 0, 0, 1)
    );
}

#[test]
fn classes_taken_for_each_other_are_alike_and_mistakes_one_way_are_not() {
    let own = |example, class: usize, answered: usize| Judged {
        example,
        class,
        answered,
        probabilities: Vec::new(),
    };
    let mixed: Vec<Judged> = (0..8)
        .map(|index| own(index, index % 2, (index / 2) % 2))
        .collect();
    let found = alike_classes(&mixed, 3);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].classes, found[0].share), ((0, 1), 0.5));
    let one_way: Vec<Judged> = (0..8).map(|index| own(index, index % 2, 0)).collect();
    assert_eq!(alike_classes(&one_way, 3), []);
}

#[test]
fn more_is_asked_of_the_class_with_the_most_to_gain() {
    let own = |example, class: usize, right: bool| Judged {
        example,
        class,
        answered: if right { class } else { 1 - class },
        probabilities: Vec::new(),
    };
    let judged: Vec<Judged> = (0..20)
        .map(|index| own(index, index / 10, index < 10 || index % 2 == 0))
        .collect();
    let halved: Vec<Judged> = (0..20)
        .map(|index| own(index, index / 10, index < 9 || index % 3 == 0))
        .collect();
    let needed = needs_more(&judged, &halved, (8.0, 5.0), 2).unwrap();
    assert_eq!((needed.class, needed.count), (1, 2));
    assert!(needed.gain > 0.01 && needed.gain <= 0.5, "{needed:?}");
    let all_right: Vec<Judged> = (0..20).map(|index| own(index, index / 10, true)).collect();
    assert_eq!(needs_more(&all_right, &halved, (8.0, 5.0), 2), None);
    assert_eq!(
        needs_more(&judged, &halved, (1.0, 1.0), 2),
        None,
        "as many examples say nothing about more"
    );
}

#[test]
fn wilsons_interval_is_that_of_the_books() {
    let (low, high) = wilson(13, 15);
    assert!(
        (low - 0.621).abs() < 1e-3 && (high - 0.963).abs() < 1e-3,
        "{low} {high}"
    );
    assert_eq!(wilson(0, 0), (0.0, 1.0));
    assert!(wilson(5, 5).0 > 0.5 && (wilson(5, 5).1 - 1.0).abs() < 1e-12);
}
