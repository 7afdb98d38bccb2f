//! Taking changes of a classifier back, and making them again.

use super::schema::ChangedClassifier;
use super::{ACTOR, ClassifierProblems, answer, classifier_id, store};
use crate::app::App;
use crate::web::ApiError;
use crate::web::api::etags::expected_revision;
use crate::web::api::parameters::Path;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use std::sync::Arc;

/// Takes back the last change
///
/// Called again and again it walks back through the last 50 changes.
#[utoipa::path(post, path = "/api/v1/classifiers/{id}/undo", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "It is undone", body = ChangedClassifier), ClassifierProblems))]
pub(in crate::web) async fn undo_change(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let expected = expected_revision(&headers)?;
    let undone = store(&app)?.undo_classifier(classifier_id(&id)?, expected, ACTOR);
    Ok(answer(undone.await?))
}

/// Makes the change again that was taken back last
#[utoipa::path(post, path = "/api/v1/classifiers/{id}/redo", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "It is made again", body = ChangedClassifier), ClassifierProblems))]
pub(in crate::web) async fn redo_change(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let expected = expected_revision(&headers)?;
    let redone = store(&app)?.redo_classifier(classifier_id(&id)?, expected, ACTOR);
    Ok(answer(redone.await?))
}
