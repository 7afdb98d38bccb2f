//! Disk space of the data folder.

use super::RegistryProblems;
use crate::app::App;
use crate::web::{ApiError, WebState};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use store::{DiskUse, Freed};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<WebState> {
    OpenApiRouter::default()
        .routes(routes!(measure))
        .routes(routes!(collect))
}

/// Says what the data folder takes on disk
#[utoipa::path(get, path = "/storage", tag = "adapters", responses(
    (status = 200, description = "In bytes", body = DiskUse), RegistryProblems))]
async fn measure(State(app): State<Arc<App>>) -> Result<Json<DiskUse>, ApiError> {
    let measured = app.registry()?.store().disk_use().await;
    Ok(Json(measured?))
}

/// Removes files that nothing refers to
#[utoipa::path(post, path = "/storage/gc", tag = "adapters", responses(
    (status = 200, description = "What was removed", body = Freed), RegistryProblems))]
async fn collect(State(app): State<Arc<App>>) -> Result<Json<Freed>, ApiError> {
    let freed = app.registry()?.store().gc().await;
    Ok(Json(freed?))
}
