//! Response headers of the page and its files: types, caching, and what the browser may load.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

/// Only this origin's own files; `blob:` shows the person's pictures. No inline script or style, no frames, no forms.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long a browser may keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// The address names the content.
    Forever,
    /// Ask each time; unchanged content costs a 304.
    Revalidate,
}

impl Caching {
    fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Forever => "public, max-age=31536000, immutable",
            Self::Revalidate => "no-cache",
        })
    }
}

/// First 16 hexadecimal digits of a digest.
pub fn short_hex(digest: &[u8]) -> String {
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Weak, since compression on the way changes the bytes but not the meaning.
pub fn etag_of(bytes: &[u8]) -> String {
    format!("W/\"{}\"", short_hex(&Sha256::digest(bytes)))
}

/// `bytes`, or 304 where the browser has them.
pub fn respond(
    request: &HeaderMap,
    content_type: &str,
    bytes: Bytes,
    etag: &str,
    caching: Caching,
) -> Response {
    let known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|candidate| opaque(candidate) == "*" || opaque(candidate) == opaque(etag));
    let mut response = if known {
        Response::new(Body::empty())
    } else {
        Response::new(Body::from(bytes))
    };
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, content_type);
    set(headers, header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, caching.value());
    guard(headers);
    response
}

/// A document that is not kept.
pub fn page(status: StatusCode, html: String) -> Response {
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, "text/html; charset=utf-8");
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    guard(headers);
    response
}

/// The part of an entity tag that weak comparison looks at.
fn opaque(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix("W/").unwrap_or(etag)
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_with(if_none_match: &str) -> StatusCode {
        let mut request = HeaderMap::new();
        set(&mut request, header::IF_NONE_MATCH, if_none_match);
        let bytes = Bytes::from_static(b"body");
        let etag = etag_of(&bytes);
        respond(&request, "text/plain", bytes, &etag, Caching::Forever).status()
    }

    #[test]
    fn a_browser_that_has_the_content_gets_304() {
        let etag = etag_of(b"body");
        assert_eq!(asked_with(&etag), StatusCode::NOT_MODIFIED);
        assert_eq!(
            asked_with(&format!("\"old\", {etag}")),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(
            asked_with(etag.trim_start_matches("W/")),
            StatusCode::NOT_MODIFIED
        );
    }

    #[test]
    fn a_browser_with_other_content_gets_the_body() {
        assert_eq!(asked_with("\"old\""), StatusCode::OK);
        assert_eq!(asked_with(""), StatusCode::OK);
    }

    #[test]
    fn the_policy_allows_no_inline_code_and_no_other_host() {
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
        assert!(!CONTENT_SECURITY_POLICY.contains("http"));
        assert!(CONTENT_SECURITY_POLICY.starts_with("default-src 'none'"));
    }
}
