//! What an adapter's weights file may hold, and how long the report on it becomes.

use crate::thread_memory::highest;
use model::adapter::{
    BackboneCandidate, FileLimits, ImportReport, MOST_RANK, NamedFile, Package, import,
};
use model::backbone::{EMBEDDED_DIGEST, embedded_config};
use model::tensor::Tensor;
use model::tensor_file::write;
use std::collections::BTreeMap;

fn embedded() -> Vec<BackboneCandidate> {
    vec![BackboneCandidate {
        name: "embedded".into(),
        digest: EMBEDDED_DIGEST.into(),
        config: embedded_config().unwrap(),
    }]
}

/// A file of empty tensors with these names, which the published layout begins.
fn empty_tensors(names: impl Iterator<Item = String>) -> Vec<u8> {
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let entries: Vec<String> = names.map(|name| format!("\"{name}\":{entry}")).collect();
    let header = format!("{{{}}}", entries.join(","));
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes()].concat()
}

fn refused(weights: Vec<u8>) -> (Box<ImportReport>, usize) {
    let files = [NamedFile::new("lora.safetensors", weights)];
    let (result, taken) = highest(|| import(&files, &embedded()));
    (result.unwrap_err(), taken)
}

#[test]
fn a_quarter_of_a_million_empty_tensors_are_refused_with_a_short_report() {
    let names = (0..200_000).map(|index| format!("w_a_{index:06}"));
    let weights = empty_tensors(names);
    // An import copies the files of the adapter that it finds.
    let copy = weights.len();
    let (report, taken) = refused(weights);
    assert!(
        report.errors[0].contains("names more than 10000 tensors"),
        "{:?}",
        report.errors
    );
    assert!(report.tensors.is_empty());
    assert!(taken < copy + (4 << 20), "{taken} bytes");
}

#[test]
fn a_report_on_as_many_tensors_as_allowed_stays_short() {
    let names = (0..10_000).map(|index| match index {
        0 => "w_a_000".to_owned(),
        _ => format!("{index:0>256}"),
    });
    let (report, _) = refused(empty_tensors(names));
    assert_eq!(report.tensors.len(), 1000);
    let length = serde_json::to_vec(&report).unwrap().len();
    assert!(length < 2 << 20, "{length} bytes");
    assert!(
        report.warnings.iter().any(|own| own.contains("are listed")),
        "{:?}",
        report.warnings
    );
}

#[test]
fn long_names_and_many_axes_are_refused_by_number_not_by_content() {
    let (report, _) = refused(empty_tensors(
        [format!("w_a_{}", "0".repeat(1 << 20))].into_iter(),
    ));
    assert!(
        report.errors[0].contains("more than the 256 allowed"),
        "{:.300}",
        report.errors[0]
    );
    let axes = vec!["1"; 100_000].join(",");
    let header =
        format!(r#"{{"w_a_000":{{"dtype":"F32","shape":[{axes}],"data_offsets":[0,4]}}}}"#);
    let length = (header.len() as u64).to_le_bytes();
    let (report, _) = refused([&length[..], header.as_bytes(), &[0; 4]].concat());
    assert!(
        report.errors[0].contains("100000 axes, more than the 8 allowed"),
        "{:.300}",
        report.errors[0]
    );
}

#[test]
fn a_rank_beyond_the_limit_is_refused_with_its_own_sentence() {
    let candidates = embedded();
    let config = &candidates[0].config;
    let weights = |rank: usize| {
        let pairs = (0..2 * config.layers).flat_map(|index| {
            let rank = if index == 3 { rank } else { 1 };
            [
                (
                    format!("w_a_{index:03}"),
                    Tensor::zeros([rank, config.width]),
                ),
                (
                    format!("w_b_{index:03}"),
                    Tensor::zeros([config.width, rank]),
                ),
            ]
        });
        let tensors: BTreeMap<String, Tensor> = pairs.collect();
        let bytes = write(&tensors, &BTreeMap::new()).unwrap();
        Package::of(vec![NamedFile::new("lora.safetensors", bytes)])
    };
    let unpack = |rank| weights(rank).unpack(&candidates, &FileLimits::default());
    assert!(unpack(MOST_RANK).is_ok());
    let report = unpack(MOST_RANK + 1).unwrap_err();
    assert_eq!(
        report.errors,
        [
            "the rank is 1025 (value of layer 1), more than the 1024 allowed; keep the largest singular values of B·A and import that"
        ]
    );
}
