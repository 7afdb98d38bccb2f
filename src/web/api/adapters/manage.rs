//! Listing, showing, relabelling and deleting adapters.

use super::schema::Adapter;
use super::{RegistryProblems, check_text, json_body, name, tags};
use crate::app::App;
use crate::web::ApiError;
use crate::web::api::parameters::{Parameters, Path, check_limit, next_cursor};
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use model::adapter::ImportReport;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::AdapterFilter;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Part of the name, the targets, the notes, a tag or a label.
    search: Option<String>,
    tag: Option<String>,
    name: Option<String>,
    /// Name of a backbone.
    backbone: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Uuid>,
    /// Most adapters of the page, 1 to 200.
    #[serde(default = "crate::web::api::parameters::default_page")]
    #[param(default = 50)]
    limit: u32,
}

/// A page of adapters, newest first.
#[derive(Serialize, ToSchema)]
pub struct AdapterList {
    adapters: Vec<Adapter>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists adapters, newest first
#[utoipa::path(get, path = "/api/v1/adapters", tag = "adapters", params(ListParameters), responses(
    (status = 200, description = "A page of adapters", body = AdapterList),
    RegistryProblems,
))]
pub(in crate::web) async fn list_adapters(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<AdapterList>, ApiError> {
    let ListParameters { limit, .. } = parameters;
    check_limit(limit)?;
    let store = app.registry()?.store();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let named = |parameter, text| given(text).map(|text| name(parameter, &text)).transpose();
    let backbone_digest = match named("backbone", parameters.backbone)? {
        Some(backbone) => Some(store.backbone(&backbone).await?.digest),
        None => None,
    };
    let filter = AdapterFilter {
        search: given(parameters.search),
        name: named("name", parameters.name)?,
        tag: named("tag", parameters.tag)?,
        backbone_digest,
        before: parameters.cursor,
        // One more tells whether there is another page.
        limit: Some(limit + 1),
    };
    let mut records = store.list_adapters(&filter).await?;
    let next_cursor = next_cursor(&mut records, limit, |adapter| adapter.id);
    Ok(Json(AdapterList {
        adapters: records.into_iter().map(Adapter::from).collect(),
        next_cursor,
    }))
}

/// Shows one adapter
#[utoipa::path(get, path = "/api/v1/adapters/{reference}", tag = "adapters",
    params(("reference" = String, Path, description = "name, name:version, name@alias or id")),
    responses((status = 200, description = "The adapter", body = Adapter), RegistryProblems))]
pub(in crate::web) async fn get_adapter(
    State(app): State<Arc<App>>,
    Path(reference): Path<String>,
) -> Result<Json<Adapter>, ApiError> {
    Ok(Json(app.registry()?.resolve(&reference).await?.into()))
}

/// Gives the report of the import
#[utoipa::path(get, path = "/api/v1/adapters/{reference}/report", tag = "adapters",
    params(("reference" = String, Path, description = "name, name:version, name@alias or id")),
    responses((status = 200, description = "As it was made at the import", body = ImportReport), RegistryProblems))]
pub(in crate::web) async fn get_import_report(
    State(app): State<Arc<App>>,
    Path(reference): Path<String>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let registry = app.registry()?;
    let id = registry.resolve(&reference).await?.id;
    let report = registry.store().adapter_report(id).await;
    Ok(Json(report?))
}

/// What may change of a stored adapter; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterChange {
    notes: Option<String>,
    tags: Option<Vec<String>>,
}

/// Replaces notes or tags
#[utoipa::path(patch, path = "/api/v1/adapters/{reference}", tag = "adapters",
    params(("reference" = String, Path, description = "name, name:version, name@alias or id")),
    request_body = AdapterChange,
    responses((status = 200, description = "The adapter as it is now", body = Adapter), RegistryProblems))]
pub(in crate::web) async fn change_adapter(
    State(app): State<Arc<App>>,
    Path(reference): Path<String>,
    admission: Admission,
    request: Request,
) -> Result<Json<Adapter>, ApiError> {
    let body: AdapterChange = json_body(&admission, request).await?;
    let new_tags = body
        .tags
        .map(|texts| tags(texts.iter().map(String::as_str)))
        .transpose()?;
    let registry = app.registry()?;
    let id = registry.resolve(&reference).await?.id;
    let store = registry.store();
    if let Some(notes) = body.notes {
        check_text("notes", &notes)?;
        store.set_adapter_notes(id, &notes).await?;
    }
    if let Some(tags) = new_tags {
        store.set_adapter_tags(id, &tags).await?;
    }
    let record = store.adapter(id).await?;
    Ok(Json(record.into()))
}

/// Space that a deletion gave back.
#[derive(Serialize, ToSchema)]
pub struct Deleted {
    freed_bytes: u64,
}

/// Deletes an adapter for good
///
/// Refused while an alias or a backbone's default points at it.
#[utoipa::path(delete, path = "/api/v1/adapters/{reference}", tag = "adapters",
    params(("reference" = String, Path, description = "name, name:version, name@alias or id")),
    responses((status = 200, description = "It is gone", body = Deleted), RegistryProblems))]
pub(in crate::web) async fn delete_adapter(
    State(app): State<Arc<App>>,
    Path(reference): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    let registry = app.registry()?;
    let id = registry.resolve(&reference).await?.id;
    let freed = registry.store().delete_adapter(id).await;
    let freed_bytes = freed?.bytes;
    registry.forget(id);
    Ok(Json(Deleted { freed_bytes }))
}
