//! Thumbnails of pictures that a client cannot show itself, such as TIFF in browsers.

use super::images::receive_files;
use super::problems::problem_responses;
use super::schemas::{Binary, FormSchema};
use crate::app::App;
use crate::web::ApiError;
use crate::web::limits::Admission;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use model::image_input::thumbnail;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::openapi::{self, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

const IMAGE: &str = "image";

/// An image, as a form.
struct ThumbnailForm;

impl PartialSchema for ThumbnailForm {
    fn schema() -> RefOr<Schema> {
        FormSchema::default()
            .files(IMAGE, "One image file.")
            .required([IMAGE])
    }
}

impl ToSchema for ThumbnailForm {}

struct ThumbnailProblems;

impl IntoResponses for ThumbnailProblems {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problem_responses(&[])
    }
}

/// Makes a thumbnail of an image, at most 256 pixels a side
///
/// Nothing is stored. It is for clients that cannot show a format themselves.
#[utoipa::path(post, path = "/api/v1/thumbnails", tag = "classification",
    request_body(content = ThumbnailForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "A JPEG file", body = inline(Binary), content_type = "image/jpeg"),
        ThumbnailProblems,
    ))]
pub(in crate::web) async fn make_thumbnail(
    State(app): State<Arc<App>>,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let mut images = receive_files(&admission, request, IMAGE, "an image").await?;
    let wrong = |detail: String| ApiError::InvalidParameter {
        parameter: IMAGE.into(),
        detail,
    };
    let (Some(image), true) = (images.pop(), images.is_empty()) else {
        return Err(wrong("one image is made into a thumbnail at a time".into()));
    };
    let limits = *app.limits();
    let made = tokio::task::spawn_blocking(move || thumbnail(&image.bytes, &limits)).await;
    let made = made.map_err(|error| ApiError::Internal(format!("decoding stopped: {error}")))?;
    let jpeg = made.map_err(|error| wrong(error.to_string()))?.jpeg;
    let kind = HeaderValue::from_static("image/jpeg");
    Ok(([(header::CONTENT_TYPE, kind)], jpeg).into_response())
}
