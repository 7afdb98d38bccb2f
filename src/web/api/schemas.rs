//! What requests with images share in the OpenAPI document: their error answers and the shape of a form.

use crate::web::Problem;
use crate::web::problem::PROBLEM_MEDIA_TYPE;
use std::collections::BTreeMap;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, ToSchema};

/// What every request that does work may be refused with.
const ANY_REQUEST: [(&str, &str); 4] = [
    (
        "403",
        "The host is not one that the server answers for, or a browser sent the request on behalf of another site",
    ),
    (
        "422",
        "A part of the request is missing or wrong; `parameter` names it",
    ),
    (
        "429",
        "As many requests as allowed are being answered; Retry-After says when to try again",
    ),
    (
        "500",
        "The server failed; its log says more under the request id",
    ),
];

/// What requests with images may be refused with besides.
const IMAGE_REQUEST: [(&str, &str); 5] = [
    (
        "400",
        "The body is no valid JSON or multipart/form-data, or broke off",
    ),
    ("408", "The body came too slowly"),
    ("413", "The body is too large"),
    (
        "415",
        "The content type is neither application/json nor multipart/form-data",
    ),
    (
        "503",
        "The encoder has stopped, or the answer took too long",
    ),
];

pub struct ImageRequestProblems;

impl IntoResponses for ImageRequestProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&IMAGE_REQUEST)
    }
}

/// Error answers of every request and of these statuses besides, each with the words that say when it comes.
pub fn problem_responses(statuses: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    ANY_REQUEST
        .iter()
        .chain(statuses)
        .map(|(status, description)| {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(Problem::name())))
                .build();
            let response = ResponseBuilder::new()
                .description(*description)
                .content(PROBLEM_MEDIA_TYPE, content)
                .build();
            ((*status).to_owned(), response.into())
        })
        .collect()
}

/// A form whose parts are files: their names and what they are.
pub fn form_schema(parts: &[(&str, &str)]) -> RefOr<Schema> {
    let file = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
    };
    let mut form = ObjectBuilder::new();
    for (name, description) in parts {
        let files = ArrayBuilder::new()
            .items(file())
            .description(Some(*description));
        form = form.property(*name, files).required(*name);
    }
    form.into()
}
