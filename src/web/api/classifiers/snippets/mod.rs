//! How other programs ask a classifier: short programs with its address filled in.

use super::{ClassifierProblems, classifier_id, store};
use crate::app::App;
use crate::web::ApiError;
use crate::web::api::parameters::Path;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

const ADDRESS: &str = "{{classifier}}";
const CURL: &str = include_str!("curl.sh");
const PYTHON: &str = include_str!("python.py");
const JAVASCRIPT: &str = include_str!("javascript.mjs");

/// Programs that let a classifier sort `picture.jpg`.
#[derive(Serialize, ToSchema)]
pub struct Snippets {
    /// A command; it prints the whole answer.
    curl: String,
    /// Needs no packages; prints class and probability.
    python: String,
    /// For Node; prints class and probability.
    javascript: String,
}

/// Shows how other programs ask a classifier
///
/// The address in them is the one that this request was sent to.
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/snippets", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier")),
    responses((status = 200, description = "The programs", body = Snippets), ClassifierProblems))]
pub(in crate::web) async fn get_snippets(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Snippets>, ApiError> {
    let id = store(&app)?.classifier(classifier_id(&id)?).await?.id;
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    // What is not part of an address has no place in a program.
    let is_plain = |host: &&str| {
        let is_part = |own: char| own.is_ascii_alphanumeric() || ".-:[]".contains(own);
        !host.is_empty() && host.chars().all(is_part)
    };
    let host = host.filter(is_plain).unwrap_or("127.0.0.1:8080");
    let address = format!("http://{host}/api/v1/classifiers/{id}");
    let filled = |text: &str| text.replace(ADDRESS, &address);
    Ok(Json(Snippets {
        curl: filled(CURL),
        python: filled(PYTHON),
        javascript: filled(JAVASCRIPT),
    }))
}
