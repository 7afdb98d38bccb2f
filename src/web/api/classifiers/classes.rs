//! Classes of a classifier: adding, renaming, merging and deleting them.

use super::schema::ChangedClassifier;
use super::{ACTOR, ClassifierProblems, answer, classifier_id, id_of, made, store, to_json};
use crate::app::App;
use crate::web::ApiError;
use crate::web::api::adapters::json_body;
use crate::web::api::etags::expected_revision;
use crate::web::api::once::{key, once};
use crate::web::api::parameters::Path;
use crate::web::limits::Admission;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use store::{ClassRecord, ClassifierError, Digest, NewClass};
use utoipa::ToSchema;
use uuid::Uuid;

/// The name of a class, 1 to 200 characters; names of a classifier's classes differ in more than case.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassName {
    #[schema(example = "Oak")]
    name: String,
}

/// A class that was added at the end.
#[derive(Serialize, ToSchema)]
pub struct AddedClass {
    class: ClassRecord,
    #[serde(flatten)]
    changed: ChangedClassifier,
}

/// Where the pictures of a class go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeTarget {
    /// Id of the class that gets them.
    into: Uuid,
}

fn class_id(text: &str) -> Result<Uuid, ApiError> {
    id_of(text, ClassifierError::UnknownClass)
}

/// Adds a class at the end
#[utoipa::path(post, path = "/api/v1/classifiers/{id}/classes", tag = "classifiers", request_body = ClassName,
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for"),
        ("idempotency-key" = Option<String>, Header, description = "The same key within 24 hours gives the same class")),
    responses((status = 201, description = "The class", body = AddedClass), ClassifierProblems))]
pub(in crate::web) async fn add_class(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let id = classifier_id(&id)?;
    let expected = expected_revision(&headers)?;
    let key = key(&headers)?;
    let ClassName { name } = json_body(&admission, request).await?;
    let store = store(&app)?.clone();
    let content = Digest::of(name.as_bytes());
    let of_act = store.clone();
    let act = async move |class: Option<Uuid>| -> Result<Value, ApiError> {
        let new = NewClass { id: class, name };
        let added = of_act.add_classes(id, expected, &[new], ACTOR).await?;
        let class = added.classes.into_iter().next();
        let gone = || ClassifierError::UnknownClass(Uuid::nil());
        to_json(AddedClass {
            class: class.ok_or_else(gone)?,
            changed: added.changed.into(),
        })
    };
    let route = format!("POST /api/v1/classifiers/{id}/classes");
    let body = once(&store, route, key, content, act).await?;
    Ok(made(StatusCode::CREATED, body))
}

/// Gives a class another name
#[utoipa::path(patch, path = "/api/v1/classifiers/{id}/classes/{class}", tag = "classifiers", request_body = ClassName,
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("class" = Uuid, Path, description = "Id of the class"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "It has the name", body = ChangedClassifier), ClassifierProblems))]
pub(in crate::web) async fn rename_class(
    State(app): State<Arc<App>>,
    Path((id, class)): Path<(String, String)>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, class) = (classifier_id(&id)?, class_id(&class)?);
    let expected = expected_revision(&headers)?;
    let ClassName { name } = json_body(&admission, request).await?;
    let renamed = store(&app)?.rename_class(id, expected, class, &name, ACTOR);
    Ok(answer(renamed.await?))
}

/// Deletes a class with its pictures; an undo gives it back
#[utoipa::path(delete, path = "/api/v1/classifiers/{id}/classes/{class}", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("class" = Uuid, Path, description = "Id of the class"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "It is gone", body = ChangedClassifier), ClassifierProblems))]
pub(in crate::web) async fn delete_class(
    State(app): State<Arc<App>>,
    Path((id, class)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, class) = (classifier_id(&id)?, class_id(&class)?);
    let expected = expected_revision(&headers)?;
    let deleted = store(&app)?.delete_class(id, expected, class, ACTOR);
    Ok(answer(deleted.await?))
}

/// Moves the pictures of a class to another, and deletes the class
#[utoipa::path(post, path = "/api/v1/classifiers/{id}/classes/{class}/merge", tag = "classifiers", request_body = MergeTarget,
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("class" = Uuid, Path, description = "Id of the class"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "They are one class", body = ChangedClassifier), ClassifierProblems))]
pub(in crate::web) async fn merge_class(
    State(app): State<Arc<App>>,
    Path((id, class)): Path<(String, String)>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, class) = (classifier_id(&id)?, class_id(&class)?);
    let expected = expected_revision(&headers)?;
    let MergeTarget { into } = json_body(&admission, request).await?;
    let merged = store(&app)?.merge_class(id, expected, class, into, ACTOR);
    Ok(answer(merged.await?))
}
