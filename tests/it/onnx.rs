//! Exported graphs, as ONNX Runtime sees them.

use lora_recycle::inference::{
    Device, EncodeRow, Encoder, OrtEncoder, OrtOptions, Outputs, load_for,
};
use model::backbone::onnx::{
    OnnxError, Operators, SLOT_INPUT, export, export_with_adapters, lora_inputs,
};
use model::backbone::{Backbone, Pooling, Target, embedded, load_folder};
use model::tensor::Tensor;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use std::collections::BTreeMap;
use std::sync::Arc;
use test_support::project;

fn session(model: &[u8]) -> Session {
    Session::builder(&load_for(Device::Cpu).unwrap().library.environment)
        .unwrap()
        .commit_from_memory(model)
        .unwrap()
}

fn features(session: &mut Session, pixels: &Tensor) -> Vec<f32> {
    let input = TensorRef::from_array_view((pixels.shape().to_vec(), pixels.data())).unwrap();
    let outputs = session.run(ort::inputs!["pixels" => input]).unwrap();
    outputs["feature"]
        .try_extract_tensor::<f32>()
        .unwrap()
        .1
        .to_vec()
}

fn wave(batch: usize, size: usize) -> Tensor {
    let count = batch * 3 * size * size;
    let values = (0..count)
        .map(|index| (index as f32 * 0.37).sin())
        .collect();
    Tensor::new([batch, 3, size, size], values).unwrap()
}

#[test]
fn onnx_runtime_runs_its_fused_operators_on_the_exported_graph() {
    let folder = tempfile::tempdir().unwrap();
    let model = export(&embedded().unwrap(), 98, Operators::OnnxRuntime).unwrap();
    let mut session = Session::builder(&load_for(Device::Cpu).unwrap().library.environment)
        .unwrap()
        .with_optimization_level(GraphOptimizationLevel::All)
        .unwrap()
        .with_profiling(folder.path().join("profile"))
        .unwrap()
        .commit_from_memory(&model)
        .unwrap();
    features(&mut session, &wave(2, 98));
    let profile = std::fs::read(session.end_profiling().unwrap()).unwrap();
    let events: serde_json::Value = serde_json::from_slice(&profile).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events.as_array().unwrap() {
        if event["cat"] == "Node"
            && event["name"].as_str().unwrap().ends_with("kernel_time")
            && let Some(operator) = event["args"]["op_name"].as_str()
        {
            *counts.entry(operator).or_default() += 1;
        }
    }
    let count = |operator: &str| counts.get(operator).copied().unwrap_or(0);
    assert_eq!(count("MultiHeadAttention"), 8, "{counts:?}");
    assert_eq!(count("BiasGelu"), 8, "{counts:?}");
    // Two a layer and the final one; the very first has no addition in front of it.
    assert_eq!(count("SkipLayerNormalization"), 16, "{counts:?}");
    assert_eq!(count("LayerNormalization"), 1, "{counts:?}");
}

#[test]
fn the_standard_graph_computes_what_the_fused_one_does() {
    for name in ["vit-tiny", "dinov2-tiny", "clip-tiny"] {
        let backbone = load_folder(&project("tests/golden").join(name)).unwrap();
        let pixels = wave(3, 28);
        let [fused, standard] = [Operators::OnnxRuntime, Operators::Standard].map(|operators| {
            features(
                &mut session(&export(&backbone, 28, operators).unwrap()),
                &pixels,
            )
        });
        let largest = fused.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
        for (a, b) in fused.iter().zip(&standard) {
            // Two orders of summation in f32.
            assert!((a - b).abs() <= 2e-5 * largest, "{name}: {a} {b}");
        }
    }
}

#[test]
fn the_standard_graph_mixes_adapters_as_the_fused_one_does() {
    let (batch, slots, rank) = (3, 2, 2);
    let pixels = wave(batch, 28);
    let own: Vec<i64> = vec![1, 0, 1];
    for name in ["vit-tiny", "dinov2-tiny", "clip-tiny"] {
        let backbone = load_folder(&project("tests/golden").join(name)).unwrap();
        let config = &backbone.config;
        let mut matrices = Vec::new();
        for (layer, target) in (0..config.layers).flat_map(|l| Target::ALL.map(|t| (l, t))) {
            let (rows, columns) = target.widths(config);
            for (name, sides) in lora_inputs(layer, target)
                .into_iter()
                .zip([[slots, columns, rank], [slots, rank, rows]])
            {
                let values = (0..sides.iter().product())
                    .map(|index: usize| 0.3 * (index as f32 * 0.7 + layer as f32).sin());
                // Slot 0 is the bare backbone.
                let per_slot = sides[1] * sides[2];
                let values = values.enumerate();
                let values = values.map(|(at, value)| if at < per_slot { 0.0 } else { value });
                matrices.push((name, Tensor::new(sides, values.collect()).unwrap()));
            }
        }
        let [fused, standard] = [Operators::OnnxRuntime, Operators::Standard].map(|operators| {
            let model = export_with_adapters(&backbone, 28, operators, &Target::ALL).unwrap();
            let tensor = |tensor: &Tensor| (tensor.shape().to_vec(), tensor.data().to_vec());
            let mut inputs = vec![(
                "pixels",
                ort::value::Tensor::from_array(tensor(&pixels))
                    .unwrap()
                    .into_dyn(),
            )];
            let slot = ort::value::Tensor::from_array((vec![batch], own.clone()));
            inputs.push((SLOT_INPUT, slot.unwrap().into_dyn()));
            for (name, matrix) in &matrices {
                let value = ort::value::Tensor::from_array(tensor(matrix)).unwrap();
                inputs.push((name, value.into_dyn()));
            }
            let mut session = session(&model);
            let outputs = session.run(inputs).unwrap();
            ["feature", "cls_attention"].map(|output| {
                let (_, values) = outputs[output].try_extract_tensor::<f32>().unwrap();
                values.to_vec()
            })
        });
        for (fused, standard) in fused.iter().zip(&standard) {
            let largest = fused.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
            for (a, b) in fused.iter().zip(standard) {
                // Two orders of summation in f32.
                assert!((a - b).abs() <= 2e-5 * largest, "{name}: {a} {b}");
            }
        }
        let bare = export(&backbone, 28, Operators::Standard).unwrap();
        let bare = features(&mut session(&bare), &pixels);
        let width = config.feature_width();
        let change = |row: usize| {
            let own = &standard[0][row * width..(row + 1) * width];
            let bare = &bare[row * width..(row + 1) * width];
            let changes = own.iter().zip(bare).map(|(a, b)| (a - b).abs());
            changes.fold(0.0f32, f32::max)
        };
        assert!(change(1) < 1e-4 && change(0) > 1e-2 && change(2) > 1e-2);
    }
}

#[test]
fn every_pooling_is_that_of_the_last_hidden_state() {
    for pooling in [Pooling::Cls, Pooling::Mean, Pooling::ClsMean] {
        let mut backbone = load_folder(&project("tests/golden/dinov2-tiny")).unwrap();
        backbone.config.pooling = pooling;
        let mut encoder = OrtEncoder::open(Arc::new(backbone), options(None)).unwrap();
        let outputs = Outputs {
            last_hidden_state: true,
        };
        for encoded in encoder.encode(&rows(2, 28), outputs).unwrap() {
            let (cls, mean) = encoded.cls_and_mean().unwrap();
            let expected = match pooling {
                Pooling::Cls => cls,
                Pooling::Mean => mean,
                Pooling::ClsMean => [cls, mean].concat(),
            };
            assert_eq!(encoded.feature.len(), expected.len());
            for (a, b) in encoded.feature.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-5, "{pooling:?}: {a} {b}");
            }
        }
    }
}

#[test]
fn an_encoder_names_the_version_and_the_providers_that_onnx_runtime_reports() {
    let encoder = OrtEncoder::open(tiny(), options(None)).unwrap();
    let info = encoder.info();
    assert_eq!(info.version, load_for(Device::Cpu).unwrap().library.version);
    assert_eq!(info.providers, ["CPUExecutionProvider"]);
    assert_eq!(info.device, "cpu");
}

#[test]
fn an_image_size_that_is_no_multiple_of_the_patch_is_refused_with_the_nearest_that_is() {
    let error = export(&embedded().unwrap(), 100, Operators::OnnxRuntime).unwrap_err();
    assert_eq!(
        error,
        OnnxError::ImageSize {
            image_size: 100,
            patch_size: 14,
            nearest: 98
        }
    );
}

fn tiny() -> Arc<Backbone> {
    Arc::new(load_folder(&project("tests/golden/vit-tiny")).unwrap())
}

fn options(cache_folder: Option<std::path::PathBuf>) -> OrtOptions {
    OrtOptions {
        threads: 1,
        device: Device::Cpu,
        cache_folder,
    }
}

fn rows(batch: usize, size: usize) -> Vec<EncodeRow> {
    let pixels = wave(batch, size);
    (0..batch)
        .map(|row| Tensor::new([3, size, size], pixels.row(row).to_vec()).unwrap())
        .map(|pixels| EncodeRow::bare(Arc::new(pixels)))
        .collect()
}

#[test]
fn a_damaged_cached_graph_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Some(folder.path().join("onnx"));
    let expected = OrtEncoder::open(tiny(), options(cache.clone()))
        .unwrap()
        .encode(&rows(1, 28), Outputs::default())
        .unwrap();
    let cached: Vec<_> = std::fs::read_dir(folder.path().join("onnx"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(cached.len(), 1);
    let whole = std::fs::read(&cached[0]).unwrap();
    std::fs::write(&cached[0], &whole[..whole.len() / 2]).unwrap();
    let again = OrtEncoder::open(tiny(), options(cache))
        .unwrap()
        .encode(&rows(1, 28), Outputs::default())
        .unwrap();
    assert_eq!(again, expected);
    assert_eq!(std::fs::read(&cached[0]).unwrap(), whole);
}
