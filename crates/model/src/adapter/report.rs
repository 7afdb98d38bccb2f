//! What an import found: made before anything is stored, kept afterwards, shown as a table or as JSON.

use super::{HeadInput, NameStyle, Site};
use crate::backbone::{Backbone, BackboneConfig};
use serde::{Deserialize, Serialize};

/// A backbone that an adapter may be for.
#[derive(Debug, Clone)]
pub struct BackboneCandidate {
    /// What people call it.
    pub name: String,
    /// See [`Backbone::digest`].
    pub digest: String,
    /// Decides which shapes fit.
    pub config: BackboneConfig,
}

impl BackboneCandidate {
    /// The candidate that `backbone` is, under this name.
    pub fn of(name: &str, backbone: &Backbone) -> Self {
        Self {
            name: name.to_owned(),
            digest: backbone.digest.clone(),
            config: backbone.config.clone(),
        }
    }
}

/// The layout that an adapter came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// PEFT's `adapter_config.json` + `adapter_model.safetensors`.
    Peft,
    /// The published `w_a_NNN`, `w_b_NNN`, `fc_IinoutOout` file.
    Published,
}

/// A file of the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileEntry {
    /// Relative to the adapter's folder.
    pub path: String,
    /// Size of the file.
    pub bytes: u64,
    /// Of its content, lower-case hexadecimal.
    pub sha256: String,
}

/// What became of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TensorStatus {
    /// Taken under the name that transformers 4 gives it.
    Used,
    /// Taken; its name is of another style.
    Renamed,
    /// Left out on purpose, without effect.
    Ignored,
    /// The configuration asks for it, the file does not hold it.
    Missing,
    /// Its shape is not the one that backbone and rank ask for.
    Misshapen,
    /// It holds an infinity or a value that is not a number.
    NotFinite,
    /// Its values are of a type that weights are not read from.
    WrongDtype,
    /// Not something that an adapter for this backbone can hold.
    Refused,
}

impl TensorStatus {
    /// Whether an adapter with such a tensor is refused.
    pub fn is_problem(self) -> bool {
        match self {
            Self::Used | Self::Renamed | Self::Ignored => false,
            Self::Missing
            | Self::Misshapen
            | Self::NotFinite
            | Self::WrongDtype
            | Self::Refused => true,
        }
    }
}

/// One row of the table of tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TensorEntry {
    /// As the file has it.
    pub name: String,
    /// What became of it.
    pub status: TensorStatus,
    /// As found; `None` for a missing tensor.
    pub shape: Option<Vec<usize>>,
    /// The linear map that it belongs to, where it belongs to one.
    pub site: Option<Site>,
    /// Why, or what it was taken for.
    pub detail: Option<String>,
}

/// What the configuration says in its own words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigSummary {
    /// `r`
    pub rank: serde_json::Value,
    /// `lora_alpha`
    pub alpha: serde_json::Value,
    /// `use_rslora`: the scale is `alpha / √rank` instead of `alpha / rank`.
    pub rank_stabilised: bool,
    /// A pattern, or a list of names.
    pub target_modules: serde_json::Value,
    /// A number, a list, or null for all layers.
    pub layers_to_transform: serde_json::Value,
    /// Modules that were trained whole, such as a head.
    pub modules_to_save: Vec<String>,
    /// `base_model_name_or_path`
    pub base_model: Option<String>,
    /// The class of transformers that the adapter was trained in.
    pub base_model_class: Option<String>,
    /// The version of PEFT that wrote it.
    pub peft_version: Option<String>,
}

/// What was understood for one linear map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteSummary {
    /// The linear map.
    pub site: Site,
    /// Of its low-rank pair.
    pub rank: usize,
    /// The scale in front of `B·A`.
    pub scale: f32,
}

/// The head that came with an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeadSummary {
    /// Rows of the head's weight.
    pub classes: usize,
    /// Columns of the head's weight.
    pub inputs: usize,
    /// Whether it has one.
    pub bias: bool,
    /// What the head reads.
    pub input: HeadInput,
    /// One a class; empty where the files name none.
    pub labels: Vec<String>,
}

/// How an adapter goes with one backbone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackboneFit {
    /// Of the candidate.
    pub name: String,
    /// Of the candidate.
    pub digest: String,
    /// Names and shapes of all tensors agree.
    pub fits_by_shape: bool,
    /// Whether the adapter names this backbone's digest; `None` where it does not name one.
    pub fits_by_digest: Option<bool>,
    /// Why it does not fit, at most [`MOST_REASONS`] sentences.
    pub reasons: Vec<String>,
}

/// Most reasons that are kept for a backbone that does not fit.
pub const MOST_REASONS: usize = 5;

/// Everything that an import found out. An adapter is taken only if `errors` is empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImportReport {
    /// Null where the files are of no known layout.
    pub format: Option<SourceFormat>,
    /// Whose module names the tensors have; null where that cannot be told.
    pub names: Option<NameStyle>,
    /// Those that were looked at.
    pub files: Vec<FileEntry>,
    /// What became of each, those that are missing too.
    pub tensors: Vec<TensorEntry>,
    /// Null for a layout without a configuration.
    pub config: Option<ConfigSummary>,
    /// In the order of layers.
    pub sites: Vec<SiteSummary>,
    /// Null where none came.
    pub head: Option<HeadSummary>,
    /// One entry a candidate.
    pub backbones: Vec<BackboneFit>,
    /// The backbone that the adapter was taken for.
    pub backbone: Option<String>,
    /// Digest of the adapter, where one could be made.
    pub adapter_digest: Option<String>,
    /// Why it is refused, one sentence each.
    pub errors: Vec<String>,
    /// What is worth knowing of an adapter that is fine.
    pub warnings: Vec<String>,
}

impl ImportReport {
    /// How many tensors have `status`.
    pub fn count(&self, status: TensorStatus) -> usize {
        self.tensors
            .iter()
            .filter(|tensor| tensor.status == status)
            .count()
    }
}
