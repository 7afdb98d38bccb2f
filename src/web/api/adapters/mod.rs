//! The registry of adapters over HTTP: one file per kind of request. The work is done in `app::registry`.

pub(in crate::web) mod aliases;
pub(in crate::web) mod export;
pub(in crate::web) mod import;
pub(in crate::web) mod manage;
pub(in crate::web) mod merge;
mod schema;
pub(in crate::web) mod storage;

use super::images::{BodyKind, receive_json};
use super::problems::problem_responses;
use crate::web::ApiError;
use crate::web::limits::Admission;
use axum::extract::Request;
use axum::http::header;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use store::{Attribution, Name};
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

/// Who changes things through this interface, as histories show it.
const ACTOR: &str = "REST";

/// Longest notes and reasons in bytes; each list of adapters repeats the notes.
const LONGEST_TEXT: usize = 10_000;

/// What requests to the registry may be refused with.
struct RegistryProblems;

impl IntoResponses for RegistryProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[
            (
                "404",
                "There is no such adapter, backbone or alias; the detail names near ones",
            ),
            (
                "409",
                "It conflicts with what is stored; the detail says with what",
            ),
            (
                "503",
                "The backbone or the database cannot be read now, or the answer took too long",
            ),
            ("507", "The disk is full"),
        ])
    }
}

fn name(parameter: &str, text: &str) -> Result<Name, ApiError> {
    text.parse()
        .map_err(|error: store::NameError| ApiError::InvalidParameter {
            parameter: parameter.to_owned(),
            detail: error.to_string(),
        })
}

fn tags<'a>(texts: impl Iterator<Item = &'a str>) -> Result<BTreeSet<Name>, ApiError> {
    let texts = texts.map(str::trim).filter(|text| !text.is_empty());
    let mut tags = BTreeSet::new();
    for text in texts {
        tags.insert(name("tags", text)?);
        if tags.len() > MOST_TAGS {
            return Err(ApiError::InvalidParameter {
                parameter: "tags".to_owned(),
                detail: format!("there are more than the {MOST_TAGS} tags allowed"),
            });
        }
    }
    Ok(tags)
}

/// Most tags of an adapter.
const MOST_TAGS: usize = 50;

fn check_text(parameter: &str, text: &str) -> Result<(), ApiError> {
    if text.len() <= LONGEST_TEXT {
        return Ok(());
    }
    Err(ApiError::InvalidParameter {
        parameter: parameter.to_owned(),
        detail: format!(
            "the text has {} bytes, at most {LONGEST_TEXT} are allowed",
            text.len()
        ),
    })
}

fn attribution(reason: Option<String>) -> Result<Attribution, ApiError> {
    let reason = reason.unwrap_or_default();
    check_text("reason", &reason)?;
    Ok(Attribution {
        actor: ACTOR.to_owned(),
        reason,
    })
}

/// Receives a body that must be JSON.
pub(super) async fn json_body<T>(admission: &Admission, request: Request) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    match BodyKind::of(request.headers())? {
        BodyKind::Json => receive_json(admission, request).await,
        BodyKind::Form => Err(ApiError::UnsupportedMediaType {
            found: Some("multipart/form-data".into()),
            wanted: "application/json",
        }),
    }
}

/// As [`json_body`], where a request without a body means all defaults.
async fn optional_json_body<T>(admission: &Admission, request: Request) -> Result<T, ApiError>
where
    T: DeserializeOwned + Default + Send + 'static,
{
    if request.headers().contains_key(header::CONTENT_TYPE) {
        json_body(admission, request).await
    } else {
        Ok(T::default())
    }
}
