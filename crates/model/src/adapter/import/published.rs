//! The published code's single file: `w_a_000`, `w_b_000`, … in the order query of layer 0, value of layer 0, query of layer 1, …;
//! scale 1; a head `fc_IinoutOout` without bias on the feature.

use super::{
    BACKBONE_DIGEST_KEY, CheckedLayout, HeadNames, ImportInput, build, choose, finish_head,
    labels_in_metadata,
};
use crate::adapter::report::{BackboneCandidate, ImportReport, TensorEntry, TensorStatus};
use crate::adapter::{Adapter, HeadInput, Site, Target};
use crate::tensor_file::TensorFile;

/// What a tensor's name says it is.
enum Role {
    A(usize),
    B(usize),
    Head { inputs: usize, classes: usize },
    Unknown,
}

fn role(name: &str) -> Role {
    let number = |digits: &str| {
        (digits.len() >= 3 && digits.len() <= 6 && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse().ok())
            .flatten()
    };
    if let Some(index) = name.strip_prefix("w_a_").and_then(number) {
        return Role::A(index);
    }
    if let Some(index) = name.strip_prefix("w_b_").and_then(number) {
        return Role::B(index);
    }
    let sizes = name
        .strip_prefix("fc_")
        .and_then(|rest| rest.strip_suffix("out"))
        .and_then(|rest| rest.split_once("in_"));
    match sizes.map(|(inputs, classes)| (inputs.parse(), classes.parse())) {
        Some((Ok(inputs), Ok(classes))) => Role::Head { inputs, classes },
        _ => Role::Unknown,
    }
}

/// The `index`-th pair of a file.
pub(in crate::adapter) fn site(index: usize) -> Site {
    Site {
        layer: index / 2,
        target: if index.is_multiple_of(2) {
            Target::Query
        } else {
            Target::Value
        },
    }
}

pub(super) fn is_published(file: &TensorFile<'_>) -> bool {
    file.names()
        .any(|name| matches!(role(name), Role::A(_) | Role::B(_)))
}

pub(super) fn import(
    source: &ImportInput<'_, '_>,
    report: &mut ImportReport,
) -> Option<(Adapter, BackboneCandidate)> {
    let digest = source.file.metadata().get(BACKBONE_DIGEST_KEY);
    let chosen = choose(
        source.candidates,
        digest.map(String::as_str),
        report,
        |candidate| check(source.file, candidate),
    );
    let (candidate, mut checked) = chosen?;
    let mut adapter = build(source, &mut checked, report);
    report.tensors = checked.entries;
    finish_head(&mut adapter, labels_in_metadata(source.file), report);
    Some((adapter, candidate.clone()))
}

fn check(file: &TensorFile<'_>, candidate: &BackboneCandidate) -> CheckedLayout {
    let mut checked = CheckedLayout::default();
    let config = &candidate.config;
    let pairs = 2 * config.layers;
    for name in file.names() {
        let shape = file.shape(name).unwrap_or_default();
        let mut entry = TensorEntry {
            name: name.to_owned(),
            status: TensorStatus::Renamed,
            shape: Some(shape.to_vec()),
            site: None,
            detail: None,
        };
        match role(name) {
            Role::A(index) | Role::B(index) if index >= pairs => refuse(
                &mut entry,
                format!(
                    "{name} is for layer {}, the backbone has {} layers",
                    index / 2,
                    config.layers
                ),
            ),
            Role::A(index) => {
                let fits = matches!(shape, [rank, inputs] if *rank > 0 && *inputs == config.width);
                place(&mut entry, index, fits, format!("[rank, {}]", config.width));
            }
            Role::B(index) => {
                let rank = file
                    .shape(&format!("w_a_{index:03}"))
                    .and_then(|shape| shape.first().copied());
                let fits = rank.is_none_or(|rank| shape == [config.width, rank]);
                let rank = rank.map_or("rank".to_owned(), |rank| rank.to_string());
                place(
                    &mut entry,
                    index,
                    fits,
                    format!("[{}, {rank}]", config.width),
                );
            }
            Role::Head { inputs, classes } => {
                let expected = [classes, config.feature_width()];
                if shape == expected && classes > 0 && inputs == config.feature_width() {
                    entry.detail = Some("the head, on the backbone's feature".into());
                    if checked.head.is_some() {
                        refuse(&mut entry, "a second head".into());
                    }
                    checked.head = Some(HeadNames {
                        weight: name.to_owned(),
                        bias: None,
                        input: HeadInput::Feature,
                    });
                } else {
                    misshape(&mut entry, format!("{expected:?}"));
                }
            }
            Role::Unknown => refuse(
                &mut entry,
                "is none of w_a_NNN, w_b_NNN and fc_IinoutOout".into(),
            ),
        }
        checked.add(entry);
    }
    for index in 0..pairs {
        let names = [format!("w_a_{index:03}"), format!("w_b_{index:03}")];
        for name in &names {
            if file.shape(name).is_none() {
                checked.add(TensorEntry {
                    name: name.clone(),
                    status: TensorStatus::Missing,
                    shape: None,
                    site: Some(site(index)),
                    detail: Some(format!(
                        "missing; a file for {} layers holds {pairs} pairs",
                        config.layers
                    )),
                });
            }
        }
        let [a, b] = names;
        checked.pairs.insert(site(index), (a, b, 1.0));
    }
    checked
}

fn place(entry: &mut TensorEntry, index: usize, fits: bool, expected: String) {
    entry.site = Some(site(index));
    if fits {
        entry.detail = Some(format!("read as {}", site(index)));
    } else {
        misshape(entry, expected);
    }
}

fn misshape(entry: &mut TensorEntry, expected: String) {
    entry.status = TensorStatus::Misshapen;
    entry.detail = Some(format!(
        "shape {:?}, expected {expected}",
        entry.shape.as_deref().unwrap_or_default()
    ));
}

fn refuse(entry: &mut TensorEntry, reason: String) {
    entry.status = TensorStatus::Refused;
    entry.detail = Some(reason);
}
