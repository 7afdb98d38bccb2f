//! What every request goes through, whatever its route: an id, the access log, security headers, the checks of host
//! and origin, compression, and a panic turned into an error answer.

use super::problem::{ApiError, finish};
use super::{AllowedHosts, guard, limits};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use uuid::Uuid;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers of the interface need nothing from a browser; pages and the documentation set their own policy.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

const LONGEST_REQUEST_ID: usize = 64;

/// Puts the rules around `routes`.
pub fn wrap<S>(routes: Router<S>, hosts: AllowedHosts, max_body_bytes: usize) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(from_fn_with_state(hosts, guard::check))
        .layer(from_fn(limits::drain_refused))
        .layer(from_fn(identify_and_log))
        .layer(CompressionLayer::new())
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let cause = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    ApiError::Panicked(cause.to_owned()).into_response()
}

/// Gives the request an id, finishes error answers, adds security headers, and logs one line.
async fn identify_and_log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();

    let mut response = finish(next.run(request).await, &request_id);
    secure(response.headers_mut());
    if path.starts_with("/api/v1/") {
        // Answers change with what is stored; files that never change say so themselves.
        let caching = response.headers_mut().entry(header::CACHE_CONTROL);
        caching.or_insert(HeaderValue::from_static("no-store"));
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }

    let status = response.status().as_u16();
    let duration_ms = started.elapsed().as_millis() as u64;
    if path.starts_with("/api/") {
        tracing::info!(request_id, %method, path, status, duration_ms, "request answered");
    } else {
        tracing::debug!(request_id, %method, path, status, duration_ms, "request answered");
    }
    response
}

/// The client's id where it is short and plain, so that logs of both sides can be joined; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=LONGEST_REQUEST_ID).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        })
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (RESOURCE_POLICY, "same-origin"),
        (OPENER_POLICY, "same-origin"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::problem::Problem;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_becomes_a_problem_that_does_not_tell_its_cause() {
        async fn panics() {
            panic!("the secret cause")
        }
        let routes = Router::new().route("/", get(panics));
        let router: Router = wrap(routes, AllowedHosts::any(), 1);
        let response = router
            .oneshot(Request::new(Body::empty()))
            .await
            .expect("an answer");
        assert_eq!(response.status(), 500);
        let id = response.headers()[REQUEST_ID].clone();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        assert!(!body.windows(6).any(|window| window == b"secret"));
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.code, "internal");
        assert_eq!(problem.request_id, id.to_str().unwrap());
    }

    fn id_for(sent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_str(sent).unwrap());
        request_id(&headers)
    }

    #[test]
    fn a_plain_request_id_of_the_client_is_kept() {
        assert_eq!(id_for("build-7.step_2"), "build-7.step_2");
    }

    #[test]
    fn a_request_id_that_could_forge_log_lines_is_replaced() {
        for sent in ["", "a b", "a\"b", &"x".repeat(65)] {
            let id = id_for(sent);
            assert!(Uuid::parse_str(&id).is_ok(), "{sent:?} gave {id}");
        }
    }
}
