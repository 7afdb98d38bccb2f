//! Disk space of the data folder.

use super::RegistryProblems;
use crate::app::App;
use crate::web::ApiError;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use store::{DiskUse, Freed};

/// Says what the data folder takes on disk
#[utoipa::path(get, path = "/api/v1/storage", tag = "adapters", responses(
    (status = 200, description = "In bytes", body = DiskUse), RegistryProblems))]
pub(in crate::web) async fn measure_storage(
    State(app): State<Arc<App>>,
) -> Result<Json<DiskUse>, ApiError> {
    let measured = app.registry()?.store().disk_use().await;
    Ok(Json(measured?))
}

/// Removes files that nothing refers to
#[utoipa::path(post, path = "/api/v1/storage/gc", tag = "adapters", responses(
    (status = 200, description = "What was removed", body = Freed), RegistryProblems))]
pub(in crate::web) async fn collect_garbage(
    State(app): State<Arc<App>>,
) -> Result<Json<Freed>, ApiError> {
    let freed = app.registry()?.store().gc().await;
    Ok(Json(freed?))
}
