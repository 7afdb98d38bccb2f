//! The resources of the REST interface, one module each.

pub(super) mod adapters;
pub(super) mod backbones;
pub(super) mod classifiers;
pub(super) mod classify;
pub(super) mod embed;
mod etags;
mod files;
mod images;
pub(super) mod jobs;
mod labelled_parts;
pub(super) mod once;
mod parameters;
pub(super) mod pool_quality;
pub(super) mod pools;
pub(super) mod problems;
mod schemas;
pub(super) mod thumbnails;

pub use backbones::BackboneIdentity;
pub use jobs::{Job, StartedJobs};
pub use pool_quality::MOST_REAL_PICTURES;

use super::ApiError;
use crate::app::App;
use crate::app::registry::ServedAdapter;
use serde::Serialize;
use store::AdapterRecord;
use utoipa::ToSchema;

/// The adapter that gave an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AdapterIdentity {
    #[schema(example = "meta")]
    name: String,
    version: u32,
    /// `name:version`
    #[schema(example = "meta:3")]
    label: String,
    /// SHA-256 over its files, lower-case hexadecimal.
    digest: String,
}

impl AdapterIdentity {
    fn of(served: &ServedAdapter) -> Self {
        Self::of_record(&served.record)
    }

    fn of_record(record: &AdapterRecord) -> Self {
        Self {
            name: record.name.to_string(),
            version: record.version,
            label: record.label(),
            digest: record.digest.to_string(),
        }
    }
}

/// The adapter that a request wants, by its query parameter or its body.
async fn wanted_adapter(
    app: &App,
    parameter: Option<String>,
    body: Option<String>,
) -> Result<Option<ServedAdapter>, ApiError> {
    if let (Some(parameter), Some(body)) = (&parameter, &body)
        && parameter != body
    {
        return Err(ApiError::InvalidParameter {
            parameter: "adapter".into(),
            detail: format!(
                "the query parameter asks for the adapter \"{parameter}\", the body for \"{body}\""
            ),
        });
    }
    Ok(app.adapter(parameter.or(body).as_deref()).await?)
}
