//! Export: an adapter as the folder that PEFT loads, under the names of transformers 4 or 5, with a model card; or as the published
//! single file where that can hold it.

use super::export_options::ExportOptions;
use super::files::NamedFile;
use super::import::{
    BACKBONE_DIGEST_KEY, CONFIG_FILE, HEAD_BIAS_KEY, HEAD_FILE, HEAD_INPUT_KEY, LABELS_KEY,
    WEIGHTS_FILE, published_site,
};
use super::layer_names::module_path;
use super::model_card;
use super::report::BackboneCandidate;
use super::{Adapter, Head, HeadInput, LowRankPair, ShapeMismatch, Site};
use crate::backbone::{Architecture, BackboneConfig, Pooling};
use crate::tensor::Tensor;
use crate::tensor_file;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use thiserror::Error;

/// Why an adapter cannot be exported.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum ExportError {
    #[error("{0}; choose the backbone that the adapter was made for")]
    Shape(#[from] ShapeMismatch),
    #[error("an adapter without low-rank pairs cannot be exported")]
    Empty,
    #[error("the published layout cannot hold this adapter: {0}; export a PEFT folder instead")]
    NotRepresentable(String),
    #[error("the tensors could not be written: {0}")]
    Write(String),
}

/// The files of a PEFT folder.
///
/// # Errors
/// [`ExportError`]
pub fn export_peft(
    adapter: &Adapter,
    options: &ExportOptions<'_>,
) -> Result<Vec<NamedFile>, ExportError> {
    let model = &options.backbone.config;
    adapter.check_shapes(model)?;
    if adapter.pairs.is_empty() {
        return Err(ExportError::Empty);
    }
    let class = ModelClass::of(adapter, model);
    let path = |site| module_path(model.architecture, options.names, class.prefix, site);
    let mut tensors = BTreeMap::new();
    for (&site, pair) in &adapter.pairs {
        let module = format!("base_model.model.{}", path(site));
        tensors.insert(format!("{module}.lora_A.weight"), pair.a.clone());
        tensors.insert(format!("{module}.lora_B.weight"), pair.b.clone());
    }
    let mut metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        (
            BACKBONE_DIGEST_KEY.to_owned(),
            options.backbone.digest.clone(),
        ),
    ]);
    let mut files = Vec::new();
    if let Some(head) = &adapter.head {
        let notes = head_metadata(head);
        let bias = head.bias.clone();
        if class.has_classifier {
            metadata.extend(notes);
            let classes = head.weight.shape()[0];
            tensors.insert(
                "base_model.model.classifier.weight".into(),
                head.weight.clone(),
            );
            // The classes of transformers have a bias always; one that is not in the file would stay random.
            tensors.insert(
                "base_model.model.classifier.bias".into(),
                bias.unwrap_or_else(|| Tensor::zeros([classes])),
            );
        } else {
            let mut parts = BTreeMap::from([("weight".to_owned(), head.weight.clone())]);
            parts.extend(bias.map(|bias| ("bias".to_owned(), bias)));
            files.push(NamedFile::new(HEAD_FILE, write(&parts, &notes)?));
        }
    }
    let config = config(adapter, options, &class, path);
    let mut text = serde_json::to_string_pretty(&Value::Object(config))
        .map_err(|error| ExportError::Write(error.to_string()))?;
    text.push('\n');
    files.push(NamedFile::new(CONFIG_FILE, text));
    files.push(NamedFile::new(WEIGHTS_FILE, write(&tensors, &metadata)?));
    files.push(NamedFile::new(
        "README.md",
        model_card::write(adapter, options, class.name, class.has_classifier),
    ));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The class of transformers that an adapter is written for.
struct ModelClass {
    name: &'static str,
    module: &'static str,
    prefix: &'static str,
    /// Whether the head goes into the class's classifier.
    has_classifier: bool,
}

impl ModelClass {
    fn of(adapter: &Adapter, model: &BackboneConfig) -> Self {
        let reads = adapter.head.as_ref().map(|head| match head.input {
            HeadInput::Cls => Some(Pooling::Cls),
            HeadInput::ClsMean => Some(Pooling::ClsMean),
            HeadInput::Feature if model.projection_width.is_none() => Some(model.pooling),
            HeadInput::Feature => None,
        });
        let classifier = |pooling| reads == Some(Some(pooling));
        let (name, module, prefix, has_classifier) = match model.architecture {
            Architecture::Vit if classifier(Pooling::Cls) => {
                ("ViTForImageClassification", "vit", "vit.", true)
            }
            Architecture::Vit => ("ViTModel", "vit", "", false),
            Architecture::Dinov2 if classifier(Pooling::ClsMean) => {
                ("Dinov2ForImageClassification", "dinov2", "dinov2.", true)
            }
            Architecture::Dinov2 => ("Dinov2Model", "dinov2", "", false),
            Architecture::Clip => ("CLIPModel", "clip", "vision_model.", false),
        };
        Self {
            name,
            module,
            prefix,
            has_classifier,
        }
    }
}

fn head_metadata(head: &Head) -> BTreeMap<String, String> {
    let input = match head.input {
        HeadInput::Feature => "feature",
        HeadInput::Cls => "cls",
        HeadInput::ClsMean => "cls_mean",
    };
    let mut metadata = BTreeMap::from([(HEAD_INPUT_KEY.to_owned(), input.to_owned())]);
    if head.bias.is_none() {
        metadata.insert(HEAD_BIAS_KEY.to_owned(), "none".to_owned());
    }
    if !head.labels.is_empty() {
        metadata.insert(LABELS_KEY.to_owned(), json!(head.labels).to_string());
    }
    metadata
}

/// `lora_alpha` that gives back `scale` when PEFT divides it by the rank; exact, since both numbers are short.
fn alpha(pair: &LowRankPair) -> f64 {
    f64::from(pair.scale) * pair.rank() as f64
}

fn config(
    adapter: &Adapter,
    options: &ExportOptions<'_>,
    class: &ModelClass,
    path: impl Fn(Site) -> String,
) -> Map<String, Value> {
    let rank = most_common(adapter.pairs.values().map(LowRankPair::rank)).unwrap_or(1);
    let usual_alpha =
        most_common(adapter.pairs.values().map(|f| alpha(f).to_bits())).map_or(1.0, f64::from_bits);
    let mut rank_pattern = Map::new();
    let mut alpha_pattern = Map::new();
    for (&site, pair) in &adapter.pairs {
        if pair.rank() != rank {
            rank_pattern.insert(path(site), json!(pair.rank()));
        }
        if alpha(pair) != usual_alpha {
            alpha_pattern.insert(path(site), number(alpha(pair)));
        }
    }
    // Whole paths, so that the rule means these maps and no others in every version, also in CLIP's text model.
    let targets: Vec<String> = adapter.pairs.keys().map(|&site| path(site)).collect();
    let module = format!("transformers.models.{0}.modeling_{0}", class.module);
    let document = json!({
        "alpha_pattern": alpha_pattern,
        "auto_mapping": {"base_model_class": class.name, "parent_library": module},
        "base_model_name_or_path": options.base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": number(usual_alpha),
        "lora_dropout": 0.0,
        "modules_to_save": class.has_classifier.then_some(["classifier"]),
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": rank_pattern,
        "revision": null,
        "target_modules": targets,
        "task_type": null,
        "use_dora": false,
        "use_rslora": false,
    });
    match document {
        Value::Object(entries) => entries,
        _ => Map::new(),
    }
}

/// A whole number where the value is one, as PEFT writes it.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn most_common<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|&(_, count)| count)
        .map(|(value, _)| value)
}

/// The published single file.
///
/// # Errors
/// [`ExportError::NotRepresentable`] says what the layout has no place for.
pub fn export_published(
    adapter: &Adapter,
    backbone: &BackboneCandidate,
) -> Result<NamedFile, ExportError> {
    adapter.check_shapes(&backbone.config)?;
    if let Some(obstacle) = published_obstacle(adapter, &backbone.config) {
        return Err(ExportError::NotRepresentable(obstacle));
    }
    let mut tensors = BTreeMap::new();
    for (index, pair) in adapter.pairs.values().enumerate() {
        // The layout has no scale; it goes into B.
        let scaled = pair.b.data().iter().map(|v| v * pair.scale).collect();
        let b = Tensor::new(pair.b.shape(), scaled)
            .map_err(|error| ExportError::Write(error.to_string()))?;
        tensors.insert(format!("w_a_{index:03}"), pair.a.clone());
        tensors.insert(format!("w_b_{index:03}"), b);
    }
    let mut metadata = BTreeMap::from([(BACKBONE_DIGEST_KEY.to_owned(), backbone.digest.clone())]);
    if let Some(head) = &adapter.head {
        let (classes, inputs) = (head.weight.shape()[0], head.weight.shape()[1]);
        tensors.insert(format!("fc_{inputs}in_{classes}out"), head.weight.clone());
        if !head.labels.is_empty() {
            metadata.insert(LABELS_KEY.to_owned(), json!(head.labels).to_string());
        }
    }
    Ok(NamedFile::new(
        "lora.safetensors",
        write(&tensors, &metadata)?,
    ))
}

/// What the published layout has no place for, if anything.
pub fn published_obstacle(adapter: &Adapter, model: &BackboneConfig) -> Option<String> {
    let sites: Vec<Site> = (0..2 * model.layers).map(published_site).collect();
    if !adapter.pairs.keys().eq(sites.iter()) {
        return Some("it holds query and value of every layer, no more and no less".into());
    }
    let rank = adapter.largest_rank();
    if adapter.pairs.values().any(|pair| pair.rank() != rank) {
        return Some("it holds one rank".into());
    }
    let head = adapter.head.as_ref()?;
    if head.bias.is_some() {
        return Some("its head has no bias".into());
    }
    if head.weight.shape()[1] != model.feature_width() || head.input != HeadInput::Feature {
        return Some("its head reads the backbone's feature".into());
    }
    None
}

fn write(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, ExportError> {
    tensor_file::write(tensors, metadata).map_err(ExportError::Write)
}
