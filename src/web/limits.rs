//! How much one request may ask for, and how many are answered at a time. Work is refused before it is queued.

use super::needs::{Access, Body as BodyKind, Needs};
use super::paced_body::{HeldBody, Pace, PacedBody};
use super::problem::ApiError;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits of the HTTP interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebLimits {
    /// Questions, and apart from them changes, that are received, answered or sent at a time; each may hold a body in memory.
    pub max_concurrent_requests: usize,
    /// Downloads that are made or sent at a time; each may be held in memory.
    pub max_downloads: usize,
    /// Requests of one kind that wait for their turn; more get 429.
    pub max_waiting_requests: usize,
    /// How long they wait before they get 429.
    pub queue_timeout: Duration,
    /// Of a request; more get 413.
    pub max_body_bytes: usize,
    /// Of a request whose pictures go to the disk one by one; more get 413.
    pub max_upload_bytes: usize,
    /// Images of a request, labelled ones and queries together.
    pub max_images: usize,
    /// Queries × classes of a request.
    pub max_scores: usize,
    /// Of an answer, as far as it can be known before it is computed.
    pub max_answer_bytes: usize,
    /// Values, objects and lists in a JSON body: each takes many times its text in memory.
    pub max_json_values: usize,
    /// Streams of events that are open at a time; more get 503.
    pub max_event_streams: usize,
    /// Time for a body to arrive; of one that goes to the disk, for each piece of it.
    pub body_timeout: Duration,
    /// How slowly a body may come; slower ones get 408.
    pub body_pace: Pace,
    /// Time for the answer once the body is there.
    pub answer_timeout: Duration,
}

impl Default for WebLimits {
    fn default() -> Self {
        Self {
            max_concurrent_requests: 16,
            max_downloads: 2,
            max_waiting_requests: 64,
            queue_timeout: Duration::from_secs(5),
            max_event_streams: 256,
            max_body_bytes: 128 << 20,
            max_upload_bytes: 32 << 30,
            max_images: 5_000,
            max_scores: 500_000,
            max_answer_bytes: 64 << 20,
            max_json_values: 100_000,
            body_timeout: Duration::from_secs(120),
            body_pace: Pace {
                grace: Duration::from_secs(10),
                bytes_per_second: 1024,
            },
            answer_timeout: Duration::from_secs(300),
        }
    }
}

/// The permits of one kind of requests, and places to wait for one.
#[derive(Debug, Clone)]
struct Lane {
    permits: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Lane {
    fn new(limits: &WebLimits, at_once: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(at_once)),
            places: Arc::new(Semaphore::new(limits.max_waiting_requests)),
        }
    }

    /// A permit, as soon as one is free.
    async fn enter(&self, timeout: Duration) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Err(ApiError::Busy);
        };
        let turn = tokio::time::timeout(timeout, Arc::clone(&self.permits).acquire_owned());
        match turn.await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(ApiError::Busy),
        }
    }
}

/// The limits, and the permits of which each request that does work needs one. Questions, changes and downloads do not wait for each other.
#[derive(Debug, Clone)]
pub struct Gate {
    pub limits: WebLimits,
    questions: Lane,
    changes: Lane,
    downloads: Lane,
    streams: Arc<Semaphore>,
}

/// The right to have a request answered, and its limits; it is given back with the last clone.
#[derive(Debug, Clone)]
pub struct Admission {
    pub limits: WebLimits,
    is_too_slow: Arc<AtomicBool>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Gate {
    pub fn new(limits: WebLimits) -> Self {
        Self {
            limits,
            questions: Lane::new(&limits, limits.max_concurrent_requests),
            changes: Lane::new(&limits, limits.max_concurrent_requests),
            downloads: Lane::new(&limits, limits.max_downloads),
            streams: Arc::new(Semaphore::new(limits.max_event_streams)),
        }
    }

    /// The right to follow events, for as long as it is kept.
    pub fn follow(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        permit.map_err(|_| ApiError::TooManyStreams)
    }

    /// Where a request with these needs is admitted.
    pub fn entrance(&self, needs: Needs) -> Entrance {
        let mut limits = self.limits;
        if needs.body == BodyKind::Upload {
            limits.max_body_bytes = limits.max_upload_bytes;
        }
        let lane = match needs.access {
            Access::Write => &self.changes,
            Access::Read | Access::Open if needs.is_download => &self.downloads,
            Access::Read | Access::Open => &self.questions,
        };
        Entrance {
            limits,
            lane: lane.clone(),
        }
    }
}

/// Where the requests of one route are admitted.
#[derive(Debug, Clone)]
pub struct Entrance {
    limits: WebLimits,
    lane: Lane,
}

impl Admission {
    /// Waits for a body to arrive.
    pub async fn receive<T>(
        &self,
        body: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let limit = self.limits.body_timeout;
        let received =
            tokio::time::timeout(limit, body)
                .await
                .unwrap_or(Err(ApiError::BodyTimeout {
                    limit_seconds: limit.as_secs(),
                }));
        if received.is_err() && self.is_too_slow.load(Ordering::Relaxed) {
            return Err(ApiError::BodyTooSlow {
                bytes_per_second: self.limits.body_pace.bytes_per_second,
            });
        }
        received
    }

    /// Waits for an answer; what has not been computed in time is dropped.
    pub async fn answer<T, E: Into<ApiError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ApiError> {
        let limit = self.limits.answer_timeout;
        match tokio::time::timeout(limit, work).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(ApiError::AnswerTimeout {
                limit_seconds: limit.as_secs(),
            }),
        }
    }

    /// Refuses more images than allowed.
    pub fn check_images(&self, parameter: &'static str, found: usize) -> Result<(), ApiError> {
        check(parameter, "images", found, self.limits.max_images)
    }

    /// Refuses an answer that would be larger than allowed.
    pub fn check_scores(&self, queries: usize, classes: usize) -> Result<(), ApiError> {
        check(
            "queries",
            "queries times classes",
            queries.saturating_mul(classes),
            self.limits.max_scores,
        )
    }
}

impl Admission {
    /// Refuses answers to `queries` that name `nearest` examples each and would be larger than allowed; the lengths are those of the longest label and name.
    pub fn check_answer(&self, size: AnswerSize) -> Result<(), ApiError> {
        // Keys, numbers, ids and punctuation of a score and of a named example, generously.
        const SCORE_BYTES: usize = 80;
        const EXAMPLE_BYTES: usize = 160;
        let score = SCORE_BYTES + 2 * size.longest_label;
        let example = EXAMPLE_BYTES + 2 * (size.longest_label + size.longest_name);
        // The nearest, the nearest of the class, and the closest elsewhere.
        let examples = 2 * size.nearest + 1;
        let of_query = size.classes.saturating_mul(score) + examples.saturating_mul(example);
        let limit = self.limits.max_answer_bytes;
        check(
            "queries",
            "bytes of answer",
            size.queries.saturating_mul(of_query),
            limit,
        )
    }
}

/// What the size of an answer follows from.
#[derive(Debug, Clone, Copy)]
pub struct AnswerSize {
    pub queries: usize,
    pub classes: usize,
    pub nearest: usize,
    pub longest_label: usize,
    pub longest_name: usize,
}

fn check(
    parameter: &'static str,
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), ApiError> {
    if found <= limit {
        return Ok(());
    }
    Err(ApiError::TooMany {
        parameter,
        what,
        found,
        limit,
    })
}

/// Admits a request where its route needs it, or refuses it.
///
/// # Errors
/// [`ApiError::BodyTooLarge`], [`ApiError::Busy`]
pub async fn admit(
    State(Entrance { limits, lane }): State<Entrance>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > limits.max_body_bytes as u64) {
        return Err(ApiError::BodyTooLarge {
            limit_bytes: limits.max_body_bytes,
        });
    }
    let permit = Arc::new(lane.enter(limits.queue_timeout).await?);
    let is_too_slow = Arc::new(AtomicBool::new(false));
    let slow = Arc::clone(&is_too_slow);
    let mut request = request.map(|body| Body::new(PacedBody::new(body, limits.body_pace, slow)));
    request.extensions_mut().insert(Admission {
        limits,
        is_too_slow,
        _permit: Arc::clone(&permit),
    });
    let response = next.run(request).await;
    Ok(response.map(|body| Body::new(HeldBody::new(body, permit))))
}

/// What [`admit`] has given.
impl<S: Send + Sync> FromRequestParts<S> for Admission {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(|| {
            ApiError::Internal("the table of routes admits no requests to this address".into())
        })
    }
}

/// Reads and drops what a refused client still sends, for a while: closing a connection with unread bytes resets it, and
/// the client would see a broken connection in place of the reason.
pub async fn drain_refused(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // Such a client waits for a word before it sends.
    let waits = parts.headers.contains_key(header::EXPECT);
    let rest = Arc::new(Mutex::new(body.into_data_stream()));
    let read = Arc::clone(&rest);
    let body = Body::from_stream(stream::poll_fn(move |context| poll_rest(&read, context)));
    let response = next.run(Request::from_parts(parts, body)).await;
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    // Who was too slow once would be so again.
    if refused && !waits && status != StatusCode::REQUEST_TIMEOUT {
        let mut rest = stream::poll_fn(move |context| poll_rest(&rest, context));
        let drained = async { while let Some(Ok(_)) = rest.next().await {} };
        // A client that sends for longer than this gets no reason.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    }
    response
}

fn poll_rest(
    rest: &Mutex<BodyDataStream>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, axum::Error>>> {
    match rest.lock() {
        Ok(mut rest) => rest.poll_next_unpin(context),
        Err(_) => Poll::Ready(None),
    }
}
