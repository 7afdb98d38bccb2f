//! What every encoder promises, as one set of claims that ONNX Runtime and the engine both keep, and their agreement.

use engine::session::SessionOptions;
use engine::tolerance::FORWARD;
use lora_recycle::inference::{
    Device, EncodeError, EncodeRow, Encoded, Encoder, NativeEncoder, OrtEncoder, OrtOptions,
    Outputs,
};
use model::adapter::{Adapter, Head, HeadInput, LowRankPair, Site, Target};
use model::backbone::{Backbone, BackboneConfig, load_folder};
use model::tensor::Tensor;
use std::sync::Arc;
use test_support::fixtures::adapter as tuned_adapter;
use test_support::project;
use test_support::reference::{Reference, assert_close};

const MODELS: [&str; 3] = ["vit-tiny", "dinov2-tiny", "clip-tiny"];

fn backbone(model: &str) -> Arc<Backbone> {
    Arc::new(load_folder(&project("tests/golden").join(model)).unwrap())
}

type Open = fn(&Arc<Backbone>) -> Box<dyn Encoder>;

fn ort(backbone: &Arc<Backbone>) -> Box<dyn Encoder> {
    let options = OrtOptions {
        threads: 2,
        device: Device::Cpu,
        cache_folder: None,
    };
    Box::new(OrtEncoder::open(Arc::clone(backbone), options).unwrap())
}

fn native(backbone: &Arc<Backbone>) -> Box<dyn Encoder> {
    Box::new(NativeEncoder::open(backbone, SessionOptions::on_threads(2)).unwrap())
}

/// Makes of each claim a test for each encoder.
macro_rules! for_every_encoder {
    ($($claim:ident),* $(,)?) => {
        mod onnx_runtime { $(#[test] fn $claim() { super::$claim(super::ort); })* }
        mod native { $(#[test] fn $claim() { super::$claim(super::native); })* }
    };
}

for_every_encoder!(
    rows_with_different_adapters_give_the_reference_values,
    a_batch_of_eight_adapters_gives_the_numbers_of_each_image_alone,
    more_adapters_than_slots_are_served_in_one_request_and_over_time,
    an_adapter_of_a_large_rank_changes_no_bit_of_the_others,
    an_adapter_for_other_shapes_is_refused_by_name_and_the_others_go_on,
    unusable_pixels_are_refused_before_any_arithmetic,
    no_rows_give_no_answers,
    hidden_states_come_only_where_they_are_asked_for,
    an_adapter_that_changes_nothing_gives_the_bare_backbone_bit_for_bit,
    two_runs_of_one_batch_give_the_same_bits,
    other_image_sizes_than_the_backbones_own_are_encoded,
);

fn wave(shape: [usize; 2], seed: f32, size: f32) -> Tensor {
    let values = (0..shape[0] * shape[1]).map(|index| (index as f32 * 0.37 + seed).sin() * size);
    Tensor::new(shape, values.collect()).unwrap()
}

/// Low-rank pairs of `rank` on `targets` of every `step`-th layer.
fn adapter(
    config: &BackboneConfig,
    seed: usize,
    rank: usize,
    targets: &[Target],
    step: usize,
) -> Adapter {
    let mut adapter = Adapter::default();
    for layer in (0..config.layers).step_by(step) {
        for &target in targets {
            let (outputs, inputs) = target.widths(config);
            let phase = (seed * 31 + layer * 7) as f32 + rank as f32;
            let pair = LowRankPair {
                a: wave([rank, inputs], phase, 0.3),
                b: wave([outputs, rank], phase + 1.0, 0.2),
                scale: 1.0 + seed as f32 / 4.0,
            };
            adapter.pairs.insert(Site { layer, target }, pair);
        }
    }
    adapter
}

/// Eight adapters of different ranks, targets and layers; every second has a head, one changes nothing.
fn eight(config: &BackboneConfig) -> Vec<Arc<Adapter>> {
    let query_value = [Target::Query, Target::Value];
    (0..8)
        .map(|index| {
            let mut adapter = match index {
                3 => Adapter::default(),
                5 => adapter(config, index, 3, &Target::ALL, 1),
                _ => adapter(config, index, 1 + 2 * index, &query_value, 1 + index % 2),
            };
            if index % 2 == 0 {
                adapter.head = Some(Head {
                    weight: wave([3, config.feature_width()], 0.5, 1.0),
                    bias: None,
                    input: HeadInput::Feature,
                    labels: Vec::new(),
                });
            }
            Arc::new(adapter)
        })
        .collect()
}

fn picture(seed: usize, side: usize) -> Arc<Tensor> {
    let values = (0..3 * side * side).map(|index| (index as f32 * 0.11 + seed as f32).sin());
    Arc::new(Tensor::new([3, side, side], values.collect()).unwrap())
}

fn pixels(seed: usize) -> Arc<Tensor> {
    picture(seed, 28)
}

/// 18 rows: two of each adapter and two of the bare backbone, in turns.
fn mixed_rows(adapters: &[Arc<Adapter>]) -> Vec<EncodeRow> {
    (0..18)
        .map(|row| EncodeRow {
            pixels: pixels(row),
            adapter: adapters.get(row % 9).cloned(),
            pinned: false,
        })
        .collect()
}

fn encode(encoder: &mut dyn Encoder, rows: &[EncodeRow]) -> Vec<Encoded> {
    let outputs = Outputs {
        last_hidden_state: true,
    };
    encoder.encode(rows, outputs).unwrap()
}

/// Largest difference relative to the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(0.0f32, |largest, x| largest.max(x.abs()));
    let difference = found
        .iter()
        .zip(expected)
        .fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
    difference / largest
}

fn rows_with_different_adapters_give_the_reference_values(open: Open) {
    for model in MODELS {
        let reference = Reference::golden(model);
        let pixels = reference.tensor("pixel_values");
        let tuned = Arc::new(tuned_adapter(model));
        let rows: Vec<EncodeRow> = (0..10)
            .map(|row| EncodeRow {
                pixels: Arc::new(Tensor::new([3, 28, 28], pixels.row(row).to_vec()).unwrap()),
                adapter: (row % 2 == 1).then(|| Arc::clone(&tuned)),
                pinned: false,
            })
            .collect();
        let encoded = encode(open(&backbone(model)).as_mut(), &rows);
        assert_eq!(encoded.len(), 10);
        for (row, encoded) in encoded.iter().enumerate() {
            let prefix = if row % 2 == 1 { "adapter_" } else { "" };
            let features = reference.tensor(&format!("{prefix}features"));
            let attention = reference.tensor(&format!("{prefix}cls_attention"));
            // The tolerance is of the whole tensor's largest value; that of one row may be half as large.
            let allowed = 2.0 * FORWARD;
            assert_close("feature", &encoded.feature, features.row(row), allowed);
            assert_close(
                "attention",
                &encoded.cls_attention,
                attention.row(row),
                allowed,
            );
        }
    }
}

fn a_batch_of_eight_adapters_gives_the_numbers_of_each_image_alone(open: Open) {
    for model in MODELS {
        let backbone = backbone(model);
        let rows = mixed_rows(&eight(&backbone.config));
        let mut encoder = open(&backbone);
        let together = encode(encoder.as_mut(), &rows);
        for (index, (row, together)) in rows.iter().zip(&together).enumerate() {
            let alone = encode(encoder.as_mut(), std::slice::from_ref(row));
            let feature = difference(&together.feature, &alone[0].feature);
            let attention = difference(&together.cls_attention, &alone[0].cls_attention);
            // A product may block other numbers of rows differently.
            assert!(feature <= 1e-5, "{model} row {index}: {feature}");
            assert!(attention <= 1e-5, "{model} row {index}: {attention}");
        }
    }
}

fn more_adapters_than_slots_are_served_in_one_request_and_over_time(open: Open) {
    let backbone = backbone("vit-tiny");
    let query_value = [Target::Query, Target::Value];
    let rows: Vec<EncodeRow> = (0..70)
        .map(|seed| {
            let own = adapter(&backbone.config, seed, 1 + seed % 5, &query_value, 1);
            EncodeRow::adapted(pixels(0), Arc::new(own))
        })
        .collect();
    let mut encoder = open(&backbone);
    let together = encode(encoder.as_mut(), &rows);
    for (row, together) in rows.iter().zip(&together).rev() {
        let mut fresh = open(&backbone);
        let alone = encode(fresh.as_mut(), std::slice::from_ref(row));
        assert!(difference(&together.feature, &alone[0].feature) <= 1e-5);
        let again = encode(encoder.as_mut(), std::slice::from_ref(row));
        assert!(difference(&again[0].feature, &alone[0].feature) <= 1e-5);
    }
}

fn an_adapter_of_a_large_rank_changes_no_bit_of_the_others(open: Open) {
    let backbone = backbone("vit-tiny");
    let of_rank = |seed, rank| Arc::new(adapter(&backbone.config, seed, rank, &Target::ALL, 1));
    let row = |seed, adapter: Option<&Arc<Adapter>>| EncodeRow {
        pixels: pixels(seed),
        adapter: adapter.cloned(),
        pinned: false,
    };
    let (first, second, large) = (of_rank(1, 4), of_rank(2, 7), of_rank(3, 300));
    let others = [row(0, Some(&first)), row(1, None), row(2, Some(&second))];
    let mut encoder = open(&backbone);
    let expected = encode(encoder.as_mut(), &others);
    let alone = encode(encoder.as_mut(), &[row(3, Some(&large))]);
    let mixed = [
        others[0].clone(),
        row(3, Some(&large)),
        others[1].clone(),
        others[2].clone(),
    ];
    let mut found = encode(encoder.as_mut(), &mixed);
    assert_eq!(found.remove(1), alone[0]);
    assert!(found == expected);
    drop((mixed, large));
    encoder.tidy();
    assert!(encode(encoder.as_mut(), &others) == expected);
}

fn an_adapter_for_other_shapes_is_refused_by_name_and_the_others_go_on(open: Open) {
    let vit = backbone("vit-tiny");
    let (mut deeper, mut wider) = (vit.config.clone(), vit.config.clone());
    deeper.layers += 1;
    wider.mlp_width += 1;
    let good = EncodeRow::adapted(pixels(0), eight(&vit.config)[0].clone());
    let mut encoder = open(&vit);
    let before = encode(encoder.as_mut(), std::slice::from_ref(&good));
    let shape = |config: &BackboneConfig| format!("[{}, {}]", config.mlp_width, config.width);
    let cases = [
        (
            &deeper,
            Target::Query,
            "layer 4".to_owned(),
            "4 layers".to_owned(),
        ),
        (&wider, Target::MlpIn, shape(&wider), shape(&vit.config)),
    ];
    for (config, target, found, expected) in cases {
        let wrong = Arc::new(adapter(config, 0, 2, &[target], 1));
        let bad = EncodeRow::adapted(pixels(0), wrong);
        let error = encoder
            .encode(&[good.clone(), bad], Outputs::default())
            .unwrap_err();
        assert!(
            matches!(&error, EncodeError::BadInput(text) if text.contains(&found) && text.contains(&expected)),
            "{error}"
        );
    }
    let after = encode(encoder.as_mut(), &[good]);
    assert_eq!(before, after);
}

fn unusable_pixels_are_refused_before_any_arithmetic(open: Open) {
    let mut encoder = open(&backbone("vit-tiny"));
    let mut refusal = |rows: &[Tensor]| {
        let rows: Vec<EncodeRow> = rows
            .iter()
            .map(|pixels| EncodeRow::bare(Arc::new(pixels.clone())))
            .collect();
        match encoder.encode(&rows, Outputs::default()) {
            Err(EncodeError::BadInput(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let good = Tensor::zeros([3, 28, 28]);
    let flat = refusal(&[good.clone(), Tensor::zeros([3, 28, 21])]);
    assert!(
        flat.contains("image 1 are [3, 28, 21], expected [3, size, size]"),
        "{flat}"
    );
    for shape in [vec![1, 28, 28], vec![3, 0, 0], vec![28, 28]] {
        let text = refusal(&[Tensor::zeros(shape.clone())]);
        assert!(text.contains(&format!("{shape:?}")), "{text}");
    }
    let mixed = refusal(&[good.clone(), Tensor::zeros([3, 35, 35])]);
    assert!(
        mixed.contains("[3, 35, 35]") && mixed.contains("[3, 28, 28]"),
        "{mixed}"
    );
    let odd = refusal(&[Tensor::zeros([3, 30, 30])]);
    assert!(odd.contains("30") && odd.contains('7'), "{odd}");
    let mut poisoned = good.clone();
    poisoned.data_mut()[5] = f32::NAN;
    let text = refusal(&[good, poisoned]);
    assert_eq!(text, "pixel value 5 of image 1 is not a finite number");
}

fn no_rows_give_no_answers(open: Open) {
    let mut encoder = open(&backbone("vit-tiny"));
    let answers = encoder.encode(&[], Outputs::default()).unwrap();
    assert!(answers.is_empty());
}

fn hidden_states_come_only_where_they_are_asked_for(open: Open) {
    for model in MODELS {
        let backbone = backbone(model);
        let mut encoder = open(&backbone);
        let row = [EncodeRow::bare(pixels(1))];
        let with = encode(encoder.as_mut(), &row);
        let without = encoder.encode(&row, Outputs::default()).unwrap();
        let hidden = with[0].last_hidden_state.as_ref().unwrap();
        assert_eq!(hidden.shape(), [17, backbone.config.width]);
        assert!(without[0].last_hidden_state.is_none());
        assert_eq!(with[0].feature.len(), backbone.feature_width());
        assert_eq!(with[0].cls_attention.len(), 16);
        assert!(difference(&without[0].feature, &with[0].feature) <= 1e-5);
    }
}

fn an_adapter_that_changes_nothing_gives_the_bare_backbone_bit_for_bit(open: Open) {
    let backbone = backbone("dinov2-tiny");
    let mut encoder = open(&backbone);
    let bare = encode(encoder.as_mut(), &[EncodeRow::bare(pixels(2))]);
    let mut zero = adapter(&backbone.config, 1, 3, &[Target::Query, Target::Value], 1);
    for pair in zero.pairs.values_mut() {
        pair.b.data_mut().fill(0.0);
    }
    for adapter in [Adapter::default(), zero] {
        let row = EncodeRow::adapted(pixels(2), Arc::new(adapter));
        assert_eq!(encode(encoder.as_mut(), &[row]), bare);
    }
}

fn two_runs_of_one_batch_give_the_same_bits(open: Open) {
    let backbone = backbone("clip-tiny");
    let rows = mixed_rows(&eight(&backbone.config));
    let mut encoder = open(&backbone);
    let first = encode(encoder.as_mut(), &rows);
    encode(encoder.as_mut(), &rows[3..4]);
    assert_eq!(encode(encoder.as_mut(), &rows), first);
    assert_eq!(encode(open(&backbone).as_mut(), &rows), first);
}

fn other_image_sizes_than_the_backbones_own_are_encoded(open: Open) {
    let mut encoder = open(&backbone("vit-tiny"));
    for side in [7, 35, 42] {
        let rows = [0, 1].map(|seed| EncodeRow::bare(picture(seed, side)));
        for encoded in encode(encoder.as_mut(), &rows) {
            let patches = (side / 7) * (side / 7);
            assert_eq!(encoded.cls_attention.len(), patches);
            let sum: f32 = encoded.cls_attention.iter().sum();
            assert!(sum > 0.0 && sum < 1.0, "{side}: {sum}");
        }
    }
}

#[test]
fn onnx_runtime_and_the_engine_agree_on_every_kind_of_adapter_and_with_its_merged_weights() {
    for model in MODELS {
        let backbone = backbone(model);
        let adapters = eight(&backbone.config);
        let rows = mixed_rows(&adapters);
        let by_ort = encode(ort(&backbone).as_mut(), &rows);
        let by_engine = encode(native(&backbone).as_mut(), &rows);
        for (index, (a, b)) in by_ort.iter().zip(&by_engine).enumerate() {
            let feature = difference(&a.feature, &b.feature);
            // Two programs that sum in different orders: the tolerance of a forward pass.
            assert!(feature <= 2e-5, "{model} row {index}: {feature}");
        }
        for (index, adapter) in adapters.iter().enumerate() {
            let mut merged = Backbone::clone(&backbone);
            merged.weights = adapter
                .merged_into(&backbone.weights, &backbone.config)
                .unwrap();
            let row = EncodeRow::bare(pixels(index));
            let expected = encode(ort(&Arc::new(merged)).as_mut(), &[row]);
            let feature = difference(&by_ort[index].feature, &expected[0].feature);
            assert!(feature <= 2e-5, "{model} adapter {index}: {feature}");
        }
    }
}

#[test]
fn onnx_runtime_and_the_engine_agree_at_other_image_sizes() {
    for model in MODELS {
        let backbone = backbone(model);
        let (mut by_ort, mut by_engine) = (ort(&backbone), native(&backbone));
        for side in [7, 21, 35] {
            let rows = [0, 1, 2].map(|seed| EncodeRow::bare(picture(seed, side)));
            let (a, b) = (
                encode(by_ort.as_mut(), &rows),
                encode(by_engine.as_mut(), &rows),
            );
            for (a, b) in a.iter().zip(&b) {
                let feature = difference(&a.feature, &b.feature);
                assert!(feature <= FORWARD, "{model} {side} px: {feature}");
            }
        }
    }
}
