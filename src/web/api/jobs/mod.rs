//! Jobs over HTTP: one file per kind of request. The work is done in `jobs`.

pub(in crate::web) mod events;
mod form;
pub(in crate::web) mod manage;
pub(in crate::web) mod previews;
mod schema;
pub(in crate::web) mod submit;

pub use schema::{Job, StartedJobs};

use super::problems::problem_responses;
use crate::jobs::{Jobs, RequestError};
use crate::web::ApiError;
use std::collections::BTreeMap;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

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
pub(super) fn queue(jobs: &Option<Jobs>) -> Result<&Jobs, ApiError> {
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
