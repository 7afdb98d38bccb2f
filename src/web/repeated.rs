//! What a client is told about a request with an `Idempotency-Key` that was there before.

use super::explanation::Explanation;
use axum::http::StatusCode;

/// Why a request with a key is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// The first one still is being answered.
    InProgress,
    /// The key was sent with something else.
    OtherRequest,
    /// It has acted, and its answer was too long to be kept.
    AnswerNotKept,
}

impl Repeated {
    pub(super) fn explain(self) -> Explanation {
        let (code, title, detail, hint) = match self {
            Self::InProgress => (
                "request_in_progress",
                "The same request is being answered",
                "a request with this Idempotency-Key is being answered now",
                "try again in a moment",
            ),
            Self::OtherRequest => (
                "idempotency_key_used",
                "The Idempotency-Key was sent with another request",
                "a request with this Idempotency-Key asked for something else",
                "use a new key for each request that is to act",
            ),
            Self::AnswerNotKept => (
                "answered_before",
                "The request was answered before",
                "the request with this Idempotency-Key has acted; its answer was too long to be kept",
                "get what is there now",
            ),
        };
        Explanation::new(StatusCode::CONFLICT, code, title, detail)
            .parameter("Idempotency-Key")
            .hint(hint)
    }
}
