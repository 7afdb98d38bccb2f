//! Meta-training on tiny backbones: what a step is, what it reaches, and that an interruption changes no bit.

use crate::old_state::written_then;
use engine::distance::Distance;
use engine::session::{Input, Session, Wanted};
use model::adapter::{Adapter, LowRankPair, Site, Target};
use model::tensor::Tensor;
use recycle::evaluate::task_accuracies;
use recycle::inversion::InversionRecipe;
use recycle::labelled_images::{LabelledImages, normalise};
use recycle::layers::Layers;
use recycle::meta_train::{
    CoefficientObjective, EpisodeHead, EpisodeLabels, EpisodeScores, Goal, Keep, Member,
    MergeCoefficientRecipe, MetaTrainError, MetaTrainOutcome, MetaTrainRecipe, MetaTraining, Shots,
    Sparsity, Start, episode_gradients, episode_loss,
};
use recycle::pool::{Pool, Provenance};
use recycle::steps::{StepReport, Steps};
use std::collections::{BTreeMap, BTreeSet};
use test_support::fixtures::{MODELS, backbone};
use test_support::pools::{OPTIONS, invert, quick, teacher};

fn inversion() -> InversionRecipe {
    InversionRecipe {
        steps: 2,
        images_per_class: 6,
        pruning: BTreeMap::from([(1, 0.5)]),
        ..quick()
    }
}

/// The reference's adapter with synthetic images; `label` is in front of its classes' labels.
fn member(model: &str, label: &str, recipe: InversionRecipe) -> Member {
    let (_, mut outcome) = invert(model, recipe.clone());
    for class in &mut outcome.quality.classes {
        class.label = format!("{label} {}", class.label);
    }
    let backbone = backbone(model);
    let adapter = teacher(model);
    let from = Provenance {
        adapter_digest: &adapter.digest(),
        backbone_digest: &backbone.digest,
        patch_size: backbone.config.patch_size,
        recipe: &recipe,
    };
    Member {
        label: label.to_owned(),
        adapter,
        pool: Pool::new(outcome, from).unwrap(),
    }
}

pub fn members(model: &str) -> Vec<Member> {
    let other = InversionRecipe {
        seed: 1,
        ..inversion()
    };
    vec![
        member(model, "one", inversion()),
        member(model, "two", other),
    ]
}

pub fn recipe() -> MetaTrainRecipe {
    MetaTrainRecipe {
        rank: 2,
        episodes: 8,
        way: 3,
        queries: 3,
        held_out: 0.4,
        validate_every: Some(3),
        validation_tasks: 5,
        moving_average: Some(0.9),
        keep: Keep::BestValidated,
        ..MetaTrainRecipe::paper()
    }
}

fn start(model: &str, members: Vec<Member>, recipe: MetaTrainRecipe) -> MetaTraining {
    MetaTraining::new(&backbone(model), members, recipe, OPTIONS).unwrap()
}

fn finish(mut training: MetaTraining) -> (Vec<StepReport>, MetaTrainOutcome) {
    let mut reports = Vec::new();
    while !training.is_done() {
        assert!(training.outcome().is_none());
        let report = training.step().unwrap();
        assert!(report.step <= report.total);
        reports.push(report);
    }
    (reports, training.outcome().unwrap())
}

fn refuse(members: Vec<Member>, recipe: MetaTrainRecipe) -> String {
    let refused = MetaTraining::new(&backbone("vit-tiny"), members, recipe, OPTIONS);
    refused.err().unwrap().to_string()
}

fn figure(report: &StepReport, name: &str) -> f64 {
    let found = report.figures.iter().find(|(own, _)| *own == name);
    found
        .unwrap_or_else(|| panic!("{name} is not in {report:?}"))
        .1
}

#[test]
fn a_step_from_zero_b_has_the_scores_of_the_bare_backbone_and_a_gradient_at_b_alone() {
    for model in MODELS {
        let backbone = backbone(model);
        let mut session = Session::new(&backbone, OPTIONS).unwrap();
        let values = (0..6 * 3 * 28 * 28).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0);
        let pixels = Tensor::new([6, 3, 28, 28], values.collect()).unwrap();
        let width = backbone.config.width;
        let mut zero = Adapter::default();
        for layer in 0..backbone.config.layers {
            let a = (0..2 * width).map(|i| ((i * 13 + layer) % 17) as f32 / 100.0);
            let pair = LowRankPair {
                a: Tensor::new([2, width], a.collect()).unwrap(),
                b: Tensor::zeros([width, 2]),
                scale: 1.0,
            };
            let target = Target::Query;
            zero.pairs.insert(Site { layer, target }, pair);
        }
        let labels = EpisodeLabels {
            classes: 2,
            supports: &[0, 1],
            queries: &[0, 1, 1, 0],
        };
        let mut scoring = EpisodeScores::nearest_mean(Default::default());
        let output = session
            .forward(&Input::pixels(&pixels), Wanted::default())
            .unwrap();
        let features = output.features.data().to_vec();
        let bare = episode_loss(&mut scoring, &features, labels, Goal::Labels, None).unwrap();
        let input = Input {
            adapter: Some(&zero),
            ..Input::pixels(&pixels)
        };
        let (first, gradients) =
            episode_gradients(&mut session, &input, &mut scoring, labels, Goal::Labels).unwrap();
        assert_eq!(first, bare, "{model}");
        for (site, own) in &gradients.pairs {
            assert!(
                own.da.data().iter().all(|&value| value == 0.0),
                "{model} {site}"
            );
            assert!(
                own.db.data().iter().any(|&value| value != 0.0),
                "{model} {site}"
            );
        }
    }
}

#[test]
fn going_on_after_any_step_gives_the_same_bits() {
    let backbone = backbone("vit-tiny");
    let members = members("vit-tiny");
    for recipe in [
        recipe(),
        MetaTrainRecipe {
            layers: Layers::Last(2),
            sparsity: Sparsity::Share(0.5),
            start: Start::Merge { scale: None },
            ..recipe()
        },
        MetaTrainRecipe {
            head: EpisodeHead::Lda,
            shots: Shots::Between([2, 3]),
            ..recipe()
        },
    ] {
        let (_, whole) = finish(start("vit-tiny", members.clone(), recipe.clone()));
        let mut training = start("vit-tiny", members.clone(), recipe.clone());
        while !training.is_done() {
            // Preparations are made again, so that a whole step of learning follows each time.
            while training.step().unwrap().phase != "meta-training" {}
            let state = training.state().unwrap();
            training =
                MetaTraining::resume(&backbone, members.clone(), recipe.clone(), OPTIONS, &state)
                    .unwrap();
        }
        assert_eq!(training.outcome().unwrap(), whole);
        let state = training.state().unwrap();
        let other = MetaTrainRecipe { rank: 3, ..recipe };
        let refused = MetaTraining::resume(&backbone, members.clone(), other, OPTIONS, &state);
        assert!(matches!(refused.err(), Some(MetaTrainError::State(_))));
    }
}

/// `per_class` pictures of three classes that no member has.
fn real_pictures(model: &str, per_class: usize) -> LabelledImages {
    let side = backbone(model).image_size();
    let names = ["dots", "lines", "noise"].map(str::to_owned).to_vec();
    let (mut levels, mut labels) = (Vec::new(), Vec::new());
    for picture in 0..3 * per_class {
        let class = picture % 3;
        labels.push(class as u32);
        levels.extend((0..3 * side * side).map(|index| {
            let (x, y) = (index % side + picture, index / side);
            match class {
                0 => (x % 5 * (y % 5) * 16) as u8,
                1 => (y % 4 * 60 + picture) as u8,
                _ => (x * 7919 + y * 104_729 + picture * 31) as u8,
            }
        }));
    }
    LabelledImages::new(names, side, levels, labels).unwrap()
}

#[test]
fn real_pictures_of_other_classes_can_choose_the_best_state() {
    let model = "vit-tiny";
    let pictures = real_pictures(model, 5);
    let validated = |training: MetaTraining| training.validated_on(pictures.clone()).unwrap();
    let (_, outcome) = finish(validated(start(model, members(model), recipe())));
    // Before the first step the student is the bare backbone.
    let backbone = backbone(model);
    let mut session = Session::new(&backbone, OPTIONS).unwrap();
    let table = backbone.preprocess.normalised_levels();
    let positions = pictures.by_class();
    let features: Vec<Vec<Vec<f32>>> = positions
        .iter()
        .map(|own| {
            let side = pictures.image_size();
            let mut pixels = Tensor::zeros([own.len(), 3, side, side]);
            let targets = pixels.data_mut().chunks_exact_mut(3 * side * side);
            for (&image, target) in own.iter().zip(targets) {
                normalise(pictures.levels(image), &table, target);
            }
            let output = session.forward(&Input::pixels(&pixels), Wanted::default());
            let features = &output.unwrap().features;
            (0..own.len())
                .map(|row| features.row(row).to_vec())
                .collect()
        })
        .collect();
    let tasks = recipe().real_tasks(&[5; 3]).unwrap();
    assert_eq!((tasks.len(), tasks[0].len()), (5, 3));
    let accuracies = task_accuracies(&features, &tasks, Distance::SquaredEuclidean);
    let mean = accuracies.iter().sum::<f64>() / 5.0;
    assert!((outcome.validations[0].accuracy - mean).abs() < 1e-12);
    let (_, synthetic) = finish(start(model, members(model), recipe()));
    assert_eq!(synthetic.last, outcome.last);
    assert_ne!(synthetic.validations, outcome.validations);

    let mut training = validated(start(model, members(model), recipe()));
    while !training.is_done() {
        training.step().unwrap();
        let state = training.state().unwrap();
        let resumed = MetaTraining::resume(&backbone, members(model), recipe(), OPTIONS, &state);
        training = validated(resumed.unwrap());
    }
    assert_eq!(training.outcome().unwrap(), outcome);

    let few = start(model, members(model), recipe()).validated_on(real_pictures(model, 1));
    let error = few.err().unwrap().to_string();
    assert!(error.contains("to validate on are too few"), "{error}");
}

#[test]
fn the_last_and_the_best_validated_state_are_both_kept() {
    let (reports, outcome) = finish(start("dinov2-tiny", members("dinov2-tiny"), recipe()));
    let episodes: Vec<u64> = outcome.validations.iter().map(|own| own.episode).collect();
    assert_eq!(episodes, [0, 3, 6, 8]);
    assert_eq!(outcome.loss_curve.len(), 8);
    let last = reports.last().unwrap();
    let validation = outcome.validations.last().unwrap();
    assert_eq!(figure(last, "validation_loss"), validation.loss);
    assert!((0.0..=1.0).contains(&validation.accuracy));
    let lowest = outcome.validations.iter().map(|own| own.loss);
    let lowest = lowest.fold(f64::INFINITY, f64::min);
    assert_eq!(outcome.chosen(Keep::Last), &outcome.last);
    let best = outcome.chosen(Keep::BestValidated);
    assert_eq!(best == &outcome.last, validation.loss == lowest);
    assert!(best.head.is_none());
}

#[test]
fn learning_lowers_the_loss_on_tasks_of_one_adapter_and_on_mixed_ones() {
    for share in [0.0, 1.0] {
        let recipe = MetaTrainRecipe {
            share_of_mixed_episodes: share,
            episodes: 60,
            held_out: 0.0,
            moving_average: None,
            unit_features: true,
            score_scale: 5.0,
            learning_rate: 1e-2,
            cycle_steps: 60,
            keep: Keep::Last,
            ..recipe()
        };
        let (reports, outcome) = finish(start("vit-tiny", members("vit-tiny"), recipe));
        let name = ["divergence", "cross_entropy"][share as usize];
        assert_eq!(figure(&reports[0], name), outcome.loss_curve[0]);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (
            mean(&outcome.loss_curve[..15]),
            mean(&outcome.loss_curve[45..]),
        );
        println!("mixed {share}: {first} to {last}");
        assert!(last < 0.9 * first, "mixed {share}: {first} to {last}");
        assert!(outcome.validations.is_empty() && outcome.best.is_none());
    }
}

#[test]
fn pools_that_differ_in_rank_targets_classes_size_and_tokens_go_together() {
    let mut small = member(
        "vit-tiny",
        "small",
        InversionRecipe {
            image_size: Some(14),
            classes: Some(vec!["ant".into(), "eel".into()]),
            pruning: BTreeMap::new(),
            ..inversion()
        },
    );
    let width = backbone("vit-tiny").config.width;
    small.adapter.pairs = BTreeMap::from([(
        Site {
            layer: 3,
            target: Target::Key,
        },
        LowRankPair {
            a: Tensor::new([1, width], vec![0.1; width]).unwrap(),
            b: Tensor::new([width, 1], vec![0.2; width]).unwrap(),
            scale: 2.0,
        },
    )]);
    let mut members = members("vit-tiny");
    members.push(small);
    for sparsity in [Sparsity::NONE, Sparsity::STORED, Sparsity::Share(0.75)] {
        let recipe = MetaTrainRecipe {
            sparsity,
            targets: vec![Target::Query, Target::Key, Target::Value],
            start: Start::Merge { scale: Some(0.5) },
            shots: Shots::Between([1, 2]),
            held_out: 0.0,
            keep: Keep::Last,
            episodes: 12,
            affine: true,
            colour: true,
            inversion_probability: 0.5,
            ..recipe()
        };
        let (_, outcome) = finish(start("vit-tiny", members.clone(), recipe));
        assert!(outcome.loss_curve.iter().all(|loss| loss.is_finite()));
        assert_eq!(outcome.last.pairs.len(), 12);
        assert!(outcome.last.pairs.values().all(|own| own.rank() == 2));
    }
}

#[test]
fn mixed_tasks_take_classes_of_several_adapters_and_no_label_twice() {
    // Both have the same labels.
    let members = vec![
        member("vit-tiny", "same", inversion()),
        Member {
            label: "other".into(),
            ..member("vit-tiny", "same", inversion())
        },
    ];
    let recipe = MetaTrainRecipe {
        share_of_mixed_episodes: 1.0,
        way: 4,
        ..recipe()
    };
    let mut training = start("vit-tiny", members, recipe);
    assert!(training.newest_task().is_empty());
    training.step().unwrap();
    for _ in 0..8 {
        training.step().unwrap();
        let images = training.newest_task();
        let supports: Vec<_> = images.iter().filter(|image| image.is_support).collect();
        assert_eq!((supports.len(), images.len()), (4, 4 * (1 + 3)));
        let classes: BTreeSet<&str> = supports.iter().map(|image| image.class).collect();
        let adapters: BTreeSet<&str> = supports.iter().map(|image| image.adapter).collect();
        assert_eq!((classes.len(), adapters.len()), (4, 2));
    }
}

#[test]
fn a_cached_prefix_gives_what_the_whole_pass_gives() {
    let recipe = MetaTrainRecipe {
        layers: Layers::Last(2),
        sparsity: Sparsity::Share(0.5),
        ..recipe()
    };
    let (reports, cached) = finish(start("dinov2-tiny", members("dinov2-tiny"), recipe.clone()));
    assert_eq!(reports[0].phase, "preparing the images");
    let whole = MetaTrainRecipe {
        layers: Layers::Last(2),
        // Nothing is inverted, but that is known in each step only: every pass begins with pixels.
        inversion_probability: f64::MIN_POSITIVE,
        ..recipe
    };
    let (_, whole) = finish(start("dinov2-tiny", members("dinov2-tiny"), whole));
    for (cached, whole) in cached.loss_curve.iter().zip(&whole.loss_curve) {
        assert!(
            (cached - whole).abs() <= 1e-4 * whole.abs(),
            "{cached} {whole}"
        );
    }
}

#[test]
fn the_start_from_one_adapter_with_scale_one_has_its_effect() {
    let model = "vit-tiny";
    let one = member(model, "one", inversion());
    let recipe = MetaTrainRecipe {
        rank: 4,
        start: Start::Merge { scale: Some(1.0) },
        learning_rate: 1e-30,
        lowest_learning_rate: 0.0,
        ..recipe()
    };
    let (_, outcome) = finish(start(model, vec![one.clone()], recipe));
    for (site, own) in &one.adapter.pairs {
        let (expected, found) = (own.delta(), outcome.last.pairs[site].delta());
        let largest = expected.data().iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in expected.data().iter().zip(found.data()) {
            assert!((a - b).abs() <= 1e-5 * largest, "{site}: {a} {b}");
        }
    }
}

/// The sum of `members`' changes at one site, each times its merge coefficient.
fn sum_of(members: &[Member], coefficients: &[Vec<f32>], site: Site) -> Vec<f32> {
    let mut sum = vec![0f32; 0];
    for (member, coefficients) in members.iter().zip(coefficients) {
        let delta = member.adapter.pairs[&site].delta();
        sum.resize(delta.data().len(), 0.0);
        for (sum, value) in sum.iter_mut().zip(delta.data()) {
            *sum += coefficients[site.layer] * value;
        }
    }
    sum
}

#[test]
fn merge_coefficients_give_the_sum_that_they_name_and_going_on_changes_no_bit() {
    let mut members = members("vit-tiny");
    // Two different adapters, or coefficients could be moved from one to the other.
    for own in members[1].adapter.pairs.values_mut() {
        own.b.data_mut().reverse();
    }
    for objective in OBJECTIVES {
        check_coefficients(&members, objective);
    }
}

const OBJECTIVES: [CoefficientObjective; 2] = [
    CoefficientObjective::Episodes,
    CoefficientObjective::Entropy,
];

fn check_coefficients(members: &[Member], objective: CoefficientObjective) {
    let model = "vit-tiny";
    let (backbone, members) = (backbone(model), members.to_vec());
    let recipe = MetaTrainRecipe {
        rank: 8,
        start: Start::Merge { scale: Some(0.5) },
        merge_coefficients: Some(MergeCoefficientRecipe {
            steps: 5,
            leave_one_out: false,
            objective,
            ..MergeCoefficientRecipe::default()
        }),
        episodes: 0,
        ..recipe()
    };
    let (reports, whole) = finish(start(model, members.clone(), recipe.clone()));
    assert_eq!(reports[0].phase, "learning merge coefficients");
    assert_eq!(whole.merge_coefficients.len(), 2);
    assert!(
        whole
            .merge_coefficients
            .iter()
            .flatten()
            .all(|&own| own != 0.5)
    );
    for (site, own) in &whole.last.pairs {
        let expected = sum_of(&members, &whole.merge_coefficients, *site);
        let found = own.delta();
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in expected.iter().zip(found.data()) {
            assert!((a - b).abs() <= 1e-5 * largest, "{site}: {a} {b}");
        }
    }
    let recipe = MetaTrainRecipe {
        episodes: 3,
        ..recipe
    };
    let (_, whole) = finish(start(model, members.clone(), recipe.clone()));
    let mut training = start(model, members.clone(), recipe.clone());
    while !training.is_done() {
        training.step().unwrap();
        let state = training.state().unwrap();
        // As an earlier version wrote it.
        let names = [
            ("merge_coefficients", "factors"), // old spelling
            ("merge_coefficients_adam", "factors_adam"),
            ("merge_coefficient_steps", "factor_steps"),
        ];
        let then = written_then(&state, &names);
        for stored in [&then, &state] {
            training =
                MetaTraining::resume(&backbone, members.clone(), recipe.clone(), OPTIONS, stored)
                    .unwrap();
            assert_eq!(training.state().unwrap(), state);
        }
    }
    assert_eq!(training.outcome().unwrap(), whole);
}

#[test]
fn a_merge_coefficient_moves_against_the_slope_of_the_loss() {
    let model = "dinov2-tiny";
    let one = member(model, "one", inversion());
    // Adam's first step is as long as the rate, against the sign of the gradient.
    let rate = 1e-3;
    for (seed, objective) in (0..4).flat_map(|seed| OBJECTIVES.map(|own| (seed, own))) {
        let recipe = |scale: f64| MetaTrainRecipe {
            start: Start::Merge { scale: Some(scale) },
            merge_coefficients: Some(MergeCoefficientRecipe {
                steps: 1,
                learning_rate: rate,
                leave_one_out: false,
                objective,
            }),
            layers: Layers::Last(1),
            flip_probability: 0.0,
            episodes: 0,
            seed,
            ..self::recipe()
        };
        let begin = |scale| start(model, vec![one.clone()], recipe(scale));
        let loss = |scale| {
            let mut training = begin(scale);
            loop {
                let report = training.step().unwrap();
                if report.phase == "learning merge coefficients" {
                    return figure(&report, "loss");
                }
            }
        };
        let slope = (loss(0.55) - loss(0.45)) / 0.1;
        let (_, outcome) = finish(begin(0.5));
        let [coefficients] = &outcome.merge_coefficients[..] else {
            panic!("{:?}", outcome.merge_coefficients)
        };
        let (last, frozen) = coefficients.split_last().unwrap();
        assert!(frozen.iter().all(|&own| own == 0.5));
        let moved = f64::from(*last) - 0.5;
        assert!(
            (moved + rate * slope.signum()).abs() < 1e-5,
            "{slope} {moved}"
        );
    }
}

#[test]
fn the_entropy_is_that_of_what_the_adapters_head_predicts_from_features_of_the_sum() {
    let model = "vit-tiny";
    let one = member(model, "one", inversion());
    let pool = one.pool.clone();
    // The sum of one adapter times 1 is that adapter, whose predictions the pool has.
    let recipe = MetaTrainRecipe {
        start: Start::Merge { scale: Some(1.0) },
        merge_coefficients: Some(MergeCoefficientRecipe {
            steps: 1,
            leave_one_out: false,
            objective: CoefficientObjective::Entropy,
            ..MergeCoefficientRecipe::default()
        }),
        share_of_mixed_episodes: 1.0,
        flip_probability: 0.0,
        episodes: 0,
        ..recipe()
    };
    let two = member(
        model,
        "two",
        InversionRecipe {
            seed: 1,
            ..inversion()
        },
    );
    // Tasks of one adapter, although the recipe asks for mixed ones only.
    let mut mixed = start(model, vec![one.clone(), two], recipe.clone());
    mixed.step().unwrap();
    let adapters: BTreeSet<&str> = mixed.newest_task().iter().map(|own| own.adapter).collect();
    assert_eq!(adapters.len(), 1);

    let recipe = MetaTrainRecipe {
        share_of_mixed_episodes: 0.0,
        ..recipe
    };
    let mut training = start(model, vec![one], recipe);
    let report = training.step().unwrap();
    assert_eq!(report.phase, "learning merge coefficients");
    let logits = pool.teacher_logits();
    let task = training.newest_task();
    let length = 3 * 28 * 28;
    let entropies = task.iter().map(|image| {
        let all = pool.images().chunks(length);
        let row = logits.row(all.into_iter().position(|own| own == image.levels).unwrap());
        let sum: f64 = row.iter().map(|z| f64::from(*z).exp()).sum();
        let shares = row.iter().map(|z| f64::from(*z).exp() / sum);
        shares.map(|p| -p * p.ln()).sum::<f64>()
    });
    let expected = entropies.sum::<f64>() / task.len() as f64;
    let found = figure(&report, "entropy");
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn steps_on_the_entropy_make_the_heads_surer() {
    let model = "vit-tiny";
    let recipe = MetaTrainRecipe {
        start: Start::Merge { scale: Some(0.2) },
        merge_coefficients: Some(MergeCoefficientRecipe {
            steps: 30,
            learning_rate: 0.05,
            leave_one_out: false,
            objective: CoefficientObjective::Entropy,
        }),
        episodes: 0,
        ..recipe()
    };
    let (reports, _) = finish(start(model, members(model), recipe));
    let entropies = reports
        .iter()
        .filter(|own| own.phase == "learning merge coefficients");
    let entropies: Vec<f64> = entropies.map(|own| figure(own, "entropy")).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&entropies[..5]), mean(&entropies[25..]));
    assert!(last < first, "{first} {last}");
}

#[test]
fn an_adapter_that_is_left_out_of_its_own_tasks_keeps_its_coefficients_there() {
    let model = "vit-tiny";
    let recipe = MetaTrainRecipe {
        start: Start::Merge { scale: Some(0.5) },
        merge_coefficients: Some(MergeCoefficientRecipe {
            steps: 1,
            ..MergeCoefficientRecipe::default()
        }),
        share_of_mixed_episodes: 0.0,
        episodes: 0,
        ..recipe()
    };
    let mut training = start(model, members(model), recipe);
    training.step().unwrap();
    let teacher = training.newest_task()[0].adapter.to_owned();
    training.step().unwrap();
    let coefficients = training.outcome().unwrap().merge_coefficients;
    let own = usize::from(teacher == "two");
    assert!(coefficients[own].iter().all(|&own| own == 0.5));
    assert!(coefficients[1 - own].iter().all(|&own| own != 0.5));
}

#[test]
fn what_cannot_be_learned_from_is_refused_before_any_work() {
    assert!(refuse(vec![], recipe()).contains("name at least one adapter"));
    let other = member("dinov2-tiny", "other", inversion());
    assert!(refuse(vec![other], recipe()).contains("were made with the backbone"));
    let few = member(
        "vit-tiny",
        "few",
        InversionRecipe {
            images_per_class: 2,
            ..inversion()
        },
    );
    assert!(refuse(vec![few.clone()], recipe()).contains("too few images to hold some out"));
    let mut headless = member("vit-tiny", "headless", inversion());
    headless.adapter.head = None;
    let entropy = MetaTrainRecipe {
        start: Start::Merge { scale: None },
        merge_coefficients: Some(MergeCoefficientRecipe {
            objective: CoefficientObjective::Entropy,
            leave_one_out: false,
            ..MergeCoefficientRecipe::default()
        }),
        ..recipe()
    };
    let refused = refuse(vec![headless], entropy);
    assert!(refused.starts_with("headless has no head"), "{refused}");
    let mixed = MetaTrainRecipe {
        share_of_mixed_episodes: 1.0,
        held_out: 0.0,
        keep: Keep::Last,
        ..recipe()
    };
    assert!(refuse(vec![few], mixed).contains("no two pools go together"));
    let mut wide = member("vit-tiny", "wide", inversion());
    let pair = wide.adapter.pairs.values_mut().next().unwrap();
    pair.a = Tensor::zeros([4, 8]);
    assert!(refuse(vec![wide], recipe()).contains("does not fit the backbone"));
    let nothing = MetaTrainRecipe {
        score_scale: f64::NAN,
        ..recipe()
    };
    let one = member("vit-tiny", "one", inversion());
    assert!(refuse(vec![one], nothing).contains("score_scale is NaN"));
}
