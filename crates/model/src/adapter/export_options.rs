//! What an export is asked for.

use super::layer_names::NameStyle;
use super::report::BackboneCandidate;

/// What an export needs to know besides the adapter.
#[derive(Debug, Clone)]
pub struct ExportOptions<'a> {
    /// Title of the model card.
    pub title: &'a str,
    /// What the adapter is for.
    pub backbone: &'a BackboneCandidate,
    /// Where PEFT finds the backbone, e.g. `facebook/dinov2-small`; `None` where nobody knows.
    pub base_model: Option<&'a str>,
    /// Whose module names PEFT's files use.
    pub names: NameStyle,
}
