//! Questions to a classifier.

use super::{ClassifierProblems, at_revision, classifier_id};
use crate::app::classifiers::Answering;
use crate::app::{App, ClassifyOptions};
use crate::web::ApiError;
use crate::web::api::classify::{ClassifyResponse, checked};
use crate::web::api::images::{Base64Image, BodyKind, named_images, receive_files, receive_json};
use crate::web::api::parameters::{Parameters, Path};
use crate::web::api::problems::AnswerProblems;
use crate::web::api::schemas::FormSchema;
use crate::web::api::{AdapterIdentity, BackboneIdentity};
use crate::web::limits::{Admission, AnswerSize};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use recycle::head::HeadChoice;
use serde::Deserialize;
use std::sync::Arc;
use store::LONGEST_TITLE;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

const QUERY: &str = "query";

/// Pictures to classify, as JSON.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Queries {
    /// Images to classify.
    queries: Vec<Base64Image>,
}

/// Pictures to classify, as a form.
struct QueriesForm;

impl PartialSchema for QueriesForm {
    fn schema() -> RefOr<Schema> {
        FormSchema::default()
            .files(
                QUERY,
                "Image files to classify; the part may be given any number of times.",
            )
            .required([QUERY])
    }
}

impl ToSchema for QueriesForm {}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AnswerParameters {
    /// Adds to each answer where the backbone looked.
    #[serde(default)]
    attention: bool,
    /// How many nearest pictures of the classifier each answer names.
    #[serde(default = "default_nearest")]
    #[param(default = 3)]
    nearest: usize,
    /// What reads the features: `auto`, `nearest-mean`, `lda` or `lda-augmented`. Left out, what the classifier is set to.
    #[param(value_type = Option<String>)]
    head: Option<HeadChoice>,
    /// Classifies all queries of the request together, as in `/classify`.
    #[serde(default)]
    transductive: bool,
    /// The share of images of known classes that may be refused, below 1, as in `/classify`; 0 refuses none. Left out, what the classifier
    /// is set to.
    #[param(minimum = 0.0, exclusive_maximum = 1.0)]
    reject: Option<f32>,
}

fn default_nearest() -> usize {
    ClassifyOptions::default().nearest
}

/// Classifies images with a classifier
///
/// The answer is that of `/classify` with the classifier's pictures. Classes without pictures take no part; there must be two with some.
/// Pictures of the classifier are encoded once and their features kept, so that an answer costs the encoding of the queries.
#[utoipa::path(post, path = "/api/v1/classifiers/{id}/classify", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), AnswerParameters),
    request_body(content((Queries = "application/json"), (QueriesForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "One result per query, in order; the ETag is the revision that answered", body = ClassifyResponse),
        AnswerProblems,
        ClassifierProblems,
    ))]
pub(in crate::web) async fn classify_with_classifier(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Parameters(parameters): Parameters<AnswerParameters>,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let id = classifier_id(&id)?;
    let record = super::store(&app)?.classifier(id).await?;
    let answering = Answering::of(&record).asked(parameters.head, parameters.reject);
    let options = checked(ClassifyOptions {
        attention: parameters.attention,
        nearest: parameters.nearest,
        head: answering.head,
        transductive: parameters.transductive,
        reject: answering.reject,
        ..ClassifyOptions::default()
    })?;
    let queries = match BodyKind::of(request.headers())? {
        BodyKind::Json => {
            let body: Queries = receive_json(&admission, request).await?;
            named_images(body.queries, "queries")?
        }
        BodyKind::Form => receive_files(&admission, request, QUERY, "images to classify").await?,
    };
    if queries.is_empty() {
        return Err(ApiError::InvalidParameter {
            parameter: "queries".into(),
            detail: "there is no image to classify".into(),
        });
    }
    admission.check_images("queries", queries.len())?;
    admission.check_scores(queries.len(), record.classes as usize)?;
    admission.check_answer(AnswerSize {
        queries: queries.len(),
        classes: record.classes as usize,
        nearest: options.nearest,
        longest_label: LONGEST_TITLE,
        longest_name: LONGEST_TITLE,
    })?;
    let answers = admission
        .answer(app.classify_with(&record, queries, options))
        .await?;
    let response = ClassifyResponse {
        backbone: BackboneIdentity::of(&app),
        adapter: answers.adapter.as_ref().map(AdapterIdentity::of),
        encoder: app.encoder_info().clone(),
        provisional: answers.classification.is_provisional,
        results: answers.classification.answers,
        refused: answers.classification.refused,
    };
    Ok(at_revision(StatusCode::OK, answers.revision, response))
}
