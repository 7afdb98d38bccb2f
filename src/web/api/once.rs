//! Requests with an `Idempotency-Key`: sent again they act once, and get the first answer again.

use crate::web::ApiError;
use crate::web::repeated::Repeated;
use axum::http::{HeaderMap, HeaderName};
use serde_json::Value;
use std::time::Duration;
use store::{Digest, Once, Store};
use uuid::Uuid;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LONGEST_KEY: usize = 255;
/// How long a first answer is given again.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The key of a request, if it has one.
///
/// # Errors
/// [`ApiError::InvalidParameter`]
pub fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(KEY) else {
        return Ok(None);
    };
    match value.to_str().map(str::trim) {
        Ok(key) if (1..=LONGEST_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(ApiError::InvalidParameter {
            parameter: KEY.to_string(),
            detail: format!("the key must have 1 to {LONGEST_KEY} plain characters"),
        }),
    }
}

/// Lets `act` make something and gives its answer; where the key was sent before, the answer of then. `act` is told the id for what it
/// makes where there is a key. With a key it is done to its end even where the client goes away: the client will ask for the answer.
///
/// # Errors
/// Those of `act`, after which the key is free again; [`ApiError::Repeated`].
pub async fn once<F>(
    store: &Store,
    route: String,
    key: Option<String>,
    request: Digest,
    act: impl FnOnce(Option<Uuid>) -> F + Send + 'static,
) -> Result<Value, ApiError>
where
    F: Future<Output = Result<Value, ApiError>> + Send,
{
    let Some(key) = key else {
        return act(None).await;
    };
    match store.begin_once(&route, &key, &request, LIFETIME).await? {
        Once::Act { made } => {
            let store = store.clone();
            let acting = tokio::spawn(async move {
                let act = tokio::spawn(async move { act(Some(made)).await });
                let stopped = |error| ApiError::Internal(format!("a request stopped: {error}"));
                let answer = act.await.map_err(stopped).flatten();
                let noted = match &answer {
                    Ok(body) => {
                        let body = body.to_string();
                        store.answer_once(&route, &key, 200, &body).await
                    }
                    Err(_) => store.drop_once(&route, &key).await,
                };
                if let Err(error) = noted {
                    tracing::warn!(%error, "the answer to a request could not be kept for the next time");
                }
                answer
            });
            acting
                .await
                .map_err(|error| ApiError::Internal(error.to_string()))?
        }
        Once::Answered {
            body: Some(body), ..
        } => serde_json::from_str(&body).map_err(|error| ApiError::Internal(error.to_string())),
        Once::Answered { body: None, .. } => Err(ApiError::Repeated(Repeated::AnswerNotKept)),
        Once::InProgress => Err(ApiError::Repeated(Repeated::InProgress)),
        Once::OtherRequest => Err(ApiError::Repeated(Repeated::OtherRequest)),
    }
}
