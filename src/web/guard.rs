//! Requests that a browser was tricked into: names that were rebound to this machine, and other sites that post here.
//! Clients that are not browsers send no `Origin` and pass.

use super::problem::ApiError;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;

/// What a browser says about the site that asks.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Host names that the server answers for.
#[derive(Debug, Clone)]
pub struct AllowedHosts {
    /// `None` answers for every name.
    names: Option<Arc<[String]>>,
}

impl AllowedHosts {
    /// A server that only this machine reaches answers for this machine's own names and `more`: a page elsewhere whose
    /// name was rebound to this machine then gets nothing.
    pub fn loopback_and(more: &[String]) -> Self {
        Self {
            names: Some(more.iter().map(|name| name.to_ascii_lowercase()).collect()),
        }
    }

    /// For a server that others reach under names it cannot know.
    pub fn any() -> Self {
        Self { names: None }
    }

    fn allows(&self, host: &str) -> bool {
        let Some(names) = &self.names else {
            return true;
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.to_ascii_lowercase();
        host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
            || names.contains(&host)
    }
}

/// Lets a request pass or refuses it.
pub async fn check(
    State(hosts): State<AllowedHosts>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let authority = authority(request.uri(), request.headers())?;
    if let Some(authority) = &authority
        && !hosts.allows(authority.host())
    {
        return Err(ApiError::ForeignHost(authority.host().to_owned()));
    }
    // What another site embeds or links to costs work here, and it could not read it.
    let path = request.uri().path();
    let is_costly = path.ends_with("/export") || path.contains("/previews");
    let is_cross_site = |site: &HeaderValue| site == "cross-site";
    if is_costly && request.headers().get(FETCH_SITE).is_some_and(is_cross_site) {
        return Err(ApiError::ForeignOrigin);
    }
    let reads_only = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if !reads_only && !same_origin(request.headers(), authority.as_ref()) {
        return Err(ApiError::ForeignOrigin);
    }
    Ok(next.run(request).await)
}

/// Where the client believes it sent the request; HTTP/1.0 clients may not say.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, ApiError> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(host) = headers.get(header::HOST) else {
        return Ok(None);
    };
    Authority::try_from(host.as_bytes())
        .map(Some)
        .map_err(|_| ApiError::ForeignHost(String::from_utf8_lossy(host.as_bytes()).into_owned()))
}

fn same_origin(headers: &HeaderMap, authority: Option<&Authority>) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    match (origin, authority) {
        (Some((_, origin)), Some(authority)) => origin.eq_ignore_ascii_case(authority.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_and_added_ones_are_allowed_on_loopback() {
        let hosts = AllowedHosts::loopback_and(&["Lab.example".into()]);
        for own in [
            "localhost",
            "LOCALHOST",
            "app.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "lab.example",
        ] {
            assert!(hosts.allows(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.168.0.2",
            "",
            "0.0.0.0",
        ] {
            assert!(!hosts.allows(foreign), "{foreign}");
        }
        assert!(AllowedHosts::any().allows("evil.example"));
    }
}
