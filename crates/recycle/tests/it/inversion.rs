//! Inversion on tiny backbones: what it reaches, and that an interruption changes no bit.

use engine::distance::Distance;
use engine::loss::{LeaveOneOut, Scoring, TokenStatisticsCollector, cross_entropy};
use engine::resnet::ResNet;
use engine::session::{Input, Pruning, Session, Wanted};
use model::adapter::Adapter;
use model::tensor::Tensor;
use recycle::head_pass::HeadPass;
use recycle::inversion::{
    HardInversion, ImageAugmentation, Inversion, InversionEarlyStop, InversionOutcome,
    InversionRecipe, PriorData, PriorWeights,
};
use recycle::steps::{StepReport, Steps};
use recycle::token_statistics::add_pictures;
use std::collections::BTreeMap;
use test_support::fixtures::{MODELS, backbone};
use test_support::pools::{OPTIONS, finish, invert, quick, teacher};

fn start(model: &str, recipe: InversionRecipe) -> Inversion {
    let data = PriorData::default();
    Inversion::new(&backbone(model), teacher(model), data, recipe, OPTIONS).unwrap()
}

fn figure(report: &StepReport, name: &str) -> Option<f64> {
    let found = report.figures.iter().find(|(own, _)| *own == name);
    found.map(|(_, value)| *value)
}

/// The stored images, normalised.
fn pixels(model: &str, outcome: &InversionOutcome) -> Tensor {
    let table = backbone(model).preprocess.normalised_levels();
    let side = outcome.image_size;
    let plane = side * side;
    let values = outcome.images.iter().enumerate();
    let values = values.map(|(i, &level)| table[i / plane % 3][usize::from(level)]);
    Tensor::new([outcome.labels.len(), 3, side, side], values.collect()).unwrap()
}

#[test]
fn the_teacher_recognises_the_images_that_inversion_makes() {
    for model in MODELS {
        // Pixels that are moved and mirrored under these random weights settle slowly, so that half of the published steps may
        // leave one image of a class out.
        let published = InversionRecipe {
            steps: 1000,
            images_per_class: 2,
            priors: PriorWeights::default(),
            ..InversionRecipe::paper()
        };
        for (recipe, recognised) in [(quick(), 1.0), (published, 0.8)] {
            let (reports, outcome) = invert(model, recipe);
            let first = figure(&reports[0], "cross_entropy").unwrap();
            let quality = &outcome.quality;
            println!("{model}: {first} to {quality:?}");
            assert!(quality.teacher_accuracy >= recognised, "{model}");
            assert!(quality.teacher_cross_entropy < 0.5 * first, "{model}");
            assert_eq!(outcome.labels, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
            assert!(
                quality
                    .classes
                    .iter()
                    .all(|own| own.images == 2 && own.teacher_confidence > 0.3)
            );
            assert!(figure(&reports[0], "bare_cross_entropy").is_none());
        }
    }
}

#[test]
fn hard_inversion_raises_the_bare_backbones_cross_entropy() {
    let soft = InversionRecipe {
        images_per_class: 3,
        ..quick()
    };
    let hard = InversionRecipe {
        hard: Some(HardInversion::default()),
        ..soft.clone()
    };
    let (_, soft) = invert("dinov2-tiny", soft);
    let (reports, hard) = invert("dinov2-tiny", hard);
    let (soft, hard) = (soft.quality, hard.quality);
    println!("{soft:?}\n{hard:?}");
    assert_eq!(hard.teacher_accuracy, 1.0);
    assert!(hard.bare_cross_entropy.unwrap() > soft.bare_cross_entropy.unwrap() + 0.1);
    for report in reports.iter().filter(|report| report.phase == "inverting") {
        let [total, loss, prior, bare] = ["total", "cross_entropy", "prior", "bare_cross_entropy"]
            .map(|name| figure(report, name).unwrap());
        assert!((total - (loss + prior - bare.min(2.0))).abs() < 1e-9);
    }
}

/// How badly features with `adapter` tell the classes of these images apart.
fn leave_one_out(model: &str, outcome: &InversionOutcome, adapter: Option<&Adapter>) -> f32 {
    let mut session = Session::new(&backbone(model), OPTIONS).unwrap();
    let pixels = pixels(model, outcome);
    let input = Input {
        adapter,
        ..Input::pixels(&pixels)
    };
    let output = session.forward(&input, Wanted::default()).unwrap();
    let scoring = Scoring {
        distance: Distance::SquaredEuclidean,
        temperature: 0.05,
        unit_features: true,
    };
    let labels: Vec<usize> = outcome.labels.iter().map(|&own| own as usize).collect();
    let widths = [outcome.classes.len(), output.features.shape()[1]];
    LeaveOneOut::new(scoring)
        .loss(output.features.data(), &labels, widths, None, None)
        .unwrap()
}

#[test]
fn images_against_an_adapter_are_hard_for_it_in_place_of_the_bare_backbone() {
    let model = "dinov2-tiny";
    let recipe = InversionRecipe {
        images_per_class: 3,
        // So high that it is not reached: what is hard keeps becoming harder.
        hard: Some(HardInversion {
            cap: 100.0,
            ..HardInversion::default()
        }),
        ..quick()
    };
    let mut opponent = teacher(model);
    let pairs = opponent.pairs.values_mut();
    pairs.for_each(|pair| pair.scale *= -3.0);
    let (_, against_bare) = invert(model, recipe.clone());
    let (_, against_it) = finish(
        start(model, recipe)
            .with_opponent(&backbone(model), opponent.clone())
            .unwrap(),
    );
    opponent.head = None;
    let losses = [&against_bare, &against_it].map(|outcome| {
        let opponent = leave_one_out(model, outcome, Some(&opponent));
        [leave_one_out(model, outcome, None), opponent]
    });
    println!("against the bare backbone, against the adapter: {losses:?}");
    let [[bare, other], [easy_bare, hard_other]] = losses;
    assert!(hard_other > other + 0.1 && easy_bare < bare - 0.1);
}

#[test]
fn going_on_after_any_step_gives_the_same_bits() {
    let recipes = [
        InversionRecipe {
            steps: 5,
            images_per_class: 4,
            images_per_class_at_once: Some(2),
            hard: Some(HardInversion::default()),
            pruning: BTreeMap::from([(1, 0.5)]),
            judge_every: Some(2),
            ..quick()
        },
        InversionRecipe {
            steps: 4,
            images_per_class: 2,
            priors: PriorWeights {
                total_variation: 0.5,
                l2: 0.1,
                ..PriorWeights::default()
            },
            keep_ratio: Some(0.5),
            ..InversionRecipe::paper()
        },
    ];
    for recipe in recipes {
        let (reports, whole) = invert("vit-tiny", recipe.clone());
        let mut inversion = start("vit-tiny", recipe.clone());
        for (index, expected) in reports.iter().enumerate() {
            assert_eq!(&inversion.step().unwrap(), expected);
            let state = inversion.state().unwrap();
            if inversion.is_done() {
                break;
            }
            inversion = Inversion::resume(
                &backbone("vit-tiny"),
                teacher("vit-tiny"),
                PriorData::default(),
                recipe.clone(),
                OPTIONS,
                &state,
            )
            .unwrap();
            assert_eq!(inversion.state().unwrap(), state, "after step {index}");
        }
        assert_eq!(inversion.outcome().unwrap().unwrap(), whole);
    }
}

#[test]
fn a_state_of_another_recipe_is_refused() {
    let mut inversion = start("vit-tiny", quick());
    inversion.step().unwrap();
    let state = inversion.state().unwrap();
    let resume = |recipe: InversionRecipe, state: &[u8]| {
        let data = PriorData::default();
        let (backbone, teacher) = (backbone("vit-tiny"), teacher("vit-tiny"));
        let resumed = Inversion::resume(&backbone, teacher, data, recipe, OPTIONS, state);
        resumed.err().unwrap().to_string()
    };
    let more = InversionRecipe {
        images_per_class: 3,
        ..quick()
    };
    assert!(resume(more, &state).contains("start it again"));
    assert!(resume(quick(), &state[..state.len() - 9]).contains("start it again"));
    assert!(resume(quick(), b"").contains("start it again"));
}

#[test]
fn pruning_that_removes_nothing_equals_dense_inversion_bit_for_bit() {
    // int(16·0.06) = 0
    let pruned = InversionRecipe {
        steps: 6,
        pruning: BTreeMap::from([(1, 0.06), (3, 0.0)]),
        pruning_start: 0.0,
        ..quick()
    };
    let dense = InversionRecipe {
        pruning: BTreeMap::new(),
        ..pruned.clone()
    };
    let (pruned_reports, pruned) = invert("clip-tiny", pruned);
    let (dense_reports, dense) = invert("clip-tiny", dense);
    assert_eq!(pruned_reports, dense_reports);
    assert_eq!(pruned, dense);
}

#[test]
fn pruning_changes_nothing_before_its_start() {
    let dense = InversionRecipe {
        steps: 8,
        ..quick()
    };
    let pruned = InversionRecipe {
        pruning: BTreeMap::from([(1, 0.5)]),
        ..dense.clone()
    };
    let (dense, _) = invert("dinov2-tiny", dense);
    let (pruned, _) = invert("dinov2-tiny", pruned);
    assert_eq!(dense[..2], pruned[..2]);
    assert_ne!(dense[2], pruned[2]);
}

#[test]
fn the_result_is_the_best_judged_state_even_when_later_steps_ruin_the_images() {
    // What a step improves on moved images, it may make worse on those that are judged: the loss rises and falls.
    let recipe = InversionRecipe {
        steps: 30,
        learning_rate: 1.0,
        judge_every: Some(1),
        images_per_class: 1,
        priors: PriorWeights::default(),
        ..InversionRecipe::paper()
    };
    let mut inversion = start("vit-tiny", recipe);
    let mut best: Option<(f64, f64, Vec<u8>)> = None;
    let mut best_step = 0;
    let mut images_after_best_changed = false;
    for step in 0..30 {
        let report = inversion.step().unwrap();
        let accuracy = figure(&report, "judged_accuracy").unwrap();
        let total = figure(&report, "judged_total").unwrap();
        // After the last step the images are no longer under way.
        let images = inversion.current_images().unwrap().0;
        let better = best.as_ref().is_none_or(|(own, lowest, _)| {
            accuracy > *own || (accuracy == *own && total < *lowest)
        });
        if better {
            best = Some((accuracy, total, images));
            best_step = step;
        } else if step < 29 {
            images_after_best_changed |= best.as_ref().is_some_and(|best| best.2 != images);
        }
    }
    let (_, total, images) = best.unwrap();
    assert!(
        best_step < 29,
        "the last step is the best: the test shows nothing"
    );
    assert!(images_after_best_changed);
    while !inversion.is_done() {
        inversion.step().unwrap();
    }
    let outcome = inversion.outcome().unwrap().unwrap();
    assert_eq!(outcome.images, images);
    assert!((outcome.quality.teacher_cross_entropy - total).abs() < 1e-5);
}

#[test]
fn what_is_stored_with_the_images_equals_a_clean_pass_over_them() {
    let pruning = [
        Pruning {
            layer: 1,
            ratio: 0.5,
        },
        Pruning {
            layer: 2,
            ratio: 0.25,
        },
    ];
    let recipe = InversionRecipe {
        steps: 6,
        pruning: pruning.iter().map(|own| (own.layer, own.ratio)).collect(),
        ..quick()
    };
    let (_, outcome) = invert("dinov2-tiny", recipe);
    let images = pixels("dinov2-tiny", &outcome);
    let teacher = teacher("dinov2-tiny");
    let head = teacher.head.as_ref().unwrap();
    let mut session = Session::new(&backbone("dinov2-tiny"), OPTIONS).unwrap();
    let input = Input {
        adapter: Some(&teacher),
        pruning: &pruning,
        read: head.input,
        ..Input::pixels(&images)
    };
    let wanted = Wanted {
        kept_tokens: true,
        ..Wanted::default()
    };
    let output = session.forward(&input, wanted).unwrap();
    assert_eq!(outcome.kept_tokens, *output.kept_tokens.as_ref().unwrap());
    // 16 patches, 8 after layer 1, 6 after layer 2.
    assert_eq!(outcome.kept_tokens.len(), 10 * 7);
    let dense = Input {
        pruning: &[],
        ..input
    };
    let features = session
        .forward(&dense, Wanted::default())
        .unwrap()
        .features
        .clone();
    let labels = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4];
    let head = HeadPass::of(teacher.head.as_ref().unwrap());
    let logits = head.logits(features.data()).unwrap();
    let loss = cross_entropy(&logits, &labels, 5, None).unwrap();
    assert_eq!(outcome.teacher_logits.data(), logits);
    assert_eq!(outcome.quality.teacher_cross_entropy, f64::from(loss));
}

#[test]
fn a_keep_ratio_notes_the_patches_that_the_last_layer_attends_to() {
    let recipe = InversionRecipe {
        steps: 3,
        keep_ratio: Some(0.25),
        ..quick()
    };
    let (_, outcome) = invert("vit-tiny", recipe);
    let images = pixels("vit-tiny", &outcome);
    let teacher = teacher("vit-tiny");
    let mut session = Session::new(&backbone("vit-tiny"), OPTIONS).unwrap();
    let input = Input {
        adapter: Some(&teacher),
        ..Input::pixels(&images)
    };
    let wanted = Wanted {
        class_attention: true,
        ..Wanted::default()
    };
    let output = session.forward(&input, wanted).unwrap();
    let attention = output.class_attention.as_ref().unwrap();
    assert_eq!(outcome.kept_tokens.len(), 10 * 5);
    for (image, kept) in outcome.kept_tokens.chunks(5).enumerate() {
        let row = attention.row(image);
        assert_eq!(kept[0], 0);
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..16).partition(|&patch| kept.contains(&(patch as u32 + 1)));
        let least = inside
            .iter()
            .map(|&patch| row[patch])
            .fold(f32::MAX, f32::min);
        assert!(outside.iter().all(|&patch| row[patch] <= least));
    }
}

#[test]
fn some_classes_of_the_head_can_be_inverted_alone() {
    let recipe = InversionRecipe {
        classes: Some(vec!["dog".into(), "bee".into()]),
        images_per_class: 3,
        ..quick()
    };
    let (_, outcome) = invert("dinov2-tiny", recipe);
    assert_eq!(outcome.classes, ["dog", "bee"]);
    assert_eq!(outcome.labels, [0, 1, 0, 1, 0, 1]);
    assert_eq!(outcome.teacher_logits.shape(), [6, 2]);
    assert_eq!(outcome.quality.teacher_accuracy, 1.0);
    let first = outcome.teacher_logits.row(0);
    assert!(first[0] > first[1]);
}

#[test]
fn settled_inversion_stops_early_and_says_so() {
    let recipe = InversionRecipe {
        steps: 2000,
        judge_every: Some(5),
        early_stop: Some(InversionEarlyStop {
            patience: 2,
            least_gain: 0.2,
        }),
        ..quick()
    };
    let (reports, outcome) = invert("clip-tiny", recipe);
    assert!(outcome.stopped_early);
    assert!(outcome.steps_done < 1000 && outcome.steps_done.is_multiple_of(5));
    assert_eq!(reports.len() as u64, outcome.steps_done + 1);
}

#[test]
fn priors_pull_the_images_and_need_their_data() {
    let model = "dinov2-tiny";
    let backbone = backbone(model);
    let mut session = Session::new(&backbone, OPTIONS).unwrap();
    let mut collector = TokenStatisticsCollector::default();
    let reference = test_support::reference::Reference::golden("vit-tiny");
    add_pictures(
        &mut session,
        &reference.tensor("pixel_values"),
        &mut collector,
    )
    .unwrap();
    let statistics = collector.finish(&backbone.digest);
    let resnet = || {
        let file = test_support::project("tests/golden/resnet-tiny/model.safetensors");
        ResNet::read(&std::fs::read(file).unwrap()).unwrap()
    };
    let weights = PriorWeights {
        token_statistics: 1.0,
        batch_norm: 1.0,
        total_variation: 1.0,
        l2: 1.0,
        ..PriorWeights::default()
    };
    let recipe = InversionRecipe {
        steps: 12,
        augmentation: ImageAugmentation::None,
        prior_weight: 1.0,
        priors: weights,
        ..quick()
    };
    let data = PriorData {
        batch_norm: Some(resnet()),
        token_statistics: Some(statistics.clone()),
    };
    let inversion =
        Inversion::new(&backbone, teacher(model), data, recipe.clone(), OPTIONS).unwrap();
    let (reports, _) = finish(inversion);
    let prior = |report: &StepReport| figure(report, "prior").unwrap();
    assert!(
        prior(&reports[11]) < 0.95 * prior(&reports[0]),
        "{} {}",
        prior(&reports[0]),
        prior(&reports[11])
    );

    let refuse = |data: PriorData| {
        let refused = Inversion::new(&backbone, teacher(model), data, recipe.clone(), OPTIONS);
        refused.err().unwrap().to_string()
    };
    let error = refuse(PriorData::default());
    assert!(
        error.contains("no ResNet") && error.contains("prior build DIR"),
        "{error}"
    );
    let mut other = statistics;
    other.backbone_digest = "another".into();
    let error = refuse(PriorData {
        batch_norm: Some(resnet()),
        token_statistics: Some(other),
    });
    assert!(error.contains("another backbone"), "{error}");
}

#[test]
fn token_statistics_of_the_images_themselves_make_the_prior_vanish() {
    let model = "vit-tiny";
    let backbone = backbone(model);
    let mut session = Session::new(&backbone, OPTIONS).unwrap();
    let bare = Adapter {
        pairs: BTreeMap::new(),
        head: teacher(model).head,
    };
    let recipe = InversionRecipe {
        steps: 1,
        augmentation: ImageAugmentation::None,
        prior_weight: 1.0,
        priors: PriorWeights {
            token_statistics: 1.0,
            ..PriorWeights::default()
        },
        ..quick()
    };
    let plain = InversionRecipe {
        priors: PriorWeights::default(),
        ..recipe.clone()
    };
    let start =
        |recipe, data| Inversion::new(&backbone, bare.clone(), data, recipe, OPTIONS).unwrap();
    let images = start(plain, PriorData::default()).current_pixels().unwrap();
    let mut collector = TokenStatisticsCollector::default();
    add_pictures(&mut session, &images, &mut collector).unwrap();
    let data = PriorData {
        token_statistics: Some(collector.finish(&backbone.digest)),
        ..PriorData::default()
    };
    let report = start(recipe, data).step().unwrap();
    // Eight sites, stored as f32.
    assert!(figure(&report, "prior").unwrap() < 1e-4, "{report:?}");
}

#[test]
fn live_images_are_valid_levels_with_their_classes() {
    let recipe = InversionRecipe {
        images_per_class: 4,
        images_per_class_at_once: Some(2),
        steps: 2,
        ..quick()
    };
    let mut inversion = start("vit-tiny", recipe);
    let mut counts = Vec::new();
    while !inversion.is_done() {
        let (images, labels) = inversion.current_images().unwrap();
        assert_eq!(images.len(), labels.len() * 3 * 28 * 28);
        counts.push(labels.len());
        inversion.step().unwrap();
    }
    // Two parts of ten images and two steps, then one look at all.
    assert_eq!(counts, [10, 10, 20, 20, 20]);
}
