//! How good a classifier is by its own examples.

use super::{ClassifierProblems, at_revision, classifier_id};
use crate::app::App;
use crate::app::classifiers::Check;
use crate::web::ApiError;
use crate::web::api::parameters::Path;
use crate::web::limits::Admission;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// Checks a classifier by its own examples
///
/// Examples are sorted by a classifier that has seen neither them nor their near-duplicates. From that come its accuracy, what it mixes up, and hints, each
/// with the change that follows: a label that is probably wrong, a picture in two classes or twice in one, classes that look alike, the class that needs more.
/// Features that are missing are encoded first.
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/check", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier")),
    responses((status = 200, description = "What was found, with the revision as ETag", body = Check), ClassifierProblems))]
pub(in crate::web) async fn check_classifier(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    admission: Admission,
) -> Result<Response, ApiError> {
    let check = admission
        .answer(app.check_classifier(classifier_id(&id)?))
        .await?;
    Ok(at_revision(StatusCode::OK, check.revision, check))
}
