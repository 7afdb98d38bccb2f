//! Revisions and digests as entity tags: what a client has, and what it expects.

use crate::web::ApiError;
use axum::http::{HeaderMap, header};

/// The tag of a revision.
pub fn of_revision(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The revision that a change is meant for; `None` where the client does not care.
///
/// # Errors
/// [`ApiError::InvalidParameter`] where the header is something else.
pub fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|digits| digits.parse().ok());
    revision
        .map(Some)
        .ok_or_else(|| ApiError::InvalidParameter {
            parameter: "If-Match".into(),
            detail:
                "the header is not the ETag of a classifier: a revision in quotes, such as \"3\""
                    .into(),
        })
}

/// Whether the client says that it has what `etag` names.
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_expected_by_its_tag_and_a_star_expects_any() {
        let expected = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(value.map(|value| (header::IF_MATCH, value.parse().unwrap())));
            expected_revision(&headers).ok()
        };
        assert_eq!(expected(None), Some(None));
        assert_eq!(expected(Some("*")), Some(None));
        assert_eq!(expected(Some("\"12\"")), Some(Some(12)));
        assert_eq!(of_revision(12), "\"12\"");
        for wrong in ["12", "W/\"12\"", "\"x\"", "\"1\", \"2\""] {
            assert_eq!(expected(Some(wrong)), None, "{wrong}");
        }
    }
}
