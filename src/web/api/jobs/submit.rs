//! Asking for jobs.

use super::{JobProblems, queue};
use crate::jobs::{JobRequest, Jobs};
use crate::web::api::images::{BodyKind, Part, receive_form, receive_json};
use crate::web::api::labelled_parts::LabelledParts;
use crate::web::limits::Admission;
use crate::web::{ApiError, WebState};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use store::{JobRecord, Submitted};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub fn router() -> OpenApiRouter<WebState> {
    OpenApiRouter::default().routes(routes!(submit))
}

/// A wish for jobs; besides `kind` and `waits_for`, what each kind needs: `adapter`, `recipe` and `retention` for `invert`; `name`,
/// `adapters`, `recipe` (of meta-training), `inversion` (of the images), `retention`, `use_failed_images` and `dry_run` for `recycle`, or `recipe_file` in
/// place of adapters and recipes. `evaluate` needs pictures, and is a form.
#[derive(Deserialize, ToSchema)]
struct SubmitBody {
    #[schema(example = "invert")]
    kind: String,
    /// Jobs that must succeed first.
    #[serde(default)]
    waits_for: Vec<Uuid>,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    parameters: Map<String, Value>,
}

/// A wish for jobs that work on labelled pictures; other parts are parameters of the kind, as text.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the shape of a form, for the document alone")]
struct SubmitForm {
    /// `tune` where there is none.
    kind: Option<String>,
    /// JSON.
    #[schema(value_type = Object)]
    recipe: Option<String>,
    /// For `tune` and `evaluate`: a zip whose folders are classes; for `recycle` pictures of classes that no adapter has seen, to
    /// measure the meta-LoRA on.
    #[schema(format = Binary)]
    archive: Option<String>,
    /// Instead of or beside a zip: labelled pictures, as in a request to classify; the part name is `support/` and the
    /// label, and may stand any number of times.
    #[schema(format = Binary, rename = "support/{label}")]
    support: Option<String>,
    /// For `recycle`: the recipe of the images, JSON.
    #[schema(value_type = Object)]
    inversion: Option<String>,
    /// For `recycle` with pictures: how it is measured, JSON as `recipe` of `evaluate`.
    #[schema(value_type = Object)]
    evaluation: Option<String>,
    /// For `invert`, `recycle` and `evaluate`: names of adapters, a JSON list.
    #[schema(value_type = Vec<String>)]
    adapters: Option<String>,
    /// For `evaluate`: names of adapters whose merges are compared, a JSON list.
    #[schema(value_type = Vec<String>)]
    pool: Option<String>,
    /// For `recycle`: a zip of pictures of other classes than those of `archive`, a folder a class, on which the best state is chosen in
    /// place of held-out synthetic images.
    #[schema(format = Binary)]
    validation: Option<String>,
    /// For `invert` and `recycle`: a zip of real pictures of the adapters' own classes, a folder a class, that stand in for synthetic
    /// images, as a control.
    #[schema(format = Binary)]
    real: Option<String>,
    /// For `invert` and `recycle`: a ResNet in torchvision's layout (safetensors), whose BatchNorm statistics are a prior.
    #[schema(format = Binary)]
    batch_norm: Option<String>,
    /// For `invert` and `recycle`: a file that `prior build` made.
    #[schema(format = Binary)]
    token_statistics: Option<String>,
}

/// Several jobs of one request.
#[derive(Serialize, ToSchema)]
struct SeveralJobs {
    jobs: Vec<JobRecord>,
}

/// Asks for jobs
///
/// The same work is done once: where it is queued, running or done already, that job is the answer.
/// A job `recycle` waits for the inversions that it still needs, which are queued with it. Its result has the adapter, figures and
/// a `recipe_file`; with `dry_run` it only says what it would cost: `seconds`, `memory_bytes`, `disk_bytes`.
/// A job `evaluate` compares `methods` of its recipe (`adapter`, `bare`, `average`, `sum:0.33`, …) on few-shot tasks from the
/// pictures; its result is `evaluation`, with `methods` and their `pairwise` differences.
#[utoipa::path(post, path = "/jobs", tag = "jobs",
    request_body(content((SubmitBody = "application/json"), (SubmitForm = "multipart/form-data"))),
    responses(
        (status = 202, description = "The job, or `{\"jobs\": […]}` where there are several; Location has the address of the first", body = JobRecord),
        JobProblems,
    ))]
async fn submit(
    State(jobs): State<Option<Jobs>>,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let jobs = queue(&jobs)?;
    let request = match BodyKind::of(request.headers())? {
        BodyKind::Json => {
            let body: SubmitBody = receive_json(&admission, request).await?;
            JobRequest {
                kind: body.kind,
                parameters: body.parameters,
                images: Vec::new(),
                files: BTreeMap::new(),
                waits_for: body.waits_for,
            }
        }
        BodyKind::Form => {
            let parts = receive_form(&admission, request, Ok).await?;
            // Unpacking takes long enough to hold up other requests of this worker.
            tokio::task::spawn_blocking(move || from_form(parts))
                .await
                .map_err(|error| ApiError::Internal(format!("unpacking stopped: {error}")))??
        }
    };
    Ok(accepted(jobs.request(request).await?))
}

const DEFAULT_FORM_KIND: &str = "tune";

fn from_form(parts: Vec<Part<String>>) -> Result<JobRequest, ApiError> {
    let mut request = JobRequest {
        kind: DEFAULT_FORM_KIND.into(),
        ..JobRequest::default()
    };
    let mut pictures = LabelledParts::default();
    for (index, part) in parts.into_iter().enumerate() {
        if LabelledParts::has(&part.place) {
            pictures.take(index, part)?;
            continue;
        }
        let (name, bytes) = part.into_place_and_bytes();
        let invalid = |detail: String| ApiError::InvalidParameter {
            parameter: name.clone(),
            detail,
        };
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|_| invalid("the part is no UTF-8 text".into()))
        };
        match name.as_str() {
            "kind" => request.kind = text(bytes)?,
            "batch_norm" | "token_statistics" | "validation" | "real" => {
                request.files.insert(name, bytes);
            }
            "recipe" | "inversion" | "evaluation" | "adapters" | "pool" | "recipe_file"
            | "use_failed_images" | "dry_run" => {
                let recipe = serde_json::from_slice(&bytes)
                    .map_err(|error| invalid(format!("the part is no JSON: {error}")))?;
                request.parameters.insert(name, recipe);
            }
            _ => {
                let text = text(bytes)?;
                request.parameters.insert(name, Value::String(text));
            }
        }
    }
    request.images = pictures.into_pictures();
    Ok(request)
}

fn accepted(submitted: Vec<Submitted>) -> Response {
    let mut jobs: Vec<JobRecord> = submitted.into_iter().map(|one| one.job).collect();
    let location = jobs
        .first()
        .map(|first| [(header::LOCATION, format!("/api/v1/jobs/{}", first.id))]);
    let body = match (jobs.len(), jobs.pop()) {
        (1, Some(only)) => Json(only).into_response(),
        (_, last) => {
            jobs.extend(last);
            Json(SeveralJobs { jobs }).into_response()
        }
    };
    (StatusCode::ACCEPTED, location, body).into_response()
}
