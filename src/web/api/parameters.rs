//! Parameters in query and address, with errors that name the parameter.

use crate::web::ApiError;
use axum::extract::{self, FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::error::Error;
use uuid::Uuid;

/// Query parameters of a request.
pub struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(invalid(&rejection)),
        }
    }
}

/// Parts of the address of a request.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(extract::Path(found)) => Ok(Self(found)),
            Err(rejection) => Err(ApiError::InvalidParameter {
                parameter: "path".into(),
                detail: rejection.body_text(),
            }),
        }
    }
}

type QueryError = serde_path_to_error::Error<serde::de::value::Error>;

fn invalid(rejection: &(dyn Error + 'static)) -> ApiError {
    let mut cause = Some(rejection);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<QueryError>() {
            return ApiError::InvalidParameter {
                parameter: error.path().to_string(),
                detail: error.inner().to_string(),
            };
        }
        cause = error.source();
    }
    ApiError::InvalidParameter {
        parameter: "query".into(),
        detail: rejection.to_string(),
    }
}

const DEFAULT_PAGE: u32 = 50;
const LARGEST_PAGE: u32 = 200;

/// Entries of a page where the client does not say.
pub fn default_page() -> u32 {
    DEFAULT_PAGE
}

/// Refuses pages that are empty or too long.
pub fn check_limit(limit: u32) -> Result<(), ApiError> {
    if (1..=LARGEST_PAGE).contains(&limit) {
        return Ok(());
    }
    Err(ApiError::InvalidParameter {
        parameter: "limit".into(),
        detail: format!("the limit must be from 1 to {LARGEST_PAGE}, got {limit}"),
    })
}

/// Cuts `records`, of which one more than `limit` was asked for, and gives the cursor of the next page if there is one.
pub fn next_cursor<T>(records: &mut Vec<T>, limit: u32, id: impl Fn(&T) -> Uuid) -> Option<String> {
    let more = records.len() > limit as usize;
    records.truncate(limit as usize);
    records
        .last()
        .filter(|_| more)
        .map(|last| id(last).to_string())
}
