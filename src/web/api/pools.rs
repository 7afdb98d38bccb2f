//! Pools over HTTP: the synthetic images of adapters.

use super::files::private_file;
use super::jobs::JobProblems;
use super::schemas::Binary;
use crate::app::App;
use crate::jobs::FailedInversion;
use crate::jobs::pool::{IMAGES_FILE, PoolFileError, PoolSummary, pool_image, pool_kept_patches};
use crate::web::ApiError;
use crate::web::api::parameters::Path;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use store::{Digest, JobFault, PoolRecord, Retention};
use utoipa::ToSchema;
use uuid::Uuid;

/// Synthetic images of one adapter.
#[derive(Serialize, ToSchema)]
pub struct Pool {
    id: Uuid,
    /// `name:version` as it was then; the adapter may be gone by now.
    #[schema(example = "pets:1")]
    adapter: String,
    adapter_id: Uuid,
    adapter_digest: Digest,
    backbone_digest: Digest,
    retention: Retention,
    /// Milliseconds since 1970 (UTC).
    created_ms: i64,
    #[serde(flatten)]
    summary: PoolSummary,
    /// Why the images should not be learned from; null where they came out.
    failure: Option<JobFault>,
    #[schema(value_type = Object)]
    recipe: serde_json::Value,
}

#[derive(Serialize, ToSchema)]
pub struct PoolList {
    pools: Vec<Pool>,
}

#[derive(Serialize, ToSchema)]
pub struct KeptTokens {
    /// Patches along a side.
    grid: usize,
    /// The kept patches of each image, row by row from the top left.
    kept: Vec<Vec<u32>>,
}

/// Space that a deletion gave back.
#[derive(Serialize, ToSchema)]
#[schema(as = DeletedPool)]
pub struct Deleted {
    freed_bytes: u64,
}

fn described(record: PoolRecord) -> Result<Pool, ApiError> {
    let failed = FailedInversion::of(&record);
    let summary = serde_json::from_value(record.summary).map_err(|error| {
        ApiError::Internal(format!("the summary of pool {}: {error}", record.id))
    })?;
    Ok(Pool {
        id: record.id,
        adapter: record.adapter_label,
        adapter_id: record.adapter_id,
        adapter_digest: record.adapter_digest,
        backbone_digest: record.backbone_digest,
        retention: record.retention,
        created_ms: record.created_ms,
        summary,
        failure: failed.map(|failed| failed.fault()),
        recipe: record.recipe,
    })
}

/// # Errors
/// [`ApiError::UnknownPool`]
pub(super) fn pool_id(text: &str) -> Result<Uuid, ApiError> {
    text.parse()
        .map_err(|_| ApiError::UnknownPool(text.to_owned()))
}

impl From<PoolFileError> for ApiError {
    fn from(error: PoolFileError) -> Self {
        match error {
            PoolFileError::Store(error) => error.into(),
            PoolFileError::NoImage(index) => Self::UnknownPicture(index.to_string()),
            PoolFileError::Damaged(error) => Self::Internal(error.to_string()),
        }
    }
}

/// Lists all pools, newest first
#[utoipa::path(get, path = "/api/v1/pools", tag = "pools", responses(
    (status = 200, description = "All pools", body = PoolList), JobProblems))]
pub(in crate::web) async fn list_pools(
    State(app): State<Arc<App>>,
) -> Result<Json<PoolList>, ApiError> {
    let records = app.registry()?.store().list_pools(None).await?;
    let pools = records
        .into_iter()
        .map(described)
        .collect::<Result<_, _>>()?;
    Ok(Json(PoolList { pools }))
}

/// Shows one pool
#[utoipa::path(get, path = "/api/v1/pools/{id}", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool")),
    responses((status = 200, description = "The pool", body = Pool), JobProblems))]
pub(in crate::web) async fn get_pool(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Pool>, ApiError> {
    let record = app.registry()?.store().pool(pool_id(&id)?).await?;
    described(record).map(Json)
}

/// Deletes a pool for good
#[utoipa::path(delete, path = "/api/v1/pools/{id}", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool")),
    responses((status = 200, description = "It is gone", body = Deleted), JobProblems))]
pub(in crate::web) async fn delete_pool(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    let freed = app.registry()?.store().delete_pool(pool_id(&id)?).await?;
    Ok(Json(Deleted {
        freed_bytes: freed.bytes,
    }))
}

/// Gives a synthetic image
#[utoipa::path(get, path = "/api/v1/pools/{id}/images/{index}", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool"), ("index" = usize, Path, description = "Index of the image, class by class")),
    responses(
        (status = 200, description = "The image, with an ETag", body = inline(Binary), content_type = "image/png"),
        (status = 304, description = "It is as the client has it"),
        JobProblems,
    ))]
pub(in crate::web) async fn get_pool_image(
    State(app): State<Arc<App>>,
    Path((id, index)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let store = app.registry()?.store();
    let pool = store.pool(pool_id(&id)?).await?;
    let index: usize = index.parse().map_err(|_| ApiError::UnknownPicture(index))?;
    let file = pool.files.iter().find(|file| file.name == IMAGES_FILE);
    let etag = file.map_or_else(String::new, |file| format!("\"{}-{index}\"", file.digest));
    let read = async || pool_image(store, &pool, index).await;
    private_file(&headers, etag, Some("image/png"), read).await
}

/// Gives the patches of each image that are kept
#[utoipa::path(get, path = "/api/v1/pools/{id}/kept-tokens", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool")),
    responses((status = 200, description = "Indices of patches", body = KeptTokens), JobProblems))]
pub(in crate::web) async fn get_kept_tokens(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<KeptTokens>, ApiError> {
    let store = app.registry()?.store();
    let record = store.pool(pool_id(&id)?).await?;
    let kept = pool_kept_patches(store, &record).await?;
    let grid = described(record)?.summary.grid;
    Ok(Json(KeptTokens { grid, kept }))
}
