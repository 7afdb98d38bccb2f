//! Import: named files in, a checked adapter or a report of everything that is wrong out. Nothing is half imported.
//! Knows layouts of files; what is done with the result is for others.

mod peft;
mod published;

pub use peft::{Side, peft_lora_matrix};
pub(super) use published::site as published_site;

use super::files::NamedFile;
use super::layer_names::NameStyle;
use super::peft_config::{self, ReadConfig};
use super::report::{
    BackboneCandidate, BackboneFit, ConfigSummary, FileEntry, HeadSummary, ImportReport,
    MOST_REASONS, SiteSummary, SourceFormat, TensorEntry, TensorStatus,
};
use super::{Adapter, Head, HeadInput, LowRankPair, Site, split_adapters};
use crate::digest::hex;
use crate::tensor::Tensor;
use crate::tensor_file::{
    MOST_TENSORS, TensorError, TensorFile, TensorFileError, TensorFileLimits,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Keys of the weights file's metadata that an export writes and an import reads.
pub(super) const BACKBONE_DIGEST_KEY: &str = "lora_recycle.backbone_digest";
pub(super) const LABELS_KEY: &str = "lora_recycle.labels";
pub(super) const HEAD_INPUT_KEY: &str = "lora_recycle.head_input";

/// "none" where the bias in the file is only there because a class of transformers has one.
pub(super) const HEAD_BIAS_KEY: &str = "lora_recycle.head_bias";

pub(super) const CONFIG_FILE: &str = "adapter_config.json";
pub(super) const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// A head that none of Hugging Face's classes has a place for, beside PEFT's files.
pub(super) const HEAD_FILE: &str = "head.safetensors";

/// Longest `adapter_config.json` that is parsed.
const LARGEST_CONFIG_BYTES: usize = 4 << 20;
/// Longest list of errors in a report.
const MOST_ERRORS: usize = 100;
/// Most tensors that the report on a refused adapter lists.
const MOST_LISTED_TENSORS: usize = 1000;

/// What a weights file may hold. A backbone of 48 layers has 576 tensors in an adapter for all of its linear maps.
pub(super) const WEIGHTS_LIMITS: TensorFileLimits = TensorFileLimits {
    most_tensors: MOST_TENSORS,
    longest_name_bytes: 256,
    most_axes: 8,
};

/// An adapter that passed every check.
#[derive(Debug, Clone)]
pub struct Imported {
    /// What the tensors became.
    pub adapter: Adapter,
    /// Without errors.
    pub report: ImportReport,
    /// The candidate that it fits.
    pub backbone: BackboneCandidate,
}

/// Imports one adapter from its files for one of the `candidates`.
///
/// # Errors
/// The report, with at least one sentence in `errors`.
pub fn import(
    files: &[NamedFile],
    candidates: &[BackboneCandidate],
) -> Result<Imported, Box<ImportReport>> {
    let mut report = ImportReport::default();
    let adapters = split_adapters(files);
    let files = match adapters.as_slice() {
        [] => {
            report.files = files.iter().map(file_entry).collect();
            report.errors = vec![nothing_found(files)];
            return Err(Box::new(report));
        }
        [(_, files)] => files,
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
            report.errors = vec![format!(
                "there are {} adapters: {}; import them one by one",
                several.len(),
                shown_names(&names)
            )];
            return Err(Box::new(report));
        }
    };
    report.files = files.iter().map(file_entry).collect();
    match import_files(files, candidates, &mut report) {
        Some((adapter, backbone)) if report.errors.is_empty() => {
            report.adapter_digest = Some(adapter.digest());
            report.backbone = Some(backbone.name.clone());
            Ok(Imported {
                adapter,
                report,
                backbone,
            })
        }
        _ => {
            if report.errors.is_empty() {
                report
                    .errors
                    .push("the adapter could not be read; please report this".into());
            }
            shorten(&mut report.errors);
            shorten_tensors(&mut report);
            Err(Box::new(report))
        }
    }
}

fn import_files(
    files: &[NamedFile],
    candidates: &[BackboneCandidate],
    report: &mut ImportReport,
) -> Option<(Adapter, BackboneCandidate)> {
    let named = |name: &str| files.iter().find(|file| file.path == name);
    let config = named(CONFIG_FILE);
    let weights = named(WEIGHTS_FILE).or_else(|| match files {
        [only] if config.is_none() => Some(only),
        _ => None,
    });
    let pickles: Vec<&str> = files
        .iter()
        .map(|file| file.path.as_str())
        .filter(|path| is_pickle(path))
        .collect();
    let Some(weights) = weights else {
        report.errors.push(match pickles.first() {
            Some(pickle) => format!(
                "{pickle} is a pickle file; pickle can run code and is never read. Save the adapter with save_pretrained(…, safe_serialization=True)"
            ),
            None => format!("{WEIGHTS_FILE} is missing"),
        });
        return None;
    };
    for pickle in pickles {
        report.warnings.push(format!(
            "{pickle} is a pickle file and was not read; the weights come from {}",
            weights.path
        ));
    }
    let file = match TensorFile::parse_within(&weights.bytes, WEIGHTS_LIMITS) {
        Ok(file) => Some(file),
        Err(error) => {
            report
                .errors
                .push(weights_error(&weights.path, &weights.bytes, &error));
            None
        }
    };
    let read = config.map(|config| read_config(config, report));
    let file = file?;
    let source = ImportInput {
        file: &file,
        files,
        candidates,
    };
    match read {
        Some(read) => {
            report.format = Some(SourceFormat::Peft);
            peft::import(&source, read.config?, report)
        }
        None if published::is_published(&file) => {
            report.format = Some(SourceFormat::Published);
            published::import(&source, report)
        }
        None => {
            report.errors.push(format!(
                "{CONFIG_FILE} is missing; without it the scale of the adapter is unknown. Import the whole folder that PEFT saved"
            ));
            None
        }
    }
}

fn read_config(config: &NamedFile, report: &mut ImportReport) -> ReadConfig {
    if config.bytes.len() > LARGEST_CONFIG_BYTES {
        report.errors.push(format!(
            "{CONFIG_FILE} has {} bytes, more than the {LARGEST_CONFIG_BYTES} allowed",
            config.bytes.len()
        ));
        return ReadConfig::default();
    }
    let mut read = peft_config::read(&config.bytes);
    report.errors.append(&mut read.errors);
    report.warnings.append(&mut read.warnings);
    if let Some(document) = &read.document {
        let value = |key: &str| document.get(key).cloned().unwrap_or(Value::Null);
        let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
        report.config = Some(ConfigSummary {
            rank: value("r"),
            alpha: value("lora_alpha"),
            rank_stabilised: read.config.as_ref().is_some_and(|c| c.rank_stabilised),
            target_modules: value("target_modules"),
            layers_to_transform: value("layers_to_transform"),
            modules_to_save: read
                .config
                .as_ref()
                .map(|config| config.modules_to_save.clone())
                .unwrap_or_default(),
            base_model: read
                .config
                .as_ref()
                .and_then(|config| config.base_model.clone())
                .or_else(|| text("base_model_name_or_path")),
            base_model_class: read
                .config
                .as_ref()
                .and_then(|config| config.base_model_class.clone()),
            peft_version: read
                .config
                .as_ref()
                .and_then(|config| config.peft_version.clone())
                .or_else(|| text("peft_version")),
        });
    }
    read
}

/// What both layouts are read from.
struct ImportInput<'s, 'b> {
    file: &'s TensorFile<'b>,
    files: &'s [NamedFile],
    candidates: &'s [BackboneCandidate],
}

/// A layout's tensors held against one backbone.
#[derive(Default)]
struct CheckedLayout {
    entries: Vec<TensorEntry>,
    /// One sentence a problem.
    problems: Vec<String>,
    /// Names of the tensors `A` and `B` and the scale, by site.
    pairs: BTreeMap<Site, (String, String, f32)>,
    head: Option<HeadNames>,
    style: Option<NameStyle>,
}

/// Where a head's tensors are, and what it reads.
struct HeadNames {
    weight: String,
    bias: Option<String>,
    input: HeadInput,
}

impl CheckedLayout {
    /// Adds a row, and a sentence where it is a problem.
    fn add(&mut self, entry: TensorEntry) {
        if entry.status.is_problem() {
            self.problems.push(sentence(&entry));
        }
        self.entries.push(entry);
    }
}

fn sentence(entry: &TensorEntry) -> String {
    let detail = entry.detail.as_deref().unwrap_or("cannot be used");
    format!("{}: {detail}", entry.name)
}

/// Holds the layout against every candidate, records how each fits and returns the one to take, or, where none can be taken, leaves
/// the errors in the report.
fn choose<'c>(
    candidates: &'c [BackboneCandidate],
    named_digest: Option<&str>,
    report: &mut ImportReport,
    check: impl Fn(&BackboneCandidate) -> CheckedLayout,
) -> Option<(&'c BackboneCandidate, CheckedLayout)> {
    if candidates.is_empty() {
        report.errors.push(
            "there is no backbone to hold the adapter against; add the one that it was tuned on first".into(),
        );
        return None;
    }
    let mut checked: Vec<(&BackboneCandidate, CheckedLayout)> = candidates
        .iter()
        .map(|candidate| (candidate, check(candidate)))
        .collect();
    for (candidate, checked) in &checked {
        report.backbones.push(BackboneFit {
            name: candidate.name.clone(),
            digest: candidate.digest.clone(),
            fits_by_shape: checked.problems.is_empty(),
            fits_by_digest: named_digest.map(|digest| digest == candidate.digest),
            reasons: checked
                .problems
                .iter()
                .take(MOST_REASONS)
                .cloned()
                .collect(),
        });
    }
    if let Some(digest) = named_digest {
        checked.retain(|(candidate, _)| candidate.digest == digest);
        if checked.is_empty() {
            let names: Vec<&str> = candidates.iter().map(|c| c.name.as_str()).collect();
            report.errors.push(format!(
                "the adapter was made for the backbone with digest {digest}; no such backbone is here ({})",
                shown_names(&names)
            ));
            return None;
        }
        checked.truncate(1);
    }
    let fitting: Vec<&str> = checked
        .iter()
        .filter(|(_, checked)| checked.problems.is_empty())
        .map(|(candidate, _)| candidate.name.as_str())
        .collect();
    if fitting.len() > 1 {
        report.errors.push(format!(
            "the adapter fits {} backbones by shape: {}; say which one it was tuned on",
            fitting.len(),
            shown_names(&fitting)
        ));
        return None;
    }
    let several = checked.len() > 1;
    let (candidate, mut best) = checked
        .into_iter()
        .min_by_key(|(_, checked)| checked.problems.len())?;
    if !best.problems.is_empty() && several {
        report.errors.push(format!(
            "the adapter fits none of the backbones; what follows is against {}, the nearest",
            candidate.name
        ));
    }
    report.errors.append(&mut best.problems);
    report.names = best.style;
    Some((candidate, best))
}

/// Reads the values that passed the check of names and shapes.
fn build(
    source: &ImportInput<'_, '_>,
    checked: &mut CheckedLayout,
    report: &mut ImportReport,
) -> Adapter {
    let mut adapter = Adapter::default();
    let mut values: BTreeMap<String, Tensor> = BTreeMap::new();
    for entry in &mut checked.entries {
        if !matches!(entry.status, TensorStatus::Used | TensorStatus::Renamed) {
            continue;
        }
        match source.file.read(&entry.name) {
            Ok(tensor) => {
                values.insert(entry.name.clone(), tensor);
            }
            Err(error) => {
                entry.status = match error {
                    TensorError::NotFinite { .. } => TensorStatus::NotFinite,
                    TensorError::Dtype { .. } | TensorError::OtherType { .. } => {
                        TensorStatus::WrongDtype
                    }
                    TensorError::Missing(_) => TensorStatus::Missing,
                    TensorError::Shape { .. } => TensorStatus::Misshapen,
                };
                entry.detail = Some(error.to_string());
                report.errors.push(error.to_string());
            }
        }
    }
    for (&site, (a, b, scale)) in &checked.pairs {
        if let (Some(a), Some(b)) = (values.remove(a), values.remove(b)) {
            report.sites.push(SiteSummary {
                site,
                rank: a.shape()[0],
                scale: *scale,
            });
            let scale = *scale;
            adapter.pairs.insert(site, LowRankPair { a, b, scale });
        }
    }
    if !adapter.pairs.is_empty()
        && adapter
            .pairs
            .values()
            .all(|pair| pair.b.data().iter().all(|&value| value == 0.0))
    {
        report
            .warnings
            .push("every B is zero: the adapter changes nothing".into());
    }
    if let Some(names) = &checked.head {
        adapter.head = values.remove(&names.weight).map(|weight| Head {
            weight,
            bias: names
                .bias
                .as_ref()
                .and_then(|bias| values.remove(bias))
                .filter(|_| {
                    source
                        .file
                        .metadata()
                        .get(HEAD_BIAS_KEY)
                        .is_none_or(|b| b != "none")
                }),
            input: names.input,
            labels: Vec::new(),
        });
    }
    adapter
}

/// Notes the head in the report, with its labels where they are known and as many as there are classes.
fn finish_head(adapter: &mut Adapter, labels: Option<Vec<String>>, report: &mut ImportReport) {
    let Some(head) = &mut adapter.head else {
        return;
    };
    let classes = head.weight.shape()[0];
    match labels {
        Some(labels) if labels.len() == classes => head.labels = labels,
        Some(labels) => report.warnings.push(format!(
            "{} labels are named for a head of {classes} classes; they were left out",
            labels.len()
        )),
        None => {}
    }
    report.head = Some(HeadSummary {
        classes,
        inputs: head.weight.shape()[1],
        bias: head.bias.is_some(),
        input: head.input,
        labels: head.labels.clone(),
    });
}

fn labels_in_metadata(file: &TensorFile<'_>) -> Option<Vec<String>> {
    serde_json::from_str(file.metadata().get(LABELS_KEY)?).ok()
}

fn file_entry(file: &NamedFile) -> FileEntry {
    FileEntry {
        path: file.path.clone(),
        bytes: file.bytes.len() as u64,
        sha256: hex(&Sha256::digest(&file.bytes)),
    }
}

fn weights_error(path: &str, bytes: &[u8], error: &TensorFileError) -> String {
    if bytes.starts_with(b"version https://git-lfs") {
        return format!(
            "{path} is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`"
        );
    }
    format!("{path}: {error}")
}

fn nothing_found(files: &[NamedFile]) -> String {
    match files.iter().find(|file| is_pickle(&file.path)) {
        Some(pickle) => format!(
            "{} is a pickle file; pickle can run code and is never read. Save the adapter as safetensors",
            pickle.path
        ),
        None => format!("no adapter found: there is no {CONFIG_FILE} and no .safetensors file"),
    }
}

fn is_pickle(path: &str) -> bool {
    [".bin", ".pt", ".pth", ".pkl", ".ckpt"]
        .iter()
        .any(|ending| path.to_ascii_lowercase().ends_with(ending))
}

fn shown_names(names: &[&str]) -> String {
    const MOST: usize = 10;
    let mut shown: Vec<&str> = names.iter().take(MOST).copied().collect();
    if names.len() > MOST {
        shown.push("…");
    }
    let quoted: Vec<String> = shown.iter().map(|name| format!("\"{name}\"")).collect();
    quoted.join(", ")
}

fn shorten(errors: &mut Vec<String>) {
    if errors.len() > MOST_ERRORS {
        let more = errors.len() - MOST_ERRORS;
        errors.truncate(MOST_ERRORS);
        errors.push(format!("and {more} more"));
    }
}

/// Problems come first: what was fine is not why the adapter is refused.
fn shorten_tensors(report: &mut ImportReport) {
    if report.tensors.len() > MOST_LISTED_TENSORS {
        report.warnings.push(format!(
            "the adapter has {} tensors; {MOST_LISTED_TENSORS} are listed",
            report.tensors.len()
        ));
        report
            .tensors
            .sort_by_key(|entry| !entry.status.is_problem());
        report.tensors.truncate(MOST_LISTED_TENSORS);
    }
}
