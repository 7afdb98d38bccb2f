//! Jobs over HTTP: one file a kind of request. What is done stands in `jobs`.

mod events;
mod manage;
mod previews;
mod submit;

use super::schemas::problem_responses;
use crate::jobs::{Jobs, RequestError};
use crate::web::{ApiError, WebState};
use std::collections::BTreeMap;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};
use utoipa_axum::router::OpenApiRouter;

pub fn router() -> OpenApiRouter<WebState> {
    OpenApiRouter::default()
        .merge(submit::router())
        .merge(manage::router())
        .merge(events::router())
        .merge(previews::router())
}

/// What requests about jobs and pools may be refused with.
pub(super) struct JobProblems;

impl IntoResponses for JobProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[
            (
                "404",
                "There is no such job, pool, picture, adapter or backbone",
            ),
            (
                "409",
                "The state of what is stored does not allow it; the detail says why",
            ),
            ("503", "The database or the backbone cannot be read now"),
            ("507", "The disk is full"),
        ])
    }
}

/// The queue of a server that has one.
fn queue(jobs: &Option<Jobs>) -> Result<&Jobs, ApiError> {
    jobs.as_ref()
        .ok_or_else(|| ApiError::Internal("the server was started without a queue of jobs".into()))
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let detail = error.to_string();
        match error {
            RequestError::UnknownKind { .. } => Self::InvalidParameter {
                parameter: "kind".into(),
                detail,
            },
            RequestError::Invalid { parameter, .. } => Self::InvalidParameter { parameter, detail },
            RequestError::FailedImages(fault) => Self::FailedImages(fault),
            RequestError::Registry(error) => Self::Registry(error),
        }
    }
}
