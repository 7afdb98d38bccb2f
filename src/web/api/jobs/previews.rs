//! Pictures of what a running job makes, as they are now.

use super::manage::job_id;
use super::{JobProblems, queue};
use crate::jobs::Jobs;
use crate::web::ApiError;
use crate::web::api::parameters::Path;
use crate::web::api::schemas::Binary;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A picture of what a running job makes.
#[derive(Serialize, ToSchema)]
pub struct Preview {
    index: usize,
    label: String,
    /// Grows with each change of this picture.
    version: u64,
}

#[derive(Serialize, ToSchema)]
pub struct PreviewList {
    previews: Vec<Preview>,
}

/// Lists the pictures of a running job
///
/// There are none unless the job runs: they are never kept.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/previews", tag = "jobs",
    params(("id" = Uuid, Path, description = "Id of the job")),
    responses((status = 200, description = "The pictures by index", body = PreviewList), JobProblems))]
pub(in crate::web) async fn list_previews(
    State(jobs): State<Option<Jobs>>,
    Path(id): Path<String>,
) -> Result<Json<PreviewList>, ApiError> {
    let jobs = queue(&jobs)?;
    let id = job_id(&id)?;
    jobs.store().job(id).await?;
    let previews = jobs.previews(id).into_iter();
    Ok(Json(PreviewList {
        previews: previews
            .map(|(index, preview)| Preview {
                index,
                label: preview.label,
                version: preview.version,
            })
            .collect(),
    }))
}

/// Gives a picture of a running job
#[utoipa::path(get, path = "/api/v1/jobs/{id}/previews/{index}", tag = "jobs",
    params(("id" = Uuid, Path, description = "Id of the job"), ("index" = usize, Path, description = "Index of the picture")),
    responses((status = 200, description = "The picture as it is now", body = inline(Binary), content_type = "image/png"), JobProblems))]
pub(in crate::web) async fn get_preview(
    State(jobs): State<Option<Jobs>>,
    Path((id, index)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let jobs = queue(&jobs)?;
    let id = job_id(&id)?;
    jobs.store().job(id).await?;
    let wanted = index.parse().ok();
    let found = jobs
        .previews(id)
        .into_iter()
        .find(|(index, _)| Some(*index) == wanted)
        .ok_or(ApiError::UnknownPicture(index))?;
    let (_, preview) = found;
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, preview.png.as_ref().clone()).into_response())
}
