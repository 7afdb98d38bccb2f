//! Checkpoints and reference values: `tests/golden` and the embedded backbone's.

use engine::session::SessionOptions;
use lora_recycle::inference::{Device, EncoderChoice, OrtOptions, open_encoder};
use lora_recycle::verify::{Verification, VerifyError, verify_folder};
use model::backbone::{EMBEDDED_DIGEST, embedded, embedded_config, load_folder};
use model::tensor_file::TensorFile;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use test_support::project;
use test_support::reference::change_one_value;

const BACKBONES: [&str; 3] = ["vit-tiny", "dinov2-tiny", "clip-tiny"];
const FOLDERS: [&str; 4] = ["vit-tiny", "dinov2-tiny", "clip-tiny", "resnet-tiny"];
const ENCODERS: [EncoderChoice; 2] = [EncoderChoice::Ort, EncoderChoice::Native];

fn verified(folder: &Path, encoder: EncoderChoice) -> Result<Verification, VerifyError> {
    verify_folder(folder, &SessionOptions::on_threads(2), |backbone| {
        let options = OrtOptions {
            threads: 2,
            device: Device::Cpu,
            cache_folder: None,
        };
        open_encoder(backbone, encoder, options)
    })
}

/// The names of the tensors in a folder's reference.
fn names(folder: &Path) -> Vec<String> {
    let bytes = fs::read(folder.join("reference.safetensors")).unwrap();
    let file = TensorFile::parse(&bytes).unwrap();
    file.names().map(str::to_owned).collect()
}

fn assert_passes(name: &str, verification: &Verification) {
    for check in &verification.tensors {
        println!(
            "{name} {}: {:.1} % of the allowance",
            check.name,
            100.0 * check.max_error / check.tolerance.max(f32::MIN_POSITIVE)
        );
        assert!(check.ok, "{name}: {check:?}");
    }
    assert!(verification.ok, "{name}");
}

#[test]
fn verify_passes_on_every_golden_folder_and_checks_every_tensor() {
    for (name, encoder) in FOLDERS
        .into_iter()
        .flat_map(|name| ENCODERS.map(|encoder| (name, encoder)))
    {
        let folder = project("tests/golden").join(name);
        let verification = verified(&folder, encoder).unwrap();
        assert_passes(&format!("{name} {encoder:?}"), &verification);
        let mut inputs = vec!["pixel_values"];
        if BACKBONES.contains(&name) {
            inputs.extend(["labels", "teacher_logits"]);
        }
        let mut expected: BTreeSet<String> = BTreeSet::new();
        if name == "clip-tiny" {
            // Its head stands in the reference alone.
            let published = [
                "official/sparse.tokens",
                "official/inversion.init",
                "official/inversion.augment_dy_dx_flip",
            ];
            inputs.push("head_weight");
            inputs.extend(published);
            for tensor in names(&folder.join("official")) {
                let name = format!("official/{tensor}");
                if !published.contains(&name.as_str()) {
                    expected.insert(name);
                }
            }
        }
        inputs.sort_unstable();
        for tensor in names(&folder) {
            let of_an_adapter = ["adapter_", "episode_", "head_"]
                .iter()
                .any(|prefix| tensor.starts_with(prefix));
            if inputs.contains(&tensor.as_str()) {
                continue;
            }
            if of_an_adapter {
                for adapter in ["adapter-peft-v4", "adapter-peft-v5"] {
                    expected.insert(format!("{adapter}/{tensor}"));
                }
            } else {
                expected.insert(tensor);
            }
        }
        let checked: BTreeSet<String> = verification
            .tensors
            .iter()
            .map(|check| check.name.clone())
            .collect();
        assert_eq!(checked, expected, "{name}");
        assert_eq!(checked.len(), verification.tensors.len(), "{name}");
        let mut found = verification.inputs.clone();
        found.sort_unstable();
        assert_eq!(found, inputs, "{name}");
        assert!(verification.skipped.is_empty(), "{name}");
    }
}

#[test]
fn verify_passes_on_the_embedded_backbone_at_three_image_sizes() {
    for encoder in ENCODERS {
        let verification = verified(&project("assets/dinov2-s8"), encoder).unwrap();
        assert_passes("dinov2-s8", &verification);
        let checked: Vec<&str> = verification
            .tensors
            .iter()
            .map(|check| check.name.as_str())
            .collect();
        let expected = [
            "cls_126",
            "mean_patch_126",
            "cls_224",
            "mean_patch_224",
            "cls_98",
            "mean_patch_98",
        ];
        assert_eq!(checked, expected);
        assert_eq!(
            verification.inputs,
            ["pixels_126", "pixels_224", "pixels_98"]
        );
        assert!(verification.skipped.is_empty());
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A copy of a golden folder in which one value of each of `tensors` (`official/…` for those beside an adapter) is changed.
fn changed_copy(name: &str, tensors: &[String]) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&project("tests/golden").join(name), copy.path());
    for tensor in tensors {
        let (folder, tensor) = match tensor.strip_prefix("official/") {
            Some(tensor) => (copy.path().join("official"), tensor),
            None => (copy.path().to_owned(), tensor.as_str()),
        };
        let path = folder.join("reference.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        change_one_value(&mut bytes, tensor);
        fs::write(path, bytes).unwrap();
    }
    copy
}

/// The name of a checked tensor in the file that it was read from.
fn name_in_file(checked: &str) -> String {
    let own = checked
        .strip_prefix("adapter-peft-v4/")
        .or_else(|| checked.strip_prefix("adapter-peft-v5/"));
    own.unwrap_or(checked).to_owned()
}

#[test]
fn one_changed_value_of_any_checked_tensor_fails_the_check_of_that_tensor() {
    for name in FOLDERS {
        let folder = project("tests/golden").join(name);
        let unchanged = verified(&folder, EncoderChoice::Native).unwrap();
        let all: BTreeSet<String> = unchanged
            .tensors
            .iter()
            .map(|check| name_in_file(&check.name))
            .collect();
        // Every second tensor at a time, so that checks that must pass stand beside checks that must fail.
        for half in [0, 1] {
            let changed: Vec<String> = all.iter().skip(half).step_by(2).cloned().collect();
            let copy = changed_copy(name, &changed);
            let verification = verified(copy.path(), EncoderChoice::Native).unwrap();
            assert!(!verification.ok, "{name}");
            assert_eq!(verification.tensors.len(), unchanged.tensors.len());
            for check in &verification.tensors {
                let own = name_in_file(&check.name);
                assert_eq!(check.ok, !changed.contains(&own), "{name}: {check:?}");
                assert_eq!(check.ok, check.detail.is_none());
            }
        }
    }
}

#[test]
fn one_changed_value_of_any_input_is_seen_in_what_is_computed_from_it() {
    for name in FOLDERS {
        let folder = project("tests/golden").join(name);
        for input in verified(&folder, EncoderChoice::Native).unwrap().inputs {
            let copy = changed_copy(name, std::slice::from_ref(&input));
            let passes = match verified(copy.path(), EncoderChoice::Native) {
                Ok(verification) => verification.ok,
                Err(error) => {
                    println!("{name} {input}: {error}");
                    false
                }
            };
            assert!(!passes, "{name}: a change of {input} is not seen");
        }
    }
}

#[test]
fn a_reference_that_cannot_be_computed_from_is_refused_with_its_file_and_tensor() {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&project("tests/golden/vit-tiny"), copy.path());
    let path = copy.path().join("reference.safetensors");
    let refusal = || {
        verified(copy.path(), EncoderChoice::Native)
            .unwrap_err()
            .to_string()
    };
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let message = refusal();
    assert!(
        message.contains("reference.safetensors: the file is truncated"),
        "{message}"
    );
    fs::remove_file(&path).unwrap();
    assert!(refusal().contains("reference.safetensors"));
    fs::write(&path, &whole).unwrap();
    let stranger = copy.path().join("notes");
    fs::create_dir(&stranger).unwrap();
    fs::write(stranger.join("a.txt"), "no adapter").unwrap();
    assert!(matches!(
        verified(copy.path(), EncoderChoice::Native),
        Err(VerifyError::Adapter { .. })
    ));
}

#[test]
fn the_embedded_backbone_is_the_folder_in_the_assets() {
    let folder = load_folder(&project("assets/dinov2-s8")).unwrap();
    let embedded = embedded().unwrap();
    assert_eq!(folder.digest, embedded.digest);
    assert_eq!(EMBEDDED_DIGEST, embedded.digest);
    assert_eq!(embedded_config().unwrap(), embedded.config);
}
