//! Making, listing, showing, changing and deleting classifiers.

use super::schema::{Classifier, ClassifierSummary};
use super::{ACTOR, ClassifierProblems, at_revision, classifier_id, made, store, to_json};
use crate::app::classifiers::{AnsweringPatch, ClassifierToMake, at_one_revision};
use crate::app::{App, CopiesWanted};
use crate::web::ApiError;
use crate::web::api::AdapterIdentity;
use crate::web::api::adapters::json_body;
use crate::web::api::etags::expected_revision;
use crate::web::api::once::{key, once};
use crate::web::api::parameters::{Parameters, Path, check_limit, next_cursor};
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use recycle::head::HeadChoice;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::sync::Arc;
use store::{ClassifierFilter, Digest, Privacy};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

const ROUTE: &str = "/api/v1/classifiers";

/// A classifier to be made, without classes.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClassifierRequest {
    /// 1 to 200 characters; several classifiers can have the same.
    #[schema(example = "Trees")]
    name: String,
    /// Adapter that it sees through: `name@alias` follows the alias; `name` and `name:version` stay with that version; `none` is the bare
    /// backbone; `auto` lets it choose what tells its examples apart best. Without one it follows the backbone's default.
    adapter: Option<String>,
    /// What is kept of its pictures, for good: `pictures`, or only `features` and thumbnails. In the second case the adapter stays the one that
    /// is meant now, because features through another could not be computed.
    #[serde(default)]
    privacy: Privacy,
}

/// Makes a classifier without classes
#[utoipa::path(post, path = "/api/v1/classifiers", tag = "classifiers", request_body = NewClassifierRequest,
    params(("idempotency-key" = Option<String>, Header, description = "The same key within 24 hours gives the same classifier")),
    responses((status = 201, description = "The classifier, with its revision as ETag", body = Classifier), ClassifierProblems))]
pub(in crate::web) async fn create_classifier(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let body: NewClassifierRequest = json_body(&admission, request).await?;
    let content = Digest::of(to_json(&body)?.to_string().as_bytes());
    let key = key(&headers)?;
    let answering = Arc::clone(&app);
    let act = async move |id: Option<Uuid>| -> Result<Value, ApiError> {
        let make = ClassifierToMake {
            id,
            name: body.name,
            adapter: body.adapter,
            privacy: body.privacy,
        };
        let record = answering.create_classifier(make, ACTOR).await?;
        to_json(described(&answering, record.id).await?)
    };
    let body = once(store(&app)?, format!("POST {ROUTE}"), key, content, act).await?;
    let location = format!("{ROUTE}/{}", body["id"].as_str().unwrap_or_default());
    let mut response = made(StatusCode::CREATED, body);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn described(app: &Arc<App>, id: Uuid) -> Result<Classifier, ApiError> {
    let store = store(app)?;
    let read = || async { Ok((store.classes(id).await?, store.undo_and_redo(id).await?)) };
    let (record, (classes, (undo, redo))) = at_one_revision(store, id, read).await?;
    let automatic = app.automatic(&record).await?;
    if let Some((_, is_current)) = automatic
        && !is_current
    {
        app.prepare_classifier(id);
    }
    let sees_through = match &automatic {
        Some((choice, _)) => choice.chosen.clone(),
        // A question says why there is none.
        None => match app.adapter_of(&record, CopiesWanted::Soon).await {
            Ok(served) => served.map(|own| own.record),
            Err(_) => None,
        },
    };
    let sees_through = sees_through.as_deref().map(AdapterIdentity::of_record);
    let automatic = automatic.map(|(choice, _)| choice.as_ref().into());
    Ok(Classifier::new(
        record,
        classes,
        undo,
        redo,
        sees_through,
        automatic,
    ))
}

async fn shown(app: &Arc<App>, id: Uuid) -> Result<Response, ApiError> {
    let classifier = described(app, id).await?;
    let revision = classifier.revision();
    Ok(at_revision(StatusCode::OK, revision, classifier))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// The whole name, without regard to case.
    name: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<Uuid>,
    /// Most classifiers of the page, 1 to 200.
    #[serde(default = "crate::web::api::parameters::default_page")]
    #[param(default = 50)]
    limit: u32,
}

/// A page of classifiers, newest first.
#[derive(Serialize, ToSchema)]
pub struct ClassifierList {
    classifiers: Vec<ClassifierSummary>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists classifiers, newest first
#[utoipa::path(get, path = "/api/v1/classifiers", tag = "classifiers", params(ListParameters), responses(
    (status = 200, description = "A page of classifiers", body = ClassifierList), ClassifierProblems))]
pub(in crate::web) async fn list_classifiers(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<ClassifierList>, ApiError> {
    let ListParameters { limit, .. } = parameters;
    check_limit(limit)?;
    let filter = ClassifierFilter {
        name: parameters.name.filter(|name| !name.is_empty()),
        before: parameters.cursor,
        // One more tells whether there is another page.
        limit: Some(limit + 1),
    };
    let mut records = store(&app)?.list_classifiers(&filter).await?;
    let next_cursor = next_cursor(&mut records, limit, |record| record.id);
    Ok(Json(ClassifierList {
        classifiers: records.into_iter().map(Into::into).collect(),
        next_cursor,
    }))
}

/// Shows a classifier
#[utoipa::path(get, path = "/api/v1/classifiers/{id}", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier")),
    responses((status = 200, description = "The classifier, with its revision as ETag", body = Classifier), ClassifierProblems))]
pub(in crate::web) async fn get_classifier(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    shown(&app, classifier_id(&id)?).await
}

/// What is to change of a classifier; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifierPatchRequest {
    name: Option<String>,
    /// As when it is made, also `auto`; null is the backbone's default.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    adapter: Option<Option<String>>,
    /// What reads the features where a question does not say: `auto`, `nearest-mean`, `lda` or `lda-augmented`.
    #[schema(value_type = Option<String>, example = "auto")]
    head: Option<HeadChoice>,
    /// The share of pictures of known classes that may be refused as none of these where a question does not say, above 0 and below 1; null
    /// refuses none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<f32>, example = 0.05)]
    reject: Option<Option<f32>>,
    /// Ids of all classes in their new order; in a request of its own.
    order: Option<Vec<Uuid>>,
}

/// A field that is there, null or not.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Changes name, adapter, how it answers, or the order of the classes
#[utoipa::path(patch, path = "/api/v1/classifiers/{id}", tag = "classifiers", request_body = ClassifierPatchRequest,
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "The classifier as it is now", body = Classifier), ClassifierProblems))]
pub(in crate::web) async fn change_classifier(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let id = classifier_id(&id)?;
    let expected = expected_revision(&headers)?;
    let body: ClassifierPatchRequest = json_body(&admission, request).await?;
    let store = store(&app)?;
    match body {
        ClassifierPatchRequest {
            name: None,
            adapter: None,
            head: None,
            reject: None,
            order: Some(order),
        } => {
            store.reorder_classes(id, expected, &order, ACTOR).await?;
        }
        ClassifierPatchRequest {
            name,
            adapter,
            head,
            reject,
            order: None,
        } => {
            let adapter = adapter.as_ref().map(Option::as_deref);
            let answering = AnsweringPatch { head, reject };
            app.change_classifier(id, expected, name, adapter, answering, ACTOR)
                .await?;
        }
        ClassifierPatchRequest { .. } => {
            return Err(ApiError::InvalidParameter {
                parameter: "order".into(),
                detail: "a new order comes in a request of its own, so that each change can be undone alone".into(),
            });
        }
    }
    shown(&app, id).await
}

/// Space that a deletion gave back.
#[derive(Serialize, ToSchema)]
#[schema(as = DeletedClassifier)]
pub struct Deleted {
    pub(super) freed_bytes: u64,
}

/// Deletes a classifier with its pictures for good
#[utoipa::path(delete, path = "/api/v1/classifiers/{id}", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "It is gone", body = Deleted), ClassifierProblems))]
pub(in crate::web) async fn delete_classifier(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Deleted>, ApiError> {
    let expected = expected_revision(&headers)?;
    let freed = store(&app)?.delete_classifier(classifier_id(&id)?, expected);
    let freed_bytes = freed.await?.bytes;
    Ok(Json(Deleted { freed_bytes }))
}
