//! Errors of the HTTP interface: one type that knows status, what the client is told and what is logged,
//! and its form on the wire (RFC 9457).

use super::classifier_problem::{self, ClassifierChange};
use super::explanation::Explanation;
use super::registry_problem;
use super::repeated::Repeated;
use crate::app::classifiers::ClassifiersError;
use crate::app::registry::RegistryError;
use crate::app::{AppError, RefusedSupport};
use crate::inference::EncodeError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::adapter::ImportReport;
use serde::{Deserialize, Serialize};
use store::{JobFault, StoreError};
use utoipa::ToSchema;
use uuid::Uuid;

/// Media type of a [`Problem`].
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which a client that found the server busy should try again.
const RETRY_SECONDS: u32 = 2;

/// The body of every error answer (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable machine-readable name.
    #[schema(example = "invalid_base64")]
    pub code: String,
    /// The code in words; the same for every occurrence.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// The part of the request that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "queries[2]")]
    pub parameter: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Names the request in the server's log; also in the header `x-request-id`.
    pub request_id: String,
    /// Support images that could not be used, where that is why there is no answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedSupport>,
    /// What the import found in an adapter that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<ImportReport>>,
    /// What was changed since the client looked, oldest first, where that is why a change is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ClassifierChange>,
}

/// Why a request was not answered.
#[derive(Debug)]
#[allow(
    missing_docs,
    reason = "the explanation of each variant says what it means"
)]
pub enum ApiError {
    UnknownRoute,
    MethodNotAllowed,
    /// No job has such an id.
    UnknownJob(String),
    /// No pool has such an id.
    UnknownPool(String),
    /// No classifier has such an id.
    UnknownClassifier(String),
    /// A job or pool has no picture under this index.
    UnknownPicture(String),
    /// What a stored classifier said; `classifier_problem` has the explanation.
    Classifier(Box<ClassifiersError>),
    /// A request with an `Idempotency-Key` that was there before.
    Repeated(Repeated),
    /// What the registry said; `registry_problem` has the explanation.
    Registry(RegistryError),
    /// The `Host` header names a host that this server does not answer for.
    ForeignHost(String),
    /// A browser sent the request on behalf of another site.
    ForeignOrigin,
    /// The body is not what its content type says.
    Malformed {
        format: &'static str,
        detail: String,
    },
    /// The client went away or its body could not be read.
    BodyUnreadable(String),
    BodyTimeout {
        limit_seconds: u64,
    },
    BodyTooSlow {
        bytes_per_second: u32,
    },
    BodyTooLarge {
        limit_bytes: usize,
    },
    /// A request over HTTP/1.1 names no host, or several.
    BadHost(usize),
    /// The server was told to stop.
    Stopping,
    TooManyStreams,
    /// Pictures give no finite numbers through this adapter.
    AdapterNotFinite(String),
    UnsupportedMediaType {
        found: Option<String>,
        wanted: &'static str,
    },
    InvalidParameter {
        parameter: String,
        detail: String,
    },
    /// Synthetic images that are there did not come out, and the request does not say that they are to be used.
    FailedImages(JobFault),
    InvalidBase64 {
        parameter: String,
        detail: String,
    },
    TooMany {
        parameter: &'static str,
        what: &'static str,
        found: usize,
        limit: usize,
    },
    ClassWithoutImages {
        label: String,
        refused: Vec<RefusedSupport>,
    },
    Busy,
    AnswerTimeout {
        limit_seconds: u64,
    },
    NotReady(String),
    EncoderStopped,
    /// A fault of the program; the cause is logged and never sent.
    Internal(String),
    /// A handler panicked; the panic itself is the cause.
    Panicked(String),
}

impl ApiError {
    fn explanation(&self) -> Explanation {
        match self {
            Self::UnknownRoute => Explanation::new(
                StatusCode::NOT_FOUND,
                "unknown_route",
                "There is nothing at this address",
                "no resource has this address",
            )
            .hint("/api/docs lists the addresses"),
            Self::MethodNotAllowed => Explanation::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The address does not take this method",
                "this address does not take this method",
            )
            .hint("the header Allow lists the methods"),
            Self::UnknownJob(id) => registry_problem::unknown_job(format!("there is no job \"{id}\"")),
            Self::UnknownPool(id) => registry_problem::unknown_pool(format!("there is no pool \"{id}\"")),
            Self::UnknownClassifier(id) => classifier_problem::unknown_classifier(format!("there is no classifier \"{id}\"")),
            Self::Classifier(error) => classifier_problem::explain(error),
            Self::Repeated(repeated) => repeated.explain(),
            Self::UnknownPicture(index) => Explanation::new(
                StatusCode::NOT_FOUND,
                "picture_not_found",
                "There is no such picture",
                format!("there is no picture \"{index}\" here"),
            )
            .parameter("index"),
            Self::Registry(error) => registry_problem::explain(error),
            Self::ForeignHost(host) => Explanation::new(
                StatusCode::FORBIDDEN,
                "host_not_allowed",
                "The server does not answer for this host",
                format!("the host \"{host}\" is not one that this server answers for"),
            )
            .parameter("Host")
            .hint("use http://localhost or http://127.0.0.1, or start the server with --allowed-host NAME"),
            Self::ForeignOrigin => Explanation::new(
                StatusCode::FORBIDDEN,
                "cross_origin",
                "Another site may not send this request",
                "a browser sent this request on behalf of another site",
            )
            .parameter("Origin")
            .hint("send it from the server's page or from a program that is not a browser"),
            Self::Malformed { format, detail } => Explanation::new(
                StatusCode::BAD_REQUEST,
                "malformed_body",
                "The body is not what its content type says",
                format!("the body is not valid {format}: {detail}"),
            ),
            Self::BodyUnreadable(_) => Explanation::new(
                StatusCode::BAD_REQUEST,
                "body_unreadable",
                "The body could not be read",
                "the body ended or broke off before it was complete",
            ),
            Self::BodyTimeout { limit_seconds } => Explanation::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "The body came too slowly",
                format!("the body was not complete after {limit_seconds} s"),
            )
            .hint("send fewer or smaller images at once"),
            Self::BodyTooSlow { bytes_per_second } => Explanation::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "The body came too slowly",
                format!("the body came with less than {bytes_per_second} bytes a second"),
            )
            .hint("send fewer or smaller images at once, or try again over a faster connection"),
            Self::BadHost(hosts) => Explanation::new(
                StatusCode::BAD_REQUEST,
                "bad_host",
                "The request does not name one host",
                match hosts {
                    0 => "the header Host is missing".to_owned(),
                    hosts => format!("there are {hosts} headers Host"),
                },
            )
            .parameter("Host"),
            Self::Stopping => Explanation::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "The server is stopping",
                "the server was told to stop and takes no more requests",
            )
            .hint("try again once it has been started again"),
            Self::AdapterNotFinite(adapter) => Explanation::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "adapter_not_finite",
                "The adapter gives no finite numbers",
                format!("through the adapter {adapter} a picture gives numbers that are not finite; its tensors are too large"),
            )
            .parameter("adapter")
            .hint("make the adapter again, or use another one"),
            Self::TooManyStreams => Explanation::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                "Too many jobs are being followed",
                "as many streams of events as allowed are open",
            )
            .hint("ask for the job itself now and then, or try again later"),
            Self::BodyTooLarge { limit_bytes } => Explanation::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The body is too large",
                format!("the body has more than the {limit_bytes} bytes allowed"),
            )
            .hint("send fewer or smaller images at once"),
            Self::UnsupportedMediaType { found, wanted } => Explanation::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The content type is not supported",
                match found {
                    Some(found) => format!("the content type is \"{found}\", expected {wanted}"),
                    None => format!("there is no content type, expected {wanted}"),
                },
            )
            .parameter("Content-Type"),
            Self::InvalidParameter { parameter, detail } => Explanation::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_parameter",
                "A part of the request is missing or wrong",
                detail.as_str(),
            )
            .parameter(parameter.as_str()),
            Self::FailedImages(fault) => Explanation::new(
                StatusCode::CONFLICT,
                "inversion_failed",
                "Synthetic images did not come out",
                fault.message.as_str(),
            )
            .parameter("adapters")
            .hint(fault.hint.clone().unwrap_or_default()),
            Self::InvalidBase64 { parameter, detail } => Explanation::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_base64",
                "An image is not valid base64",
                format!("{parameter} is not valid base64: {detail}"),
            )
            .parameter(parameter.as_str())
            .hint("send the bytes of the image file in standard base64, with or without a data: prefix"),
            Self::TooMany {
                parameter,
                what,
                found,
                limit,
            } => Explanation::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "too_many",
                "The request asks for too much at once",
                format!("the request has {found} {what}, at most {limit} are allowed"),
            )
            .parameter(*parameter)
            .hint("split the request"),
            Self::ClassWithoutImages { label, .. } => Explanation::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "class_without_images",
                "A class has no usable image",
                format!("class \"{label}\" has no usable image"),
            )
            .parameter("classes")
            .hint("give each class at least one image that can be read; refused says what is wrong with the others"),
            Self::Busy => Explanation::new(
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                "The server is busy",
                "as many requests as allowed are being answered already",
            )
            .hint(format!("try again in {RETRY_SECONDS} s")),
            Self::AnswerTimeout { limit_seconds } => Explanation::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "answer_timeout",
                "The answer took too long",
                format!("there was no answer after {limit_seconds} s"),
            )
            .hint("send fewer images at once, or try again when the server is less busy"),
            Self::NotReady(reason) => Explanation::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not_ready",
                "The server is not ready",
                format!("the probe inference failed: {reason}"),
            )
            .hint("lora-recycle doctor checks the installation"),
            Self::EncoderStopped => Explanation::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "encoder_stopped",
                "The encoder has stopped",
                "the encoder has stopped",
            )
            .hint("restart the server; its log says more"),
            Self::Internal(_) | Self::Panicked(_) => Explanation::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The server failed",
                "the server failed; nothing is wrong with the request as far as is known",
            )
            .hint("report the request id to the server's administrator; its log says more"),
        }
    }

    /// The cause that is logged and never sent, where there is more to say than the client is told.
    fn cause(&self) -> Option<String> {
        match self {
            Self::BodyUnreadable(cause) | Self::Internal(cause) | Self::Panicked(cause) => {
                Some(cause.clone())
            }
            Self::Registry(error) => registry_problem::cause(error),
            Self::Classifier(error) => classifier_problem::cause(error),
            Self::UnknownRoute
            | Self::MethodNotAllowed
            | Self::UnknownJob(_)
            | Self::UnknownPool(_)
            | Self::UnknownClassifier(_)
            | Self::Repeated(_)
            | Self::UnknownPicture(_)
            | Self::ForeignHost(_)
            | Self::ForeignOrigin
            | Self::Malformed { .. }
            | Self::BodyTimeout { .. }
            | Self::BodyTooLarge { .. }
            | Self::UnsupportedMediaType { .. }
            | Self::InvalidParameter { .. }
            | Self::FailedImages(_)
            | Self::InvalidBase64 { .. }
            | Self::TooMany { .. }
            | Self::ClassWithoutImages { .. }
            | Self::Busy
            | Self::AdapterNotFinite(_)
            | Self::BodyTooSlow { .. }
            | Self::BadHost(_)
            | Self::Stopping
            | Self::TooManyStreams
            | Self::AnswerTimeout { .. }
            | Self::NotReady(_)
            | Self::EncoderStopped => None,
        }
    }

    fn retry_after_seconds(&self) -> Option<u32> {
        match self {
            Self::Busy
            | Self::Stopping
            | Self::TooManyStreams
            | Self::AnswerTimeout { .. }
            | Self::NotReady(_)
            | Self::Repeated(Repeated::InProgress) => Some(RETRY_SECONDS),
            Self::UnknownRoute
            | Self::MethodNotAllowed
            | Self::UnknownJob(_)
            | Self::UnknownPool(_)
            | Self::UnknownClassifier(_)
            | Self::Classifier(_)
            | Self::Repeated(Repeated::OtherRequest | Repeated::AnswerNotKept)
            | Self::UnknownPicture(_)
            | Self::ForeignHost(_)
            | Self::ForeignOrigin
            | Self::AdapterNotFinite(_)
            | Self::BodyTooSlow { .. }
            | Self::BadHost(_)
            | Self::Malformed { .. }
            | Self::BodyUnreadable(_)
            | Self::BodyTimeout { .. }
            | Self::BodyTooLarge { .. }
            | Self::UnsupportedMediaType { .. }
            | Self::InvalidParameter { .. }
            | Self::FailedImages(_)
            | Self::InvalidBase64 { .. }
            | Self::TooMany { .. }
            | Self::ClassWithoutImages { .. }
            | Self::EncoderStopped
            | Self::Registry(_)
            | Self::Internal(_)
            | Self::Panicked(_) => None,
        }
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        match error {
            AppError::BadClasses(detail) => Self::InvalidParameter {
                parameter: "classes".into(),
                detail,
            },
            AppError::EmptyClass { label, refused } => Self::ClassWithoutImages { label, refused },
            AppError::Encode(EncodeError::Overloaded) => Self::Busy,
            AppError::Encode(EncodeError::Stopped) => Self::EncoderStopped,
            AppError::Encode(EncodeError::BadInput(cause) | EncodeError::Engine(cause)) => {
                Self::Internal(cause)
            }
            AppError::AdapterNotFinite { adapter } => Self::AdapterNotFinite(adapter),
            AppError::UnknownBackbone(cause) => Self::Internal(cause),
            AppError::Registry(error) => Self::Registry(error),
            error @ (AppError::Backbone(_)
            | AppError::ImageSize { .. }
            | AppError::Classifier(_)) => Self::Internal(error.to_string()),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Registry(error.into())
    }
}

/// An error on its way out; [`finish`] writes its body once the request id is at hand.
#[derive(Clone)]
struct Unfinished {
    problem: Problem,
    cause: Option<String>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let explanation = self.explanation();
        let mut response = explanation.status.into_response();
        // What the store refuses for the moment, whoever asked it.
        let comes_again = matches!(explanation.code, "database_busy" | "queue_full");
        let seconds = self.retry_after_seconds();
        if let Some(seconds) = seconds.or(comes_again.then_some(RETRY_SECONDS)) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let cause = self.cause();
        let changes = match &self {
            Self::Classifier(error) => classifier_problem::changes(error),
            _ => Vec::new(),
        };
        let (refused, report) = match self {
            Self::ClassWithoutImages { refused, .. } => (refused, None),
            Self::Registry(RegistryError::Refused(report)) => (Vec::new(), Some(report)),
            _ => (Vec::new(), None),
        };
        response.extensions_mut().insert(Unfinished {
            problem: Problem {
                code: explanation.code.into(),
                title: explanation.title.into(),
                status: explanation.status.as_u16(),
                detail: explanation.detail,
                parameter: explanation.parameter,
                hint: explanation.hint,
                request_id: String::new(),
                refused,
                report,
                changes,
            },
            cause,
        });
        response
    }
}

/// Writes the body of an error answer and logs its cause; other answers pass unchanged.
pub fn finish(mut response: Response, request_id: &str) -> Response {
    let Some(Unfinished { mut problem, cause }) = response.extensions_mut().remove::<Unfinished>()
    else {
        return response;
    };
    if let Some(cause) = cause {
        tracing::error!(request_id, code = problem.code, cause, "request failed");
    }
    problem.request_id = request_id.to_owned();
    let (mut parts, _) = response.into_parts();
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(PROBLEM_MEDIA_TYPE),
    );
    parts
        .headers
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Response::from_parts(parts, body.into())
}

/// The answer to a request that goes through no route, after which the connection is closed.
pub fn closing(error: ApiError) -> Response {
    let id = Uuid::now_v7().to_string();
    let mut response = finish(error.into_response(), &id);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

pub async fn unknown_route() -> ApiError {
    ApiError::UnknownRoute
}

pub async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
