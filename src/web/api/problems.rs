//! Error answers in the OpenAPI document: what the needs of a route add, and what kinds of requests have besides.

use crate::web::Problem;
use crate::web::problem::PROBLEM_MEDIA_TYPE;
use std::collections::BTreeMap;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// What every request may be refused with.
pub const ANY_REQUEST: [(&str, &str); 1] = [(
    "403",
    "The host is not one that the server answers for, or a browser sent the request on behalf of another site",
)];

/// What requests may be refused with where only a limited number are answered at a time.
pub const ADMITTED_REQUEST: [(&str, &str); 1] = [(
    "429",
    "As many requests as allowed are being answered; Retry-After says when to try again",
)];

/// What requests with a body may be refused with.
pub const REQUEST_WITH_BODY: [(&str, &str); 5] = [
    (
        "400",
        "The body is not what its content type says, or broke off",
    ),
    ("408", "The body came too slowly"),
    ("413", "The body is too large"),
    (
        "415",
        "The content type is not one of those listed at the request body",
    ),
    INVALID,
];

const INVALID: (&str, &str) = (
    "422",
    "A part of the request is missing or wrong; `parameter` names it",
);
const FAILED: (&str, &str) = (
    "500",
    "The server failed; its log says more under the request id",
);

/// What requests that are computed while the client waits may be refused with.
pub struct AnswerProblems;

impl IntoResponses for AnswerProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[(
            "503",
            "The encoder has stopped, or the answer took too long",
        )])
    }
}

/// Error answers of requests that do work, and of these statuses besides, each with the words that say when it comes.
pub fn problem_responses(statuses: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    [INVALID, FAILED]
        .iter()
        .chain(statuses)
        .map(|(status, description)| ((*status).to_owned(), problem_response(description).into()))
        .collect()
}

/// An answer that is a problem.
pub fn problem_response(description: &str) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_MEDIA_TYPE, content)
        .build()
}
