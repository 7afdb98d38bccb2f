//! What a LoRA adapter is: low-rank pairs on a backbone's linear maps, with or without a classification head.
//! Knows the shapes of a backbone, nothing of how a pass is computed, of SQL or of HTTP. Works on bytes in memory and on folders;
//! where adapters are kept is for others to say.

mod apply;
mod bundle;
mod digest;
mod export;
mod export_options;
mod files;
mod import;
mod layer_names;
mod merge;
mod model_card;
mod package;
mod peft_config;
mod report;
mod similarity;

pub use apply::ShapeMismatch;
pub use bundle::{
    Bundle, BundleError, check_checksums, checksums, export_bundle, import_bundle, write_zip,
};
pub use export::{ExportError, export_peft, export_published, published_obstacle};
pub use export_options::ExportOptions;
pub use files::{
    CheckedZip, FileLimits, FilesError, NamedFile, hidden, read_folder, read_zip, split_adapters,
};
pub use import::{Imported, Side, import, peft_lora_matrix};
pub use layer_names::NameStyle;
pub use merge::{
    DefaultWeight, Density, MajoritySign, MergeError, MergeInput, MergeMethod, MergeMethodFacts,
    MergeOptions, Merged, Merging, UnknownMergeMethod, UnknownMerging, merge,
};
pub use package::{Package, Unpacked};
pub use report::{
    BackboneCandidate, BackboneFit, ConfigSummary, FileEntry, HeadSummary, ImportReport,
    SiteSummary, SourceFormat, TensorEntry, TensorStatus,
};

pub use crate::backbone::Target;

use crate::backbone::BackboneConfig;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a low-rank pair sits; ordered by layer, then target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Site {
    /// 0-based.
    pub layer: usize,
    /// The linear map in that layer.
    pub target: Target,
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} of layer {}", self.target.name(), self.layer)
    }
}

/// The change of one linear map: `W x + scale·B(A x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRankPair {
    /// `A`, `[rank, in]`
    pub a: Tensor,
    /// `B`, `[out, rank]`
    pub b: Tensor,
    /// `alpha / rank`, or `alpha / √rank` for rank-stabilised LoRA.
    pub scale: f32,
}

impl LowRankPair {
    /// Rows of `A`, columns of `B`.
    pub fn rank(&self) -> usize {
        self.a.shape()[0]
    }
}

/// A linear classifier on the feature: `logits = weight·feature + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// `[classes, inputs]`; `inputs` is the width of the head's input, see [`HeadInput`].
    pub weight: Tensor,
    /// `[classes]`
    pub bias: Option<Tensor>,
    /// What `weight` is multiplied with.
    pub input: HeadInput,
    /// One label per class, empty where the source names none.
    pub labels: Vec<String>,
}

/// What a head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeadInput {
    /// The backbone's feature, with its pooling and projection.
    Feature,
    /// The class token after the final LayerNorm.
    Cls,
    /// The class token followed by the mean of the patch tokens (`Dinov2ForImageClassification`).
    ClsMean,
}

impl HeadInput {
    /// Length of what the head reads.
    pub fn width(self, config: &BackboneConfig) -> usize {
        match self {
            Self::Feature => config.feature_width(),
            Self::Cls => config.width,
            Self::ClsMean => 2 * config.width,
        }
    }
}

/// Largest rank that an import takes: at most the width of a large vision transformer, beyond which a rank adds nothing.
pub const MOST_RANK: usize = 1024;

/// A LoRA adapter: low-rank pairs by site, and the head that was tuned with them if there is one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adapter {
    /// Linear maps that are not here stay as they are.
    pub pairs: BTreeMap<Site, LowRankPair>,
    /// Present where the adapter was tuned as a classifier.
    pub head: Option<Head>,
}

impl Adapter {
    /// The largest rank over all sites, 0 for an adapter without any.
    pub fn largest_rank(&self) -> usize {
        self.pairs
            .values()
            .map(LowRankPair::rank)
            .max()
            .unwrap_or(0)
    }
}
