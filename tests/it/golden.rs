//! Checkpoints and reference values: `tests/golden` and the embedded backbone's.

use crate::support::project;
use lora_recycle::backbone::{Backbone, EMBEDDED_DIGEST, embedded, embedded_config, load_folder};
use lora_recycle::inference::verify::{Verification, verify};
use lora_recycle::inference::{Device, OrtEncoder, OrtOptions};
use lora_recycle::tensor_file::TensorFile;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn ort_verification(backbone: Backbone, reference: &Path) -> Verification {
    let options = OrtOptions {
        device: Device::Cpu,
        ..OrtOptions::default()
    };
    let architecture = backbone.config.architecture;
    let mut encoder = OrtEncoder::open(Arc::new(backbone), options).unwrap();
    let bytes = std::fs::read(reference).unwrap();
    let reference = TensorFile::parse(&bytes).unwrap();
    verify(&mut encoder, architecture, &reference, &[]).unwrap()
}

fn assert_all_within_tolerance(verification: &Verification, names: &[&str]) {
    let compared: Vec<&str> = verification
        .tensors
        .iter()
        .map(|check| check.name.as_str())
        .collect();
    assert_eq!(compared, names);
    for check in &verification.tensors {
        assert!(
            check.ok,
            "{}: {} > {}",
            check.name, check.max_error, check.tolerance
        );
    }
    assert!(verification.ok);
}

#[test]
fn onnx_runtime_agrees_with_transformers_on_the_tiny_models() {
    for name in ["vit-tiny", "dinov2-tiny", "clip-tiny"] {
        let folder = project("tests/golden").join(name);
        let backbone = load_folder(&folder).unwrap();
        let verification = ort_verification(backbone, &folder.join("reference.safetensors"));
        assert_all_within_tolerance(
            &verification,
            &["features", "cls_attention", "last_hidden_state"],
        );
        assert!(verification.skipped.contains(&"adapter_ce".to_owned()));
    }
}

#[test]
fn onnx_runtime_agrees_with_pytorch_on_the_embedded_backbone_at_three_sizes() {
    let verification = ort_verification(
        embedded().unwrap(),
        &project("assets/dinov2-s8/reference.safetensors"),
    );
    assert_all_within_tolerance(
        &verification,
        &[
            "cls_126",
            "mean_patch_126",
            "cls_224",
            "mean_patch_224",
            "cls_98",
            "mean_patch_98",
        ],
    );
    assert_eq!(verification.skipped, Vec::<String>::new());
}

#[test]
fn the_embedded_backbone_is_the_folder_in_the_assets() {
    let folder = load_folder(&project("assets/dinov2-s8")).unwrap();
    let embedded = embedded().unwrap();
    assert_eq!(folder.digest, embedded.digest);
    assert_eq!(EMBEDDED_DIGEST, embedded.digest);
    assert_eq!(embedded_config().unwrap(), embedded.config);
}

#[test]
fn verify_checks_golden_adapters_of_both_name_styles_and_the_published_file_on_both_encoders() {
    let models = ["vit-tiny", "dinov2-tiny", "clip-tiny"];
    for (model, encoder) in models
        .into_iter()
        .flat_map(|model| [(model, "ort"), (model, "native")])
    {
        let data = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_lora-recycle"))
            .args(["verify", "--json", "--encoder", encoder, "--data-dir"])
            .arg(data.path())
            .arg(project("tests/golden").join(model))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{model} {encoder}: {errors}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let names: Vec<&str> = result["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| check["name"].as_str().unwrap())
            .collect();
        let mut expected: Vec<String> = ["features", "cls_attention", "last_hidden_state"]
            .map(str::to_owned)
            .to_vec();
        for folder in ["adapter-peft-v4", "adapter-peft-v5"] {
            for tensor in ["features", "cls_attention", "logits", "ce"] {
                expected.push(format!("{folder}/adapter_{tensor}"));
            }
        }
        if model == "clip-tiny" {
            expected.extend(["official/full.logits", "official/full.ce"].map(str::to_owned));
        }
        assert_eq!(names, expected, "{model}");
    }
}
