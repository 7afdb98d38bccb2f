//! Folders that are not a usable backbone are refused with the list of what is wrong.

use half::{bf16, f16};
use model::backbone::{Backbone, BackboneError, Pooling, load_folder};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use test_support::project;

/// A tensor as it is in a file.
#[derive(Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A copy of a golden checkpoint that a test can spoil.
struct Checkpoint {
    config: Value,
    preprocess: Value,
    tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    fn golden(name: &str) -> Self {
        let folder = project("tests/golden").join(name);
        let json = |file: &str| -> Value {
            serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
        };
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let stored = Stored {
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                    bytes: view.data().to_vec(),
                };
                (name.to_owned(), stored)
            })
            .collect();
        Self {
            config: json("config.json"),
            preprocess: json("preprocessor_config.json"),
            tensors,
        }
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.tensors[name]
            .bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    fn set_value(&mut self, name: &str, index: usize, value: f32) {
        let bytes = &mut self.tensors.get_mut(name).unwrap().bytes;
        bytes[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.write_parts(folder.path());
        fs::write(
            folder.path().join("model.safetensors"),
            serialise(self.tensors.iter()),
        )
        .unwrap();
        folder
    }

    fn write_parts(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        fs::write(
            folder.join("preprocessor_config.json"),
            self.preprocess.to_string(),
        )
        .unwrap();
    }

    fn load(&self) -> Result<Backbone, BackboneError> {
        load_folder(self.write().path())
    }

    fn problems(&self) -> Vec<String> {
        self.load().unwrap_err().problems()
    }
}

fn serialise<'t>(tensors: impl Iterator<Item = (&'t String, &'t Stored)>) -> Vec<u8> {
    let views: Vec<(&str, TensorView)> = tensors
        .map(|(name, stored)| {
            let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes).unwrap();
            (name.as_str(), view)
        })
        .collect();
    safetensors::serialize(views, None).unwrap()
}

const QUERY: &str = "vit.encoder.layer.1.attention.attention.query.weight";

#[test]
fn another_model_type_is_refused_by_name() {
    let mut checkpoint = Checkpoint::golden("vit-tiny");
    checkpoint.config["model_type"] = json!("swin");
    assert_eq!(
        checkpoint.problems(),
        [
            "model type \"swin\" is not supported; supported are vit, dinov2, clip and clip_vision_model"
        ]
    );
}

#[test]
fn every_missing_extra_and_misshapen_tensor_is_listed_at_once() {
    let mut checkpoint = Checkpoint::golden("vit-tiny");
    checkpoint.tensors.remove("vit.layernorm.bias");
    checkpoint.tensors.get_mut(QUERY).unwrap().shape = vec![16, 64];
    let extra = checkpoint.tensors[QUERY].clone();
    let name = "vit.encoder.layer.4.attention.attention.query.weight";
    checkpoint.tensors.insert(name.into(), extra);
    assert_eq!(
        checkpoint.problems(),
        [
            format!("{QUERY}: shape [16, 64], expected [32, 32]"),
            "vit.layernorm.bias: missing".to_owned(),
            format!("{name}: not expected"),
        ]
    );
}

#[test]
fn a_configuration_that_asks_for_more_layers_than_there_are_is_refused() {
    let mut checkpoint = Checkpoint::golden("dinov2-tiny");
    checkpoint.config["num_hidden_layers"] = json!(1_000_000);
    let problems = checkpoint.problems();
    assert!(problems[0].contains("encoder.layer.4."), "{problems:?}");
    assert!(problems.len() <= 101);
}

#[test]
fn not_finite_weights_are_refused_with_their_place() {
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut checkpoint = Checkpoint::golden("vit-tiny");
        checkpoint.set_value(QUERY, 7, value);
        assert_eq!(
            checkpoint.problems(),
            [format!("{QUERY}: value 7 is {text}, not a finite number")]
        );
    }
}

#[test]
fn a_storage_type_without_fractions_is_refused() {
    let mut checkpoint = Checkpoint::golden("vit-tiny");
    checkpoint.tensors.get_mut(QUERY).unwrap().dtype = Dtype::I32;
    assert!(checkpoint.problems()[0].contains("storage type I32 is not supported"));
}

#[test]
fn a_truncated_file_and_a_header_longer_than_the_file_are_told_apart() {
    let folder = Checkpoint::golden("vit-tiny").write();
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();

    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("truncated or has gaps"), "{error}");

    let mut long_header = whole.clone();
    long_header[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    fs::write(&path, long_header).unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("its header needs 1099511627784 bytes"),
        "{error}"
    );

    fs::write(&path, &whole[..5]).unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("its header needs 8 bytes, the file has 5"),
        "{error}"
    );

    fs::write(&path, []).unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("the file is empty"), "{error}");
}

#[test]
fn pickle_is_refused_under_its_own_name_and_under_a_false_one() {
    let folder = Checkpoint::golden("vit-tiny").write();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, b"PK\x03\x04archive/data.pkl").unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("pickle"), "{error}");
    fs::write(&path, b"\x80\x02}q\x00.").unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("pickle"), "{error}");
    fs::rename(&path, folder.path().join("pytorch_model.bin")).unwrap();
    let error = load_folder(folder.path()).unwrap_err();
    assert!(matches!(error, BackboneError::Pickle { .. }), "{error}");
}

#[test]
fn a_missing_file_or_folder_is_named() {
    let folder = Checkpoint::golden("vit-tiny").write();
    fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("has no preprocessor_config.json"),
        "{error}"
    );
    let error = load_folder(&folder.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, BackboneError::Read { .. }), "{error}");
}

#[test]
fn half_precision_files_load_with_rounded_values() {
    let golden = Checkpoint::golden("vit-tiny");
    let expected = golden.values(QUERY);
    for dtype in [Dtype::F16, Dtype::BF16] {
        let mut checkpoint = Checkpoint::golden("vit-tiny");
        for (name, stored) in &mut checkpoint.tensors {
            let values = golden.values(name);
            stored.dtype = dtype;
            stored.bytes = values
                .iter()
                .flat_map(|&value| match dtype {
                    Dtype::F16 => f16::from_f32(value).to_le_bytes(),
                    _ => bf16::from_f32(value).to_le_bytes(),
                })
                .collect();
        }
        let backbone = checkpoint.load().unwrap();
        let loaded = backbone.weights.layers[1].query.weight.data();
        for (&value, &loaded) in expected.iter().zip(loaded) {
            let rounded = match dtype {
                Dtype::F16 => f16::from_f32(value).to_f32(),
                _ => bf16::from_f32(value).to_f32(),
            };
            assert_eq!(loaded, rounded);
        }
    }
}

#[test]
fn shards_load_as_one_file_does_and_an_index_cannot_lead_out_of_the_folder() {
    let checkpoint = Checkpoint::golden("vit-tiny");
    let expected = checkpoint.load().unwrap().digest;
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write_parts(folder.path());
    let middle = checkpoint.tensors.len() / 2;
    let mut weight_map = serde_json::Map::new();
    for (number, file) in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    .into_iter()
    .enumerate()
    {
        let part: BTreeMap<&String, &Stored> = checkpoint
            .tensors
            .iter()
            .skip(number * middle)
            .take(if number == 0 { middle } else { usize::MAX })
            .collect();
        for name in part.keys() {
            weight_map.insert((*name).clone(), json!(file));
        }
        fs::write(folder.path().join(file), serialise(part.into_iter())).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"weight_map": weight_map}).to_string()).unwrap();
    assert_eq!(load_folder(folder.path()).unwrap().digest, expected);

    fs::write(
        &index,
        json!({"weight_map": {"a": "../outside.safetensors"}}).to_string(),
    )
    .unwrap();
    let error = load_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("../outside.safetensors"), "{error}");

    fs::write(
        &index,
        json!({"weight_map": {"a": "model-00009-of-00009.safetensors"}}).to_string(),
    )
    .unwrap();
    let error = load_folder(folder.path()).unwrap_err();
    assert!(matches!(error, BackboneError::Read { .. }), "{error}");
}

#[test]
fn clip_loads_from_a_vision_only_file_with_and_without_projection() {
    let full = Checkpoint::golden("clip-tiny");
    let mut vision = Checkpoint::golden("clip-tiny");
    vision.config = full.config["vision_config"].clone();
    vision
        .tensors
        .retain(|name, _| name.starts_with("vision_model.") || name == "visual_projection.weight");
    let with_projection = vision.load().unwrap();
    assert_eq!(with_projection.digest, full.load().unwrap().digest);
    assert_eq!(with_projection.feature_width(), 16);
    vision.tensors.remove("visual_projection.weight");
    assert_eq!(vision.load().unwrap().feature_width(), 32);
}

#[test]
fn pooling_changes_the_feature_width_and_unknown_pooling_is_refused() {
    let mut checkpoint = Checkpoint::golden("dinov2-tiny");
    checkpoint.config["pooling"] = json!("cls_mean");
    let backbone = checkpoint.load().unwrap();
    assert_eq!(backbone.config.pooling, Pooling::ClsMean);
    assert_eq!(backbone.feature_width(), 64);
    checkpoint.config["pooling"] = json!("max");
    assert_eq!(
        checkpoint.problems(),
        ["pooling is \"max\", not one of cls, mean and cls_mean"]
    );
}

#[test]
fn impossible_numbers_in_the_configuration_are_listed() {
    let mut checkpoint = Checkpoint::golden("vit-tiny");
    checkpoint.config["hidden_size"] = json!(-4);
    checkpoint.config["hidden_act"] = json!("relu");
    checkpoint.config["layer_norm_eps"] = json!("small");
    checkpoint.preprocess["image_std"] = json!([0.5, 0.0, 0.5]);
    checkpoint.preprocess["resample"] = json!(9);
    let problems = checkpoint.problems().join("\n");
    for part in [
        "hidden_size is -4",
        "relu",
        "layer_norm_eps",
        "image_std",
        "resample",
    ] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
}

#[test]
fn a_configuration_that_is_no_json_is_refused() {
    let folder = Checkpoint::golden("vit-tiny").write();
    fs::write(folder.path().join("config.json"), "{\"model_type\": ").unwrap();
    let problems = load_folder(folder.path()).unwrap_err().problems();
    assert!(
        problems[0].starts_with("config.json is not valid JSON"),
        "{problems:?}"
    );
}

#[test]
fn a_task_head_and_pooler_do_not_change_the_identity() {
    let mut checkpoint = Checkpoint::golden("vit-tiny");
    let expected = checkpoint.load().unwrap().digest;
    checkpoint
        .tensors
        .retain(|name, _| !name.starts_with("classifier."));
    assert_eq!(checkpoint.load().unwrap().digest, expected);
    checkpoint.set_value(QUERY, 0, 0.125);
    assert_ne!(checkpoint.load().unwrap().digest, expected);
}
