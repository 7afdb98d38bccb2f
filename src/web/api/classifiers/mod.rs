//! Classifiers that stay, over HTTP: one file per kind of request. The work is done in `app::classifiers` and in the store.

pub(in crate::web) mod batches;
pub(in crate::web) mod check;
pub(in crate::web) mod classes;
pub(in crate::web) mod classify;
pub mod export;
pub(in crate::web) mod history;
pub(in crate::web) mod images;
pub(in crate::web) mod import;
pub(in crate::web) mod manage;
mod schema;
pub(in crate::web) mod snippets;

use super::etags;
use super::problems::problem_responses;
use crate::app::App;
use crate::app::classifiers::ClassifiersError;
use crate::web::ApiError;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schema::ChangedClassifier;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use store::{Changed, ClassifierError, Store};
use utoipa::IntoResponses;
use utoipa::openapi::{self, RefOr};
use uuid::Uuid;

/// Who changes things through this interface, as histories show it.
const ACTOR: &str = "REST";

/// What requests about classifiers may be refused with.
struct ClassifierProblems;

impl IntoResponses for ClassifierProblems {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problem_responses(&[
            ("404", "There is no such classifier, class or picture"),
            (
                "409",
                "It conflicts with what is stored, or a request with this Idempotency-Key was another or is not answered yet",
            ),
            (
                "412",
                "The classifier is not at the revision of If-Match; `changes` says what was changed since",
            ),
            (
                "503",
                "The database cannot be used now, or the answer took too long",
            ),
            ("507", "The disk is full"),
        ])
    }
}

impl From<ClassifiersError> for ApiError {
    fn from(error: ClassifiersError) -> Self {
        match error {
            ClassifiersError::App(error) => error.into(),
            error => Self::Classifier(Box::new(error)),
        }
    }
}

impl From<ClassifierError> for ApiError {
    fn from(error: ClassifierError) -> Self {
        ClassifiersError::from(error).into()
    }
}

fn store(app: &App) -> Result<&Store, ApiError> {
    Ok(app.registry()?.store())
}

fn classifier_id(text: &str) -> Result<Uuid, ApiError> {
    text.parse()
        .map_err(|_| ApiError::UnknownClassifier(text.to_owned()))
}

/// An id that the address names; what is no id is as unknown as one that nothing has.
fn id_of(text: &str, unknown: fn(Uuid) -> ClassifierError) -> Result<Uuid, ApiError> {
    text.parse().map_err(|_| unknown(Uuid::nil()).into())
}

/// An answer with the revision as its tag.
fn at_revision(status: StatusCode, revision: u64, body: impl Serialize) -> Response {
    let etag = [(header::ETAG, etags::of_revision(revision))];
    (status, etag, Json(body)).into_response()
}

/// The answer to a change.
fn answer(changed: Changed) -> Response {
    let revision = changed.revision;
    at_revision(StatusCode::OK, revision, ChangedClassifier::from(changed))
}

/// An answer of [`once`](super::once::once), whose body has the revision.
fn made(status: StatusCode, body: Value) -> Response {
    let revision = body["revision"].as_u64().unwrap_or_default();
    at_revision(status, revision, body)
}

fn to_json(body: impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(body).map_err(|error| ApiError::Internal(error.to_string()))
}
