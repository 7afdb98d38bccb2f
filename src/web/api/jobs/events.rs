//! The events of a job, as a stream of server-sent events that a client can resume where it broke off.

use super::manage::job_id;
use super::{JobProblems, queue};
use crate::jobs::Jobs;
use crate::web::api::parameters::Path;
use crate::web::limits::Gate;
use crate::web::{ApiError, Problem};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::VecDeque;
use store::{JobEvent, StoreError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;
use uuid::Uuid;

/// Events that are read at a time.
const CHUNK: u32 = 500;
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// An event as its lines are.
#[derive(ToSchema)]
#[schema(as = JobEvent)]
#[allow(dead_code, reason = "the shape of an event, for the document alone")]
pub struct SentEvent {
    /// A number that grows.
    #[schema(example = "12")]
    id: String,
    event: SentEventKind,
    /// JSON: the job as it was then, its progress, or a line of its log.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// What an event tells.
#[derive(ToSchema)]
#[schema(as = JobEventKind, rename_all = "snake_case")]
#[allow(dead_code, reason = "the shape of an event, for the document alone")]
pub enum SentEventKind {
    State,
    Progress,
    Log,
}

/// Follows a job
///
/// Server-sent events: `state` (the job as it was then), `progress` (as in the job, with `at_ms`) and `log` (`level`, `message`,
/// `at_ms`), each with an id that grows. All that were kept come first, then new ones as they happen; the stream ends after
/// the state that is final. With `Last-Event-ID` it resumes after that event.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "Id of the job"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The last event that the client has seen"),
    ),
    responses(
        (status = 200, description = "The events", body = SentEvent, content_type = "text/event-stream"),
        (status = 503, description = "As many streams of events as allowed are open; Retry-After says when to try again", body = Problem, content_type = "application/problem+json"),
        (status = 204, description = "The job has ended and the client has seen all events: it need not come again"),
        JobProblems,
    ))]
pub(in crate::web) async fn follow_job(
    State(jobs): State<Option<Jobs>>,
    State(gate): State<Gate>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let jobs = queue(&jobs)?;
    let id = job_id(&id)?;
    let permit = gate.follow()?;
    jobs.store().job(id).await?;
    let mut follower = Follower {
        changes: jobs.store().watch_jobs(),
        jobs: jobs.clone(),
        id,
        seen: last_event_id(&headers)?,
        waiting: VecDeque::new(),
        has_ended: false,
        _permit: permit,
    };
    let Some(first) = follower.next_if_there().await? else {
        if follower.has_ended {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        return Ok(stream_of(follower, None));
    };
    Ok(stream_of(follower, Some(first)))
}

fn stream_of(follower: Follower, first: Option<JobEvent>) -> Response {
    let events = stream::unfold((follower, first), |(mut follower, first)| async move {
        let event = match first {
            Some(event) => Some(event),
            None => match follower.next().await {
                Ok(event) => event,
                Err(error) => {
                    // The client comes again with the last id it has seen.
                    tracing::warn!(job = %follower.id, %error, "a stream of events broke off");
                    None
                }
            },
        }?;
        Some((sent(&event), (follower, None)))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}

fn sent(event: &JobEvent) -> Result<Event, axum::Error> {
    Event::default()
        .id(event.number.to_string())
        .event(event.kind.as_str())
        .json_data(&event.data)
}

fn last_event_id(headers: &HeaderMap) -> Result<i64, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(0);
    };
    value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|number| *number >= 0)
        .ok_or_else(|| ApiError::InvalidParameter {
            parameter: LAST_EVENT_ID.into(),
            detail: "it must be the id of an event, a whole number".into(),
        })
}

/// Reads the events of a job in order.
struct Follower {
    jobs: Jobs,
    id: Uuid,
    changes: watch::Receiver<()>,
    /// Number of the last event that was given out.
    seen: i64,
    waiting: VecDeque<JobEvent>,
    /// The job has ended and all was given out.
    has_ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event, once there is one; `None` when there will be none.
    async fn next(&mut self) -> Result<Option<JobEvent>, StoreError> {
        loop {
            if let Some(event) = self.next_if_there().await? {
                return Ok(Some(event));
            }
            if self.has_ended {
                return Ok(None);
            }
            let stopping = self.jobs.stopping();
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() {
                    return Ok(None);
                },
                () = stopping => return Ok(None),
            }
        }
    }

    async fn next_if_there(&mut self) -> Result<Option<JobEvent>, StoreError> {
        if self.waiting.is_empty() {
            self.changes.mark_unchanged();
            // Read before the events: a final state comes with its event.
            let state = self.jobs.store().job(self.id).await?.state;
            let read = self
                .jobs
                .store()
                .job_events(self.id, self.seen, CHUNK)
                .await?;
            self.has_ended = read.is_empty() && state.is_final();
            self.waiting.extend(read);
        }
        let event = self.waiting.pop_front();
        if let Some(event) = &event {
            self.seen = event.number;
        }
        Ok(event)
    }
}
