//! `scripts/roofline` counts on paper what a pass asks of a device. Here is what the passes really ask.

use crate::session::{images, on};
use engine::augment::RollFlip;
use engine::image_parameters::Parametrisation;
use engine::images::{Change, ImageBatchOptions, PriorWeights};
use engine::optimise::AdamSettings;
use engine::session::{Entry, Input, Pruning, Session, SessionOptions, View, ViewLoss, Wanted};
use engine::vit::{Differentiate, NormInputGradients};
use model::adapter::HeadInput;
use serde_json::{Value, json};
use std::ops::Range;
use std::process::Command;
use test_support::emulated_device::{Counts, Emulator};
use test_support::fixtures::{adapter, backbone};
use test_support::project;

const IMAGES: usize = 3;
/// Of which the images are some.
const PICTURES: usize = 5;

/// A pass as the script and as the engine are told about it.
struct Case {
    told: Value,
    differentiate: Differentiate,
    with_adapter: bool,
    tokens: Option<&'static [u32]>,
    pruning: &'static [Pruning],
    wanted: Wanted,
    /// Whether the images are pictures that stay on the device.
    stay: bool,
}

/// What the script counts for a pass of vit-tiny.
fn on_paper(told: &Value) -> Value {
    let mut told = told.clone();
    told["images"] = IMAGES.into();
    told["model"] =
        json!({"width": 32, "layers": 4, "heads": 4, "mlp_width": 64, "patch_size": 7, "side": 28});
    let ran = Command::new("python3")
        .arg(project("scripts/roofline"))
        .args(["--pass", &told.to_string()])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn difference(from: Counts, to: Counts) -> Value {
    json!({
        "launches": to.launches - from.launches,
        "products": to.products - from.products,
        "fills": to.fills - from.fills,
        "copies_to_device": to.copies_to_device - from.copies_to_device,
        "copies_to_host": to.copies_to_host - from.copies_to_host,
    })
}

/// Forward and, where anything is differentiated, backward.
fn run(session: &mut Session, input: &Input<'_>, case: &Case, between: impl FnOnce()) {
    if case.differentiate == Differentiate::default() {
        session.forward(input, case.wanted).unwrap();
        return between();
    }
    let output = session.forward_for(input, case.wanted, case.differentiate);
    let dfeatures = vec![1.0; output.unwrap().features.data().len()];
    between();
    let config = session.config();
    let line = vec![0.01; 2 * config.layers * config.width];
    let norm_inputs = case.wanted.norm_input_sums.then_some(NormInputGradients {
        offset: &line,
        slope: &line,
    });
    session.backward(&dfeatures, norm_inputs).unwrap();
}

#[test]
fn a_step_of_inversion_asks_for_what_the_script_counts_with_an_adapter_and_without_a_bare_backbone()
{
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let (backbone, adapter) = (backbone("vit-tiny"), adapter("vit-tiny"));
    let pixels = images("vit-tiny", IMAGES);
    let options = ImageBatchOptions {
        parametrisation: Parametrisation::Pixels,
        shape: [IMAGES, 3, 28, 28],
        normalisation: ([0.5; 3], [0.5; 3]),
        adam: AdamSettings::default(),
        priors: PriorWeights {
            total_variation: 0.1,
            ..PriorWeights::default()
        },
    };
    // Half the square of the features, whose slope they are.
    let half_square = |_: Range<usize>, features: &[f32], dfeatures: &mut [f32]| {
        dfeatures.copy_from_slice(features);
        Ok(features.iter().map(|&f| f64::from(f * f)).sum::<f64>() / 2.0)
    };
    for bare in [false, true] {
        let mut session = on(emulator.cuda(), &backbone, SessionOptions::default());
        session.hold(&backbone, &adapter).unwrap();
        session.start_images(options, pixels.data()).unwrap();
        let view = |held| View {
            held,
            pruning: &[],
            read: HeadInput::Feature,
            norm_input_sums: false,
            loss: ViewLoss::Separate(&half_square),
        };
        let mut step = || {
            let mut views = vec![view(Some(0))];
            views.extend(bare.then(|| view(None)));
            let change = Change::RollFlip(RollFlip::default());
            session.step_images(&change, &mut views, 0.1).unwrap();
        };
        step();
        let start = emulator.counts();
        step();
        let found = difference(start, emulator.counts());
        let expected = on_paper(&json!({"inversion": {"bare": bare}}));
        assert_eq!(found, expected, "bare: {bare}");
        // Places of copies to the host are laid out, the same work is seen again, and captured; from then on it is two graphs.
        step();
        step();
        let start = emulator.counts();
        step();
        let end = emulator.counts();
        let found = json!({"graph_launches": end.graph_launches - start.graph_launches, "launches": end.launches - start.launches});
        assert_eq!(found, json!({"graph_launches": 2, "launches": 0}));
        assert_eq!(
            json!(end.kernels_run - start.kernels_run),
            expected["launches"]
        );
        assert_eq!(json!(end.products - start.products), expected["products"]);
    }
}

#[test]
fn launches_products_fills_copies_and_memory_of_a_pass_are_those_that_the_script_counts() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let cuda = emulator.cuda();
    let (backbone, adapter) = (backbone("vit-tiny"), adapter("vit-tiny"));
    let pixels = images("vit-tiny", IMAGES);
    let differentiate = |pixels, pairs| Differentiate { pixels, pairs };
    const TOKENS: &[u32] = &[0, 1, 3, 4, 8, 0, 2, 5, 6, 7, 0, 1, 2, 9, 15];
    const PRUNING: &[Pruning] = &[
        Pruning {
            layer: 1,
            ratio: 0.5,
        },
        Pruning {
            layer: 3,
            ratio: 0.25,
        },
    ];
    let plain = Case {
        told: json!({}),
        differentiate: Differentiate::default(),
        with_adapter: false,
        tokens: None,
        pruning: &[],
        wanted: Wanted::default(),
        stay: false,
    };
    let ranks = json!({"query": 4, "value": 4});
    let cases = [
        Case {
            told: json!({"pixels": true}),
            differentiate: differentiate(true, false),
            ..plain
        },
        Case {
            told: json!({"pixels": true, "ranks": ranks, "pruning": {"1": 0.5, "3": 0.25}}),
            differentiate: differentiate(true, false),
            with_adapter: true,
            pruning: PRUNING,
            ..plain
        },
        Case {
            told: json!({"pairs": true, "ranks": ranks, "kept": 4}),
            differentiate: differentiate(false, true),
            with_adapter: true,
            tokens: Some(TOKENS),
            ..plain
        },
        Case {
            told: json!({"pairs": true, "ranks": ranks, "pool": PICTURES}),
            differentiate: differentiate(false, true),
            with_adapter: true,
            stay: true,
            ..plain
        },
        Case {
            told: json!({
                "pixels": true, "pairs": true, "ranks": ranks, "norm_inputs": true,
                "wanted": ["class_attention", "last_hidden_state", "kept_tokens", "norm_input_sums"],
            }),
            differentiate: differentiate(true, true),
            with_adapter: true,
            wanted: Wanted {
                class_attention: true,
                last_hidden_state: true,
                kept_tokens: true,
                norm_input_sums: true,
            },
            ..plain
        },
        plain,
    ];
    for case in cases {
        let expected = on_paper(&case.told);
        let input = Input {
            adapter: case.with_adapter.then_some(&adapter),
            tokens: case.tokens,
            pruning: case.pruning,
            ..Input::pixels(&pixels)
        };
        let before = emulator.counts().bytes_in_use;
        let mut session = on(cuda.clone(), &backbone, SessionOptions::default());
        let (table, levels) = ([[0.5; 256]; 3], vec![0; PICTURES * 3 * 28 * 28]);
        let set = case
            .stay
            .then(|| session.keep_pictures(&[&levels], 28, &table));
        let entry = match set {
            None => input.entry,
            Some(set) => Entry::Pictures {
                set: set.unwrap().unwrap(),
                numbers: &[4, 0, 2],
                mirrored: &[true, false, false],
            },
        };
        let input = Input { entry, ..input };
        // The first pass brings what stays.
        run(&mut session, &input, &case, || ());
        let start = emulator.counts();
        let mut between = start;
        run(&mut session, &input, &case, || between = emulator.counts());
        let end = emulator.counts();
        let mut found = json!({
            "forward": difference(start, between),
            "backward": difference(between, end),
            "bytes": end.bytes_in_use - before,
        });
        for half in ["forward", "backward"] {
            found[half]["by_purpose"] = expected[half]["by_purpose"].clone();
        }
        assert_eq!(found, expected, "{}", case.told);
    }
}
