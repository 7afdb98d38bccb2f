//! An adapter as a download.

use super::RegistryProblems;
use crate::app::registry::{ExportFormat, RegistryError};
use crate::app::{App, AppError};
use crate::web::ApiError;
use crate::web::api::files::attachment;
use crate::web::api::parameters::{Parameters, Path};
use crate::web::api::schemas::Binary;
use crate::web::limits::Admission;
use axum::extract::State;
use axum::http::HeaderName;
use model::adapter::{NameStyle, NamedFile, write_zip};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportParameters {
    #[serde(default)]
    #[param(inline)]
    format: ExportFormat,
    /// Module names of transformers 4 or 5, for `peft` and `bundle`.
    #[serde(default = "default_names")]
    #[param(inline)]
    names: NameStyle,
}

fn default_names() -> NameStyle {
    NameStyle::V4
}

/// Downloads an adapter for other programs
#[utoipa::path(get, path = "/api/v1/adapters/{reference}/export", tag = "adapters",
    params(("reference" = String, Path, description = "name, name:version, name@alias or id"), ExportParameters),
    responses(
        (status = 200, description = "A PEFT folder as zip, a published .safetensors, a bundle, or an ONNX model",
            content((inline(Binary) = "application/octet-stream"), (inline(Binary) = "application/zip"))),
        RegistryProblems,
    ))]
pub(in crate::web) async fn export_adapter(
    State(app): State<Arc<App>>,
    Path(reference): Path<String>,
    Parameters(parameters): Parameters<ExportParameters>,
    admission: Admission,
) -> Result<([(HeaderName, String); 2], Vec<u8>), ApiError> {
    let ExportParameters { format, names } = parameters;
    let work = async {
        let registry = app.registry()?;
        let record = registry.resolve(&reference).await?;
        let files = registry.export(&record, format, names).await?;
        let folder = format!("{}-{}", record.name, record.version);
        Ok::<_, AppError>(one_file(files, folder)?)
    };
    let file = admission.answer(work).await?;
    let kind = if file.path.ends_with(".zip") {
        "application/zip"
    } else {
        "application/octet-stream"
    };
    Ok((attachment(kind, &file.path), file.bytes))
}

/// The one file, or a zip with all of them in `folder`.
fn one_file(mut files: Vec<NamedFile>, folder: String) -> Result<NamedFile, RegistryError> {
    if files.len() == 1
        && let Some(only) = files.pop()
    {
        return Ok(only);
    }
    for file in &mut files {
        file.path = format!("{folder}/{}", file.path);
    }
    Ok(NamedFile::new(format!("{folder}.zip"), write_zip(&files)?))
}
