//! What an import found: made before anything is stored, kept afterwards, shown as a table or as JSON.

use super::{HeadInput, NameStyle, Site};
use crate::backbone::{Backbone, BackboneConfig};
use serde::{Deserialize, Serialize};

/// A backbone that an adapter may be for.
#[derive(Debug, Clone)]
pub struct BackboneCandidate {
    pub name: String,
    pub digest: String,
    pub config: BackboneConfig,
}

impl BackboneCandidate {
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
    pub path: String,
    pub bytes: u64,
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
    Misshapen,
    NotFinite,
    WrongDtype,
    /// Not something that an adapter for this backbone can hold.
    Refused,
}

impl TensorStatus {
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
    pub name: String,
    pub status: TensorStatus,
    /// As found; `None` for a missing tensor.
    pub shape: Option<Vec<usize>>,
    pub site: Option<Site>,
    /// Why, or what it was taken for.
    pub detail: Option<String>,
}

/// What the configuration says in its own words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigSummary {
    pub rank: serde_json::Value,
    pub alpha: serde_json::Value,
    pub rank_stabilised: bool,
    pub target_modules: serde_json::Value,
    pub layers_to_transform: serde_json::Value,
    pub modules_to_save: Vec<String>,
    pub base_model: Option<String>,
    pub base_model_class: Option<String>,
    pub peft_version: Option<String>,
}

/// What was understood for one linear map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteSummary {
    pub site: Site,
    pub rank: usize,
    /// The scale in front of `B·A`.
    pub scale: f32,
}

/// The head that came with an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeadSummary {
    pub classes: usize,
    pub inputs: usize,
    pub bias: bool,
    pub input: HeadInput,
    pub labels: Vec<String>,
}

/// How an adapter goes with one backbone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackboneFit {
    pub name: String,
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
    pub format: Option<SourceFormat>,
    pub names: Option<NameStyle>,
    pub files: Vec<FileEntry>,
    pub tensors: Vec<TensorEntry>,
    pub config: Option<ConfigSummary>,
    pub sites: Vec<SiteSummary>,
    pub head: Option<HeadSummary>,
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
