//! Features of images.

use super::images::{Base64Image, BodyKind, named_images, receive_files, receive_json};
use super::parameters::Parameters;
use super::problems::AnswerProblems;
use super::schemas::FormSchema;
use super::{AdapterIdentity, BackboneIdentity, wanted_adapter};
use crate::app::{App, Embedding};
use crate::inference::EncoderInfo;
use crate::web::ApiError;
use crate::web::limits::Admission;
use crate::web::problem::Problem;
use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// Images to embed, as JSON.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    images: Vec<Base64Image>,
    /// Adapter that the images go through: `name`, `name:version` or `name@alias`; `none` is the bare backbone. Without one
    /// the backbone's default adapter answers, where it has one.
    #[serde(default)]
    adapter: Option<String>,
}

/// Images to embed, as a form.
struct EmbedForm;

impl PartialSchema for EmbedForm {
    fn schema() -> RefOr<Schema> {
        FormSchema::default()
            .files(
                "image",
                "Image files; the part may be given any number of times.",
            )
            .required(["image"])
    }
}

impl ToSchema for EmbedForm {}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EmbedParameters {
    /// Adapter that the images go through: `name`, `name:version` or `name@alias`; `none` is the bare backbone. Without one
    /// the backbone's default adapter answers, where it has one.
    adapter: Option<String>,
}

/// Features, in the order of the images.
#[derive(Serialize, ToSchema)]
pub struct EmbedResponse {
    backbone: BackboneIdentity,
    /// The adapter that gave the answer; null for the bare backbone.
    adapter: Option<AdapterIdentity>,
    encoder: EncoderInfo,
    results: Vec<Embedding>,
}

/// Turns images into features
///
/// An image that cannot be used has an `error` in its place; the others are still answered.
#[utoipa::path(
    post,
    path = "/api/v1/embed",
    tag = "classification",
    params(EmbedParameters),
    request_body(content((EmbedRequest = "application/json"), (EmbedForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "One result per image, in order", body = EmbedResponse),
        (status = 404, description = "There is no such adapter; the detail names near ones",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The adapter was made for another backbone; the detail names both",
            body = Problem, content_type = "application/problem+json"),
        AnswerProblems,
    )
)]
pub(in crate::web) async fn embed_images(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<EmbedParameters>,
    admission: Admission,
    request: Request,
) -> Result<Json<EmbedResponse>, ApiError> {
    let mut in_body = None;
    let images = match BodyKind::of(request.headers())? {
        BodyKind::Json => {
            let body: EmbedRequest = receive_json(&admission, request).await?;
            in_body = body.adapter;
            named_images(body.images, "images")?
        }
        BodyKind::Form => receive_files(&admission, request, "image", "images").await?,
    };
    if images.is_empty() {
        return Err(ApiError::InvalidParameter {
            parameter: "images".into(),
            detail: "there is no image".into(),
        });
    }
    admission.check_images("images", images.len())?;
    let served = wanted_adapter(&app, parameters.adapter, in_body).await?;
    Ok(Json(EmbedResponse {
        backbone: BackboneIdentity::of(&app),
        adapter: served.as_ref().map(AdapterIdentity::of),
        encoder: app.encoder_info().clone(),
        results: admission.answer(app.embed(images, served.as_ref())).await?,
    }))
}
