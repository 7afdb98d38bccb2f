//! Batches that mix adapters, through ONNX Runtime and through the engine.

use crate::support::project;
use lora_recycle::adapter::{Adapter, Factors, Head, HeadInput, Site, Target};
use lora_recycle::backbone::{Backbone, BackboneConfig, load_folder};
use lora_recycle::inference::{
    Device, EncodeError, EncodeRow, Encoded, Encoder, NativeEncoder, OrtEncoder, OrtOptions,
    Outputs,
};
use lora_recycle::tensor::Tensor;
use std::sync::Arc;

const MODELS: [&str; 3] = ["vit-tiny", "dinov2-tiny", "clip-tiny"];

fn backbone(model: &str) -> Arc<Backbone> {
    Arc::new(load_folder(&project("tests/golden").join(model)).unwrap())
}

fn ort(backbone: &Arc<Backbone>) -> OrtEncoder {
    let options = OrtOptions {
        threads: 2,
        device: Device::Cpu,
        cache_folder: None,
    };
    OrtEncoder::open(Arc::clone(backbone), options).unwrap()
}

fn wave(shape: [usize; 2], seed: f32, size: f32) -> Tensor {
    let values = (0..shape[0] * shape[1]).map(|index| (index as f32 * 0.37 + seed).sin() * size);
    Tensor::new(shape, values.collect()).unwrap()
}

/// Factors of `rank` on `targets` of every `step`-th layer.
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
            let factors = Factors {
                a: wave([rank, inputs], phase, 0.3),
                b: wave([outputs, rank], phase + 1.0, 0.2),
                scale: 1.0 + seed as f32 / 4.0,
            };
            adapter.factors.insert(Site { layer, target }, factors);
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

fn pixels(seed: usize) -> Arc<Tensor> {
    let values = (0..3 * 28 * 28).map(|index| (index as f32 * 0.11 + seed as f32).sin());
    Arc::new(Tensor::new([3, 28, 28], values.collect()).unwrap())
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

#[test]
fn a_batch_of_eight_adapters_gives_the_numbers_of_each_image_alone() {
    for model in MODELS {
        let backbone = backbone(model);
        let rows = mixed_rows(&eight(&backbone.config));
        let encoders: [Box<dyn Encoder>; 2] = [
            Box::new(ort(&backbone)),
            Box::new(NativeEncoder::open(&backbone, 2).unwrap()),
        ];
        for mut encoder in encoders {
            let engine = encoder.info().engine;
            let together = encode(encoder.as_mut(), &rows);
            for (index, (row, together)) in rows.iter().zip(&together).enumerate() {
                let alone = encode(encoder.as_mut(), std::slice::from_ref(row));
                let feature = difference(&together.feature, &alone[0].feature);
                let attention = difference(&together.cls_attention, &alone[0].cls_attention);
                assert!(feature <= 1e-5, "{model} {engine} row {index}: {feature}");
                assert!(
                    attention <= 1e-5,
                    "{model} {engine} row {index}: {attention}"
                );
            }
        }
    }
}

#[test]
fn onnx_runtime_and_the_engine_agree_on_every_kind_of_adapter_and_with_its_merged_weights() {
    for model in MODELS {
        let backbone = backbone(model);
        let adapters = eight(&backbone.config);
        let rows = mixed_rows(&adapters);
        let by_ort = encode(&mut ort(&backbone), &rows);
        let by_engine = encode(&mut NativeEncoder::open(&backbone, 2).unwrap(), &rows);
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
            let expected = encode(&mut ort(&Arc::new(merged)), &[row]);
            let feature = difference(&by_ort[index].feature, &expected[0].feature);
            assert!(feature <= 2e-5, "{model} adapter {index}: {feature}");
        }
    }
}

#[test]
fn more_adapters_than_slots_are_served_in_one_request_and_over_time() {
    let backbone = backbone("vit-tiny");
    let query_value = [Target::Query, Target::Value];
    let adapters: Vec<Arc<Adapter>> = (0..70)
        .map(|seed| {
            Arc::new(adapter(
                &backbone.config,
                seed,
                1 + seed % 5,
                &query_value,
                1,
            ))
        })
        .collect();
    let rows: Vec<EncodeRow> = adapters
        .iter()
        .map(|adapter| EncodeRow::adapted(pixels(0), Arc::clone(adapter)))
        .collect();
    let mut encoder = ort(&backbone);
    let together = encode(&mut encoder, &rows);
    for (row, together) in rows.iter().zip(&together).rev() {
        let mut fresh = ort(&backbone);
        let alone = encode(&mut fresh, std::slice::from_ref(row));
        assert!(difference(&together.feature, &alone[0].feature) <= 1e-5);
        let again = encode(&mut encoder, std::slice::from_ref(row));
        assert!(difference(&again[0].feature, &alone[0].feature) <= 1e-5);
    }
}

#[test]
fn an_adapter_for_other_shapes_is_refused_by_name_and_the_others_go_on() {
    let (vit, clip) = (backbone("vit-tiny"), backbone("clip-tiny"));
    let mut other = clip.config.clone();
    other.layers += 1;
    let wrong = Arc::new(adapter(&other, 0, 2, &[Target::Query], 1));
    let good = EncodeRow::adapted(pixels(0), eight(&vit.config)[0].clone());
    let mut encoder = ort(&vit);
    let before = encode(&mut encoder, std::slice::from_ref(&good));
    let bad = EncodeRow::adapted(pixels(0), wrong);
    let error = encoder
        .encode(&[good.clone(), bad], Outputs::default())
        .unwrap_err();
    assert!(
        matches!(&error, EncodeError::BadInput(text) if text.contains("layer 4") && text.contains("4 layers")),
        "{error}"
    );
    let after = encode(&mut encoder, &[good]);
    assert_eq!(before, after);
}
