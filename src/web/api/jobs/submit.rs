//! Asking for jobs: one address per kind, with the request that its planner takes as JSON or as a form; and the older address for all kinds.

use super::form::request_parts;
use super::schema::{Job, StartedJobs};
use super::{JobProblems, queue};
use crate::jobs::{
    self, Evaluate, EvaluateRequest, Invert, InvertRequest, Jobs, Recycle, RecycleRequest,
    RequestParts, Tune, TuneRequest,
};
use crate::web::ApiError;
use crate::web::api::images::{BodyKind, receive_form, receive_json};
use crate::web::api::schemas::FormOf;
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use store::Submitted;

type TuneForm = FormOf<TuneRequest>;
type InvertForm = FormOf<InvertRequest>;
type RecycleForm = FormOf<RecycleRequest>;
type EvaluateForm = FormOf<EvaluateRequest>;

/// What [`start`] answers.
type Started = (
    StatusCode,
    Option<[(HeaderName, String); 1]>,
    Json<StartedJobs>,
);

/// Tunes adapters on labelled pictures
///
/// A job for each adapter. The pictures are kept until it is done. The same work is done once: where it is queued, running or done
/// already, that job is the answer.
#[utoipa::path(post, path = "/api/v1/jobs/tune", tag = "jobs",
    request_body(content((TuneRequest = "application/json"), (TuneForm = "multipart/form-data"))),
    responses((status = 202, description = "The jobs; Location has the address of the first", body = StartedJobs), JobProblems))]
pub(in crate::web) async fn start_tuning(
    State(jobs): State<Option<Jobs>>,
    admission: Admission,
    request: Request,
) -> Result<Started, ApiError> {
    start::<Tune>(&jobs, &admission, request).await
}

/// Makes synthetic images of adapters
///
/// A job for each adapter. The same work is done once: where it is queued, running or done already, that job is the answer.
#[utoipa::path(post, path = "/api/v1/jobs/invert", tag = "jobs",
    request_body(content((InvertRequest = "application/json"), (InvertForm = "multipart/form-data"))),
    responses((status = 202, description = "The jobs; Location has the address of the first", body = StartedJobs), JobProblems))]
pub(in crate::web) async fn start_inversion(
    State(jobs): State<Option<Jobs>>,
    admission: Admission,
    request: Request,
) -> Result<Started, ApiError> {
    start::<Invert>(&jobs, &admission, request).await
}

/// Makes one meta-LoRA of several adapters
///
/// One job, which waits for the inversions that it still needs; they are queued with it. With pictures the meta-LoRA is measured on
/// them beside merges of the same adapters. The same work is done once: where it is queued, running or done already, that job is the
/// answer.
#[utoipa::path(post, path = "/api/v1/jobs/recycle", tag = "jobs",
    request_body(content((RecycleRequest = "application/json"), (RecycleForm = "multipart/form-data"))),
    responses((status = 202, description = "The job; Location has its address", body = StartedJobs), JobProblems))]
pub(in crate::web) async fn start_recycling(
    State(jobs): State<Option<Jobs>>,
    admission: Admission,
    request: Request,
) -> Result<Started, ApiError> {
    start::<Recycle>(&jobs, &admission, request).await
}

/// Compares adapters, merges and baselines on pictures
///
/// One job, which draws few-shot tasks from the pictures and runs every method on the same ones. The same work is done once: where it
/// is queued, running or done already, that job is the answer.
#[utoipa::path(post, path = "/api/v1/jobs/evaluate", tag = "jobs",
    request_body(content((EvaluateRequest = "application/json"), (EvaluateForm = "multipart/form-data"))),
    responses((status = 202, description = "The job; Location has its address", body = StartedJobs), JobProblems))]
pub(in crate::web) async fn start_evaluation(
    State(jobs): State<Option<Jobs>>,
    admission: Admission,
    request: Request,
) -> Result<Started, ApiError> {
    start::<Evaluate>(&jobs, &admission, request).await
}

async fn start<J: jobs::Job>(
    jobs: &Option<Jobs>,
    admission: &Admission,
    request: Request,
) -> Result<Started, ApiError> {
    let jobs = queue(jobs)?;
    let request: J::Request = match BodyKind::of(request.headers())? {
        BodyKind::Json => receive_json(admission, request).await?,
        BodyKind::Form => {
            let parts = receive_form(admission, request, Ok).await?;
            request_parts(parts)?.into_request()?
        }
    };
    let jobs = jobs_of(jobs.request::<J>(request).await?);
    Ok((
        StatusCode::ACCEPTED,
        location(&jobs),
        Json(StartedJobs { jobs }),
    ))
}

fn jobs_of(submitted: Vec<Submitted>) -> Vec<Job> {
    submitted.into_iter().map(|one| one.job.into()).collect()
}

fn location(jobs: &[Job]) -> Option<[(HeaderName, String); 1]> {
    let first = jobs.first()?;
    Some([(header::LOCATION, format!("/api/v1/jobs/{}", first.id))])
}

/// The body of [`submit_any`].
#[derive(Deserialize)]
struct AnyRequest {
    kind: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

const DEFAULT_FORM_KIND: &str = "tune";

/// The older address for jobs of all kinds, which became one address per kind. It answers with a job alone where there is one.
pub(in crate::web) async fn submit_any(
    State(jobs): State<Option<Jobs>>,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let jobs = queue(&jobs)?;
    let (kind, parts) = match BodyKind::of(request.headers())? {
        BodyKind::Json => {
            let AnyRequest { kind, fields } = receive_json(&admission, request).await?;
            let parts = RequestParts {
                fields,
                ..RequestParts::default()
            };
            (kind, parts)
        }
        BodyKind::Form => {
            let mut parts = request_parts(receive_form(&admission, request, Ok).await?)?;
            let kind = match parts.fields.remove("kind") {
                Some(Value::String(kind)) => kind,
                _ => DEFAULT_FORM_KIND.to_owned(),
            };
            (kind, parts)
        }
    };
    let mut jobs = jobs_of(jobs.request_by_name(&kind, parts).await?);
    let location = location(&jobs);
    let body = match (jobs.len(), jobs.pop()) {
        (1, Some(only)) => Json(only).into_response(),
        (_, last) => {
            jobs.extend(last);
            Json(StartedJobs { jobs }).into_response()
        }
    };
    Ok((StatusCode::ACCEPTED, location, body).into_response())
}
