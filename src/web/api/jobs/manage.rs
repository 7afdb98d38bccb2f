//! Listing, showing, cancelling and retrying jobs.

use super::schema::Job;
use super::{JobProblems, queue};
use crate::jobs::Jobs;
use crate::web::ApiError;
use crate::web::api::parameters::{Parameters, Path, check_limit, next_cursor};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use store::{JobFilter, JobState};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Only jobs in this state.
    state: Option<JobState>,
    /// Only jobs of this kind.
    kind: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Uuid>,
    /// Most jobs of the page, 1 to 200.
    #[serde(default = "crate::web::api::parameters::default_page")]
    #[param(default = 50)]
    limit: u32,
}

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
pub struct JobList {
    jobs: Vec<Job>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists jobs, newest first
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(ListParameters), responses(
    (status = 200, description = "A page of jobs", body = JobList),
    JobProblems,
))]
pub(in crate::web) async fn list_jobs(
    State(jobs): State<Option<Jobs>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<JobList>, ApiError> {
    let ListParameters { limit, .. } = parameters;
    check_limit(limit)?;
    let filter = JobFilter {
        state: parameters.state,
        kind: parameters.kind.filter(|kind| !kind.is_empty()),
        before: parameters.cursor,
        // One more tells whether there is another page.
        limit: Some(limit + 1),
    };
    let mut records = queue(&jobs)?.store().list_jobs(&filter).await?;
    let next_cursor = next_cursor(&mut records, limit, |job| job.id);
    Ok(Json(JobList {
        jobs: records.into_iter().map(Job::from).collect(),
        next_cursor,
    }))
}

/// Shows one job
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs",
    params(("id" = Uuid, Path, description = "Id of the job")),
    responses((status = 200, description = "The job", body = Job), JobProblems))]
pub(in crate::web) async fn get_job(
    State(jobs): State<Option<Jobs>>,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(queue(&jobs)?.store().job(job_id(&id)?).await?.into()))
}

/// Cancels a job
///
/// A running job stops after its current step: where that has not happened yet, `cancel_requested` is true in the answer.
/// Pictures that the job was given are deleted. Jobs that wait for it fail. A failed job can be cancelled too.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs",
    params(("id" = Uuid, Path, description = "Id of the job")),
    responses((status = 200, description = "The job as it is now", body = Job), JobProblems))]
pub(in crate::web) async fn cancel_job(
    State(jobs): State<Option<Jobs>>,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(queue(&jobs)?.cancel(job_id(&id)?).await?.into()))
}

/// Queues a job again that failed or was cancelled
///
/// It resumes from its last checkpoint.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs",
    params(("id" = Uuid, Path, description = "Id of the job")),
    responses((status = 200, description = "The job as it is now", body = Job), JobProblems))]
pub(in crate::web) async fn retry_job(
    State(jobs): State<Option<Jobs>>,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(queue(&jobs)?.retry(job_id(&id)?).await?.into()))
}

/// An id in an address; what is not an id belongs to no job.
pub(super) fn job_id(text: &str) -> Result<Uuid, ApiError> {
    text.parse()
        .map_err(|_| ApiError::UnknownJob(text.to_owned()))
}
