//! A classifier as a download.

use super::{ClassifierProblems, classifier_id, store};
use crate::app::App;
use crate::app::registry::RegistryError;
use crate::web::ApiError;
use crate::web::api::files::attachment;
use crate::web::api::parameters::{Parameters, Path};
use crate::web::api::schemas::Binary;
use crate::web::limits::Admission;
use axum::extract::State;
use axum::http::HeaderName;
use clap::ValueEnum;
use model::adapter::write_zip;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// What a classifier is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClassifierFormat {
    /// For another LoRA Recycle.
    #[default]
    Bundle,
    /// For other programs: an ONNX model from pixels to scores, with examples.
    Onnx,
}

impl ClassifierFormat {
    /// As in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Onnx => "onnx",
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportParameters {
    #[serde(default)]
    #[param(inline)]
    format: ClassifierFormat,
}

/// Downloads a classifier for other programs
///
/// A zip. With `onnx` it holds `model.onnx`, which takes a picture of any size (`image`, 8-bit levels `[height, width, 3]`) and gives `scores`
/// `[classes]` and `label`; its labels are in its metadata and in `labels.json`. `classify.py` and `classify.mjs` show its use.
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/export", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ExportParameters),
    responses(
        (status = 200, description = "A zip", body = inline(Binary), content_type = "application/zip"),
        ClassifierProblems,
    ))]
pub(in crate::web) async fn export_classifier(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Parameters(ExportParameters { format }): Parameters<ExportParameters>,
    admission: Admission,
) -> Result<([(HeaderName, String); 2], Vec<u8>), ApiError> {
    let record = store(&app)?.classifier(classifier_id(&id)?).await?;
    let kind = format.as_str();
    let files = match format {
        ClassifierFormat::Bundle => admission.answer(app.classifier_as_bundle(&record)).await?,
        ClassifierFormat::Onnx => admission.answer(app.classifier_as_onnx(&record)).await?,
    };
    let zip = write_zip(&files).map_err(RegistryError::from)?;
    let name = format!("classifier-{}-{kind}.zip", record.id);
    Ok((attachment("application/zip", &name), zip))
}
