//! Query parameters, with errors that name the parameter.

use crate::web::ApiError;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::error::Error;

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
