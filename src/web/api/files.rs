//! Files as answers: shown to the client that asked, or saved by it.

use super::etags::is_known;
use crate::web::ApiError;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::image_input::{ImageFormat, identify};

/// Headers of a file that the client saves as `name`, which has no character that would need quoting.
pub fn attachment(media_type: &str, name: &str) -> [(HeaderName, String); 2] {
    [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ]
}

/// A file that only the client itself may keep: it asks each time whether the file still is there, and is told so without it where it has what
/// `etag` names. Without a media type it is that of the picture that is read.
///
/// # Errors
/// Those of `read`.
pub async fn private_file<E: Into<ApiError>>(
    headers: &HeaderMap,
    etag: String,
    media_type: Option<&str>,
    read: impl AsyncFnOnce() -> Result<Vec<u8>, E>,
) -> Result<Response, ApiError> {
    let is_known = is_known(headers, &etag);
    let answer_headers = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
    ];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, answer_headers).into_response());
    }
    let bytes = read().await.map_err(Into::into)?;
    let of_picture =
        || identify(&bytes).map_or("application/octet-stream", ImageFormat::media_type);
    let media_type = media_type.unwrap_or_else(of_picture).to_owned();
    let media_type = [(header::CONTENT_TYPE, media_type)];
    Ok((answer_headers, media_type, bytes).into_response())
}
