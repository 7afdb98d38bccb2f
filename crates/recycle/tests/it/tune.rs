//! Tuning on tiny backbones: what it learns, and that an interruption changes no bit.

use crate::old_state::written_then;
use engine::loss::linear_head;
use engine::session::{Device, Input, Session, SessionOptions, Wanted};
use model::adapter::Target;
use recycle::labelled_images::LabelledImages;
use recycle::layers::Layers;
use recycle::steps::Steps;
use recycle::tune::{TuneEarlyStop, TuneError, TuneOutcome, TuneRecipe, Tuning};
use test_support::fixtures::{MODELS, backbone};

const OPTIONS: SessionOptions = SessionOptions {
    threads: 2,
    images_per_micro_batch: 3,
    device: Device::Cpu,
};

/// Squares of one colour per class on a speckled ground, at places that change.
pub fn coloured_squares(per_class: usize) -> LabelledImages {
    const SIDE: usize = 28;
    let colours = [[230, 30, 30], [30, 200, 40], [40, 60, 240]];
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for index in 0..3 * per_class {
        let colour = colours[index % 3];
        let (top, left) = (index * 5 % 13, index * 7 % 11);
        for (channel, &level) in colour.iter().enumerate() {
            for pixel in 0..SIDE * SIDE {
                let (row, column) = (pixel / SIDE, pixel % SIDE);
                let inside = (top..top + 14).contains(&row) && (left..left + 14).contains(&column);
                let speckle = ((pixel * 31 + index * 17 + channel * 7) % 97) as u8;
                images.push(if inside { level } else { 80 + speckle });
            }
        }
        labels.push((index % 3) as u32);
    }
    let classes = ["red", "green", "blue"].map(str::to_owned);
    LabelledImages::new(classes.to_vec(), SIDE, images, labels).unwrap()
}

pub fn recipe() -> TuneRecipe {
    TuneRecipe {
        steps: Some(40),
        batch_size: 16,
        held_out: 0.25,
        seed: 5,
        ..TuneRecipe::default()
    }
}

fn run(mut tuning: Tuning) -> TuneOutcome {
    while !tuning.is_done() {
        tuning.step().unwrap();
    }
    tuning.outcome().unwrap()
}

fn tune(model: &str, recipe: TuneRecipe) -> TuneOutcome {
    let images = coloured_squares(8);
    run(Tuning::new(&backbone(model), images, recipe, OPTIONS).unwrap())
}

#[test]
fn coloured_squares_are_told_apart_on_every_backbone() {
    for model in MODELS {
        let outcome = tune(model, recipe());
        let held_out = outcome.held_out.unwrap();
        println!("{model}: {:?} {held_out:?}", outcome.training);
        assert_eq!((held_out.pictures, held_out.accuracy), (6, 1.0), "{model}");
        assert_eq!(outcome.training.accuracy, 1.0, "{model}");
        assert_eq!(outcome.loss_curve.len(), 40);
        // The head starts at zero: three classes, nothing known.
        assert!((outcome.loss_curve[0] - 3f64.ln()).abs() < 1e-6);
        assert!(outcome.loss_curve[39] < 0.3, "{:?}", outcome.loss_curve);
    }
}

#[test]
fn the_finished_adapter_and_its_plain_head_give_the_reported_accuracy() {
    let backbone = backbone("dinov2-tiny");
    let outcome = tune("dinov2-tiny", recipe());
    let adapter = &outcome.adapter;
    assert_eq!(adapter.pairs.len(), 8);
    assert!(
        adapter
            .pairs
            .values()
            .all(|own| own.rank() == 4 && own.scale == 1.0)
    );
    assert!(
        adapter
            .pairs
            .values()
            .all(|own| own.b.data().iter().any(|&value| value != 0.0))
    );
    let head = adapter.head.as_ref().unwrap();
    assert_eq!(head.labels, ["red", "green", "blue"]);
    // What any reader of the adapter computes: weight·feature + bias.
    let images = coloured_squares(8);
    let all: Vec<usize> = (0..images.len()).collect();
    let pixels = images.pixels(&all, &[], &backbone.preprocess.normalised_levels());
    let mut session = Session::new(&backbone, OPTIONS).unwrap();
    let input = Input {
        adapter: Some(adapter),
        read: head.input,
        ..Input::pixels(&pixels)
    };
    let output = session.forward(&input, Wanted::default()).unwrap();
    let bias = head.bias.as_ref().map(|bias| bias.data());
    let mut logits = vec![0.0; 3 * all.len()];
    let width = head.weight.shape()[1];
    linear_head(
        output.features.data(),
        width,
        head.weight.data(),
        bias,
        &mut logits,
    )
    .unwrap();
    for (row, &label) in logits.chunks(3).zip(images.labels()) {
        let largest = (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(largest as u32, label);
    }
}

#[test]
fn going_on_after_any_step_gives_the_same_bits() {
    let backbone = backbone("vit-tiny");
    let recipe = TuneRecipe {
        steps: Some(7),
        early_stop: Some(TuneEarlyStop {
            check_every: 2,
            patience: 50,
        }),
        ..recipe()
    };
    let whole = tune("vit-tiny", recipe.clone());
    let mut tuning = Tuning::new(&backbone, coloured_squares(8), recipe.clone(), OPTIONS).unwrap();
    let mut steps = 0;
    while !tuning.is_done() {
        let report = tuning.step().unwrap();
        assert!(report.step <= report.total);
        let state = tuning.state().unwrap();
        // The next step is another process's.
        tuning = Tuning::resume(
            &backbone,
            coloured_squares(8),
            recipe.clone(),
            OPTIONS,
            &state,
        )
        .unwrap();
        assert_eq!(tuning.state().unwrap(), state);
        steps += 1;
    }
    // 18 training and 6 held-out pictures fit into one look each.
    assert_eq!(steps, 9);
    assert_eq!(tuning.outcome().unwrap(), whole);
}

#[test]
fn a_state_that_an_earlier_version_wrote_goes_on_as_it_would_have_there() {
    let backbone = backbone("vit-tiny");
    let recipe = TuneRecipe {
        early_stop: Some(TuneEarlyStop {
            check_every: 2,
            patience: 50,
        }),
        ..recipe()
    };
    let mut tuning = Tuning::new(&backbone, coloured_squares(8), recipe.clone(), OPTIONS).unwrap();
    for _ in 0..3 {
        tuning.step().unwrap();
    }
    let state = tuning.state().unwrap();
    let names = [
        ("pairs", "factors"), // old spelling
        ("pairs_adam", "factors_adam"),
        ("best_pairs", "best_factors"),
    ];
    let then = written_then(&state, &names);
    let mut resumed =
        Tuning::resume(&backbone, coloured_squares(8), recipe, OPTIONS, &then).unwrap();
    assert_eq!(resumed.state().unwrap(), state);
}

#[test]
fn a_state_of_other_pictures_or_another_recipe_is_refused() {
    let backbone = backbone("vit-tiny");
    let mut tuning = Tuning::new(&backbone, coloured_squares(8), recipe(), OPTIONS).unwrap();
    tuning.step().unwrap();
    let state = tuning.state().unwrap();
    let resume = |images: LabelledImages, recipe: TuneRecipe, state: &[u8]| {
        let resumed = Tuning::resume(&backbone, images, recipe, OPTIONS, state);
        resumed.err().unwrap().to_string()
    };
    let other = TuneRecipe {
        rank: 2,
        ..recipe()
    };
    assert!(resume(coloured_squares(8), other, &state).contains("start it again"));
    let two_classes = coloured_squares(8).subset(&[0, 1]).unwrap();
    assert!(resume(two_classes, recipe(), &state).contains("start it again"));
    let cut = &state[..state.len() / 2];
    assert!(resume(coloured_squares(8), recipe(), cut).contains("start it again"));
}

#[test]
fn only_the_chosen_layers_and_maps_are_adapted() {
    let outcome = tune(
        "clip-tiny",
        TuneRecipe {
            layers: Layers::Last(1),
            targets: vec![Target::Value, Target::MlpOut],
            alpha: Some(8.0),
            steps: Some(2),
            ..recipe()
        },
    );
    let sites: Vec<String> = outcome
        .adapter
        .pairs
        .keys()
        .map(|site| site.to_string())
        .collect();
    assert_eq!(sites, ["value of layer 3", "mlp_out of layer 3"]);
    assert!(outcome.adapter.pairs.values().all(|own| own.scale == 2.0));
}

#[test]
fn tuning_stops_early_with_the_best_state_it_saw() {
    let recipe = TuneRecipe {
        steps: Some(500),
        // Far too large: the loss on held-out pictures soon jumps about.
        learning_rate: 0.3,
        head_learning_rate: 1.0,
        early_stop: Some(TuneEarlyStop {
            check_every: 1,
            patience: 3,
        }),
        ..recipe()
    };
    let mut tuning =
        Tuning::new(&backbone("vit-tiny"), coloured_squares(8), recipe, OPTIONS).unwrap();
    let mut looks = Vec::new();
    while !tuning.is_done() {
        let report = tuning.step().unwrap();
        let look = report
            .figures
            .iter()
            .find(|(name, _)| *name == "held_out_cross_entropy");
        looks.extend(look.map(|(_, value)| *value));
    }
    let outcome = tuning.outcome().unwrap();
    assert!(outcome.stopped_early);
    assert_eq!(outcome.loss_curve.len(), looks.len());
    let lowest = looks.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(looks[looks.len() - 4], lowest, "{looks:?}");
    let found = outcome.held_out.unwrap().cross_entropy;
    assert!((found - lowest).abs() < 1e-9, "{found} {lowest}");
}

#[test]
fn pictures_that_do_not_fit_the_patches_are_refused() {
    let images = LabelledImages::new(
        vec!["a".into(), "b".into()],
        30,
        vec![0; 2 * 2700],
        vec![0, 1],
    )
    .unwrap();
    let error = Tuning::new(&backbone("vit-tiny"), images.clone(), recipe(), OPTIONS).err();
    assert_eq!(
        error,
        Some(TuneError::ImageSize {
            found: 30,
            patch: 7
        })
    );
    let recipe = TuneRecipe {
        early_stop: Some(TuneEarlyStop::default()),
        ..recipe()
    };
    let single = LabelledImages::new(
        vec!["a".into(), "b".into()],
        28,
        vec![0; 2 * 2352],
        vec![0, 1],
    )
    .unwrap();
    let error = Tuning::new(&backbone("vit-tiny"), single, recipe, OPTIONS).err();
    assert_eq!(error, Some(TuneError::NothingHeldOut));
}
