//! A classifier from another installation.

use super::schema::Classifier;
use super::{ACTOR, ClassifierProblems, made, store, to_json};
use crate::app::App;
use crate::web::ApiError;
use crate::web::api::classifiers::manage::described;
use crate::web::api::images::{receive_files, require_form};
use crate::web::api::once::{key, once};
use crate::web::api::parameters::Parameters;
use crate::web::api::schemas::FormSchema;
use crate::web::limits::Admission;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use store::Digest;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

const FILE: &str = "file";

/// A bundle of a classifier.
struct BundleForm;

impl PartialSchema for BundleForm {
    fn schema() -> RefOr<Schema> {
        FormSchema::default()
            .file(
                FILE,
                "The zip that GET /api/v1/classifiers/{id}/export gave on another installation.",
            )
            .required([FILE])
    }
}

impl ToSchema for BundleForm {}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportParameters {
    /// Name of the classifier; without it the name that it had.
    name: Option<String>,
}

/// A classifier that was imported.
#[derive(Serialize, ToSchema)]
pub struct ImportedClassifierAnswer {
    #[serde(flatten)]
    classifier: Classifier,
    /// Whether its head has the same bits as where it was made, so that its answers have them too; else they agree to five digits.
    is_exact: bool,
}

/// Imports a classifier from a bundle
///
/// It keeps features and no pictures, and answers as it did where it was made. The backbone must be the same, and the size of images; the
/// adapter is imported where it is not here yet.
#[utoipa::path(post, path = "/api/v1/classifiers/import", tag = "classifiers",
    params(ImportParameters,
        ("idempotency-key" = Option<String>, Header, description = "The same key within 24 hours gives the same classifier")),
    request_body(content((BundleForm = "multipart/form-data"))),
    responses((status = 201, description = "It is stored; Location has its address", body = ImportedClassifierAnswer), ClassifierProblems))]
pub(in crate::web) async fn import_classifier(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ImportParameters>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    require_form(&headers)?;
    let key = key(&headers)?;
    let mut files = receive_files(&admission, request, FILE, "a bundle").await?;
    let (Some(file), true) = (files.pop(), files.is_empty()) else {
        return Err(ApiError::InvalidParameter {
            parameter: FILE.into(),
            detail: "send one bundle".into(),
        });
    };
    let content = format!("{parameters:?} {}", Digest::of(&file.bytes));
    let content = Digest::of(content.as_bytes());
    let answering = Arc::clone(&app);
    let act = async move |id: Option<Uuid>| -> Result<Value, ApiError> {
        let name = parameters.name.filter(|name| !name.is_empty());
        let importing = Arc::clone(&answering);
        // To its end, whatever becomes of the client: half a classifier is of no use.
        let imported = tokio::spawn(async move {
            let _admission = admission;
            importing
                .import_classifier(file.bytes, name, id, ACTOR)
                .await
        });
        let stopped = |error| ApiError::Internal(format!("an import stopped: {error}"));
        let imported = imported.await.map_err(stopped)??;
        to_json(ImportedClassifierAnswer {
            classifier: described(&answering, imported.record.id).await?,
            is_exact: imported.is_exact,
        })
    };
    let route = "POST /api/v1/classifiers/import".to_owned();
    let body = once(store(&app)?, route, key, content, act).await?;
    let id = body["id"].as_str().unwrap_or_default();
    let location = HeaderValue::from_str(&format!("/api/v1/classifiers/{id}"));
    let mut response = made(StatusCode::CREATED, body);
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
