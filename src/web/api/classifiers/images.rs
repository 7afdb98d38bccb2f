//! Pictures of a classifier: adding, listing, moving, deleting and showing them.

use super::schema::{ChangedClassifier, ClassifierPicture};
use super::{ACTOR, ClassifierProblems, answer, classifier_id, id_of, made, store, to_json};
use crate::app::classifiers::{AddedExamples, NewExample};
use crate::app::{App, Fault};
use crate::jobs::ClassPictures;
use crate::web::ApiError;
use crate::web::api::adapters::json_body;
use crate::web::api::classify::ClassExamples;
use crate::web::api::etags::expected_revision;
use crate::web::api::files::private_file;
use crate::web::api::images::{BodyKind, named_images, receive_form, receive_json};
use crate::web::api::labelled_parts::{LabelledParts, LabelledPlace};
use crate::web::api::once::{key, once};
use crate::web::api::parameters::{Parameters, Path, check_limit, next_cursor};
use crate::web::api::schemas::{Binary, labelled_form};
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write;
use std::sync::Arc;
use store::{Author, ClassifierError, Digest, PictureFilter, PictureRecord};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

/// Labelled pictures, as JSON.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewImages {
    /// By class; one that is not there is made.
    #[schema(value_type = Vec<ClassPictures>)]
    classes: Vec<ClassExamples>,
}

/// Labelled pictures, as a form.
struct NewImagesForm;

impl PartialSchema for NewImagesForm {
    fn schema() -> RefOr<Schema> {
        labelled_form(
            "Image files, each for the class of its label; a class that is not there is made.",
        )
        .required(["support", "label"])
    }
}

impl ToSchema for NewImagesForm {}

/// What came of one picture.
#[derive(Serialize, ToSchema)]
pub struct AddedImage {
    /// Its file name, or else its index.
    image: String,
    /// The class that it was sent for.
    label: String,
    /// Of the new picture, or of the same one that the class had already; null where it could not be used.
    id: Option<Uuid>,
    /// False where the class had it already, or it could not be used.
    is_new: bool,
    /// Why it could not be used.
    error: Option<Fault>,
}

#[derive(Serialize, ToSchema)]
pub struct AddedImages {
    #[serde(flatten)]
    changed: ChangedClassifier,
    /// In the order in which they were sent; of a JSON body class by class.
    images: Vec<AddedImage>,
}

impl From<AddedExamples> for AddedImages {
    fn from(added: AddedExamples) -> Self {
        let images = added.examples.into_iter().map(|example| {
            let added = example.result.as_ref().ok();
            AddedImage {
                id: added.map(|added| added.id),
                is_new: added.is_some_and(|added| added.is_new),
                image: example.image,
                label: example.label,
                error: example.result.err(),
            }
        });
        Self {
            images: images.collect(),
            changed: added.changed.into(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AddParameters {
    /// Any UUID. Additions in a row that have the same one are undone together, such as those of one folder that is sent in portions.
    undo_group: Option<Uuid>,
}

/// Adds pictures to classes
///
/// Parts named `support/LABEL` need no part `label`. A picture that cannot be used says why in its place; the others are added. A class
/// that is not there is made, as a change of its own.
#[utoipa::path(post, path = "/api/v1/classifiers/{id}/images", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), AddParameters,
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for"),
        ("idempotency-key" = Option<String>, Header, description = "The same key within 24 hours adds them once")),
    request_body(content((NewImages = "application/json"), (NewImagesForm = "multipart/form-data"))),
    responses((status = 200, description = "What came of each picture", body = AddedImages), ClassifierProblems))]
pub(in crate::web) async fn add_images(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Parameters(AddParameters { undo_group }): Parameters<AddParameters>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let id = classifier_id(&id)?;
    let expected = expected_revision(&headers)?;
    let key = key(&headers)?;
    let new = match BodyKind::of(&headers)? {
        BodyKind::Json => from_json(receive_json(&admission, request).await?)?,
        BodyKind::Form => from_form(&admission, request).await?,
    };
    admission.check_images("classes", new.len())?;
    let (new, content) = match key {
        None => (new, Digest::of(b"")),
        Some(_) => with_digest(new).await?,
    };
    let answering = Arc::clone(&app);
    let act = async move |_: Option<Uuid>| -> Result<Value, ApiError> {
        let by = Author {
            group: undo_group,
            ..ACTOR.into()
        };
        let added = answering.add_examples(id, expected, new, by);
        let added = admission.answer(added).await?;
        answering.prepare_classifier(id);
        to_json(AddedImages::from(added))
    };
    let route = format!("POST /api/v1/classifiers/{id}/images");
    let body = once(store(&app)?, route, key, content, act).await?;
    Ok(made(StatusCode::OK, body))
}

fn from_json(body: NewImages) -> Result<Vec<NewExample>, ApiError> {
    let mut new = Vec::new();
    for (index, class) in body.classes.into_iter().enumerate() {
        let images = named_images(class.images, &format!("classes[{index}].images"))?;
        new.extend(images.into_iter().map(|image| NewExample {
            label: class.label.clone(),
            image,
        }));
    }
    Ok(new)
}

async fn from_form(admission: &Admission, request: Request) -> Result<Vec<NewExample>, ApiError> {
    let place = |name: String| {
        LabelledPlace::of(&name).ok_or_else(|| ApiError::InvalidParameter {
            detail: format!(
                "a part is named \"{name}\"; the names are support for pictures and label for their labels"
            ),
            parameter: name,
        })
    };
    let mut labelled = LabelledParts::default();
    for part in receive_form(admission, request, place).await? {
        let (part, place) = part.without_place();
        labelled.take(place, part)?;
    }
    let labelled = labelled.into_labelled()?.into_iter().enumerate();
    let new = labelled.map(|(index, own)| NewExample {
        label: own.label,
        image: own.picture.named(index),
    });
    Ok(new.collect())
}

/// A digest over all that is added, taken off the async workers.
async fn with_digest(new: Vec<NewExample>) -> Result<(Vec<NewExample>, Digest), ApiError> {
    let digest = move || {
        let mut described = String::new();
        for NewExample { label, image } in &new {
            let picture = Digest::of(&image.bytes);
            // Writing to a string cannot fail.
            let _ = writeln!(described, "{label:?} {:?} {picture}", image.name);
        }
        (new, Digest::of(described.as_bytes()))
    };
    tokio::task::spawn_blocking(digest)
        .await
        .map_err(|error| ApiError::Internal(format!("hashing stopped: {error}")))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Id of a class; without it those of all classes.
    class: Option<Uuid>,
    /// `next_cursor` of the page before.
    cursor: Option<Uuid>,
    /// Most pictures of the page, 1 to 200.
    #[serde(default = "crate::web::api::parameters::default_page")]
    #[param(default = 50)]
    limit: u32,
}

/// A page of pictures, in the order in which they were added.
#[derive(Serialize, ToSchema)]
pub struct ImageList {
    images: Vec<ClassifierPicture>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists pictures, in the order in which they were added
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/images", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ListParameters),
    responses((status = 200, description = "A page of pictures", body = ImageList), ClassifierProblems))]
pub(in crate::web) async fn list_images(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<ImageList>, ApiError> {
    let ListParameters {
        class,
        cursor,
        limit,
    } = parameters;
    check_limit(limit)?;
    let filter = PictureFilter {
        class,
        after: cursor,
        // One more tells whether there is another page.
        limit: Some(limit + 1),
    };
    let listed = store(&app)?.list_pictures(classifier_id(&id)?, &filter);
    let mut records = listed.await?;
    let next_cursor = next_cursor(&mut records, limit, |record| record.id);
    Ok(Json(ImageList {
        images: records.into_iter().map(Into::into).collect(),
        next_cursor,
    }))
}

/// Pictures that go to another class.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveImages {
    /// Ids of the pictures.
    images: Vec<Uuid>,
    /// Id of the class that they go to.
    class: Uuid,
}

/// Moves pictures to another class
///
/// One that is in that class already is deleted where it was.
#[utoipa::path(patch, path = "/api/v1/classifiers/{id}/images", tag = "classifiers", request_body = MoveImages,
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "They are there", body = ChangedClassifier), ClassifierProblems))]
pub(in crate::web) async fn move_images(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let id = classifier_id(&id)?;
    let expected = expected_revision(&headers)?;
    let MoveImages { images, class } = json_body(&admission, request).await?;
    let moved = store(&app)?.move_pictures(id, expected, &images, class, ACTOR);
    Ok(answer(moved.await?))
}

/// Pictures that go away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteImages {
    /// Ids of the pictures.
    images: Vec<Uuid>,
}

/// Deletes pictures; an undo gives them back
#[utoipa::path(delete, path = "/api/v1/classifiers/{id}/images", tag = "classifiers", request_body = DeleteImages,
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("if-match" = Option<String>, Header, description = "The ETag that the change is meant for")),
    responses((status = 200, description = "They are gone", body = ChangedClassifier), ClassifierProblems))]
pub(in crate::web) async fn delete_images(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let id = classifier_id(&id)?;
    let expected = expected_revision(&headers)?;
    let DeleteImages { images } = json_body(&admission, request).await?;
    let deleted = store(&app)?.delete_pictures(id, expected, &images, ACTOR);
    Ok(answer(deleted.await?))
}

/// Gives a picture as it was sent
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/images/{image}", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("image" = Uuid, Path, description = "Id of the picture")),
    responses(
        (status = 200, description = "The file, with an ETag", body = inline(Binary), content_type = "image/*"),
        (status = 304, description = "It is as the client has it"),
        ClassifierProblems,
    ))]
pub(in crate::web) async fn get_image(
    State(app): State<Arc<App>>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let picture = picture(&app, &path).await?;
    let store = store(&app)?;
    let etag = format!("\"{}\"", picture.digest);
    private_file(&headers, etag, Some(&picture.media_type), async || {
        store.read_picture(&picture).await
    })
    .await
}

/// Gives the thumbnail of a picture, at most 256 pixels a side
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/images/{image}/thumbnail", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("image" = Uuid, Path, description = "Id of the picture")),
    responses(
        (status = 200, description = "A JPEG file, with an ETag", body = inline(Binary), content_type = "image/jpeg"),
        (status = 304, description = "It is as the client has it"),
        ClassifierProblems,
    ))]
pub(in crate::web) async fn get_thumbnail(
    State(app): State<Arc<App>>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let picture = picture(&app, &path).await?;
    let store = store(&app)?;
    let etag = format!("\"{}\"", picture.thumbnail);
    private_file(&headers, etag, Some("image/jpeg"), async || {
        store.read_thumbnail(&picture.thumbnail).await
    })
    .await
}

async fn picture(app: &App, (id, image): &(String, String)) -> Result<PictureRecord, ApiError> {
    let image = id_of(image, ClassifierError::UnknownPicture)?;
    Ok(store(app)?.picture(classifier_id(id)?, image).await?)
}
