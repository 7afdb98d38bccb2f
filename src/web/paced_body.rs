//! Bodies that may not come too slowly, and answers that keep their permit until they are sent.

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How slowly a body may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time in which nothing need come.
    pub grace: Duration,
    /// After that, bytes in each second on average.
    pub bytes_per_second: u32,
}

/// The body of a request, which ends with an error where it comes too slowly.
pub struct PacedBody {
    body: Body,
    pace: Pace,
    begun: Instant,
    received: u64,
    deadline: Pin<Box<Sleep>>,
    /// Set where it was too slow, for whoever says so.
    is_too_slow: Arc<AtomicBool>,
}

impl PacedBody {
    pub fn new(body: Body, pace: Pace, is_too_slow: Arc<AtomicBool>) -> Self {
        let begun = Instant::now();
        Self {
            body,
            pace,
            begun,
            received: 0,
            deadline: Box::pin(sleep_until(begun + pace.grace)),
            is_too_slow,
        }
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.received += bytes as u64;
                let earned = self.received as f64 / f64::from(self.pace.bytes_per_second.max(1));
                let grace = self.pace.grace;
                let until = self.begun + grace + Duration::from_secs_f64(earned.min(1e6));
                self.deadline.as_mut().reset(until);
            }
            Poll::Pending if self.deadline.as_mut().poll(context).is_ready() => {
                self.is_too_slow.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(axum::Error::new("the body comes too slowly"))));
            }
            Poll::Ready(_) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer with what is given back once it has been sent, or dropped.
pub struct HeldBody<T> {
    body: Body,
    _held: T,
}

impl<T> HeldBody<T> {
    pub fn new(body: Body, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<T: Unpin> HttpBody for HeldBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
