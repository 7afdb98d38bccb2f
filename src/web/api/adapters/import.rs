//! Adding an adapter from its files, or finding out why that cannot be done.

use super::schema::Adapter;
use super::{RegistryProblems, check_text, name, tags};
use crate::app::registry::ImportOptions;
use crate::app::registry::RegistryError;
use crate::app::{App, AppError};
use crate::web::ApiError;
use crate::web::api::images::{receive_files, require_form};
use crate::web::api::parameters::Parameters;
use crate::web::api::schemas::FormSchema;
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::adapter::{ImportReport, NamedFile, Package};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportParameters {
    /// Name of the adapter; it becomes the next version. Not needed with `dry_run`.
    name: Option<String>,
    /// Name of the backbone that it is for; without one, the backbone that it fits.
    backbone: Option<String>,
    /// Separated by commas.
    tags: Option<String>,
    #[serde(default)]
    notes: String,
    /// Only looks, and stores nothing.
    #[serde(default)]
    dry_run: bool,
}

/// The files of an adapter.
struct ImportForm;

impl PartialSchema for ImportForm {
    fn schema() -> RefOr<Schema> {
        FormSchema::default()
            .files(
                "file",
                "The files of a PEFT folder with their relative paths as file names, or one .zip (also a bundle), or one .safetensors.",
            )
            .required(["file"])
    }
}

impl ToSchema for ImportForm {}

/// The stored adapter and what its import found.
#[derive(Serialize, ToSchema)]
pub struct ImportAnswer {
    /// Null after a dry run.
    adapter: Option<Adapter>,
    report: ImportReport,
}

/// Adds an adapter
///
/// Everything is checked before anything is stored. Files that do not belong to the adapter are not kept; pickles are never read.
#[utoipa::path(post, path = "/api/v1/adapters", tag = "adapters", params(ImportParameters),
    request_body(content((ImportForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "A dry run; the report has errors where the adapter would be refused", body = ImportAnswer),
        (status = 201, description = "It is stored; Location has its address", body = ImportAnswer),
        RegistryProblems,
    ))]
pub(in crate::web) async fn import_adapter(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ImportParameters>,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    require_form(request.headers())?;
    let registry = app.registry()?;
    let options = ImportOptions {
        backbone: parameters
            .backbone
            .filter(|text| !text.is_empty())
            .map(|text| name("backbone", &text))
            .transpose()?,
        tags: tags(parameters.tags.as_deref().unwrap_or_default().split(','))?,
        notes: parameters.notes,
    };
    check_text("notes", &options.notes)?;
    let adapter_name = match (&parameters.name, parameters.dry_run) {
        (Some(text), false) => Some(name("name", text)?),
        (_, true) => None,
        (None, false) => {
            return Err(ApiError::InvalidParameter {
                parameter: "name".into(),
                detail: "the adapter needs a name; give one, or dry_run=true to only look".into(),
            });
        }
    };
    let package = receive(&admission, request).await?;
    let work = async {
        Ok::<_, AppError>(match adapter_name {
            Some(name) => {
                let stored = registry.import(package, name, options).await?;
                match app.check_adapter(&stored.record).await {
                    Ok(()) => {}
                    Err(AppError::Encode(error)) => {
                        tracing::warn!(%error, "{} could not be tried", stored.record.label());
                    }
                    Err(error) => {
                        // Its version number is not given again.
                        let deleted = registry.store().delete_adapter(stored.record.id).await;
                        deleted.map_err(RegistryError::from)?;
                        return Err(error);
                    }
                }
                (Some(stored.record), stored.report)
            }
            None => {
                let report = registry.check(package, options.backbone.as_ref()).await?;
                (None, report)
            }
        })
    };
    let (record, report) = admission.answer(work).await?;
    Ok(match record {
        Some(record) => created(
            record.id,
            &ImportAnswer {
                adapter: Some(record.into()),
                report,
            },
        ),
        None => Json(ImportAnswer {
            adapter: None,
            report,
        })
        .into_response(),
    })
}

/// The answer to a request that made an adapter.
pub(super) fn created(id: uuid::Uuid, body: &impl Serialize) -> Response {
    let location = format!("/api/v1/adapters/{id}");
    (
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(body),
    )
        .into_response()
}

async fn receive(admission: &Admission, request: Request) -> Result<Package, ApiError> {
    let parts = receive_files(admission, request, "file", "the adapter's files").await?;
    if parts.is_empty() {
        return Err(ApiError::InvalidParameter {
            parameter: "file".into(),
            detail: "there is no file".into(),
        });
    }
    let files = parts
        .into_iter()
        .map(|part| NamedFile::new(part.name, part.bytes));
    Ok(Package::of(files.collect()))
}
