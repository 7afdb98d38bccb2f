//! What a person sees in the browser: the page, the pages of adapters, jobs and pools, their embedded files, and the friendly "not found".
//! Knows the backbone's preprocessing (to draw over the right part of a picture); classifies nothing itself,
//! the page calls the REST interface like every other client.

pub(super) mod admin;
mod assets;
mod headers;

use super::{ApiError, problem};
use crate::app::App;
use askama::Template;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use headers::Caching;
use model::backbone::{Preprocess, ResizeTarget};
use std::sync::Arc;

#[derive(Template)]
#[template(path = "index.html")]
struct IndexPage<'a> {
    assets: &'a str,
    max_image_bytes: usize,
    seen_centre: f32,
    backbone: &'a str,
}

#[derive(Template)]
#[template(path = "not_found.html")]
struct NotFoundPage<'a> {
    assets: &'a str,
}

/// The answer to an address that does not exist: a page for people, a problem for programs.
pub async fn unknown_address(address: Uri, request: HeaderMap) -> Response {
    let wants_page = request
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if wants_page && !address.path().starts_with("/api/") {
        not_found()
    } else {
        problem::unknown_route().await.into_response()
    }
}

pub async fn index(State(app): State<Arc<App>>, request: HeaderMap) -> Response {
    let page = IndexPage {
        assets: assets::base_path(),
        max_image_bytes: app.limits.max_bytes,
        seen_centre: seen_centre(&app.backbone.preprocess),
        backbone: &app.backbone_name,
    };
    document(&request, &page)
}

/// `page`, or 304 where the browser has it.
fn document(request: &HeaderMap, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => {
            let etag = headers::etag_of(html.as_bytes());
            let kind = "text/html; charset=utf-8";
            headers::respond(request, kind, html.into(), &etag, Caching::Revalidate)
        }
        Err(error) => ApiError::Internal(error.to_string()).into_response(),
    }
}

fn not_found() -> Response {
    let page = NotFoundPage {
        assets: assets::base_path(),
    };
    match page.render() {
        Ok(html) => headers::page(StatusCode::NOT_FOUND, html),
        Err(error) => ApiError::Internal(error.to_string()).into_response(),
    }
}

pub async fn embedded_file(
    Path((digest, path)): Path<(String, String)>,
    request: HeaderMap,
) -> Response {
    let Some(file) = assets::find(&path) else {
        return not_found();
    };
    // A page opened before an update asks by the old digest: it gets today's file, but must not keep it under that name.
    let caching = if digest == assets::digest() {
        Caching::Forever
    } else {
        Caching::Revalidate
    };
    headers::respond(
        &request,
        file.content_type,
        Bytes::from_static(file.bytes),
        file.etag,
        caching,
    )
}

/// Which part of a picture the backbone sees: 0 for the whole picture, otherwise the side of a centred square as a
/// share of the shorter side.
fn seen_centre(preprocess: &Preprocess) -> f32 {
    match (preprocess.resize, preprocess.centre_crop) {
        (Some(ResizeTarget::ShortestEdge(edge)), Some((crop, _))) if edge > 0 => {
            (crop as f32 / edge as f32).min(1.0)
        }
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocess(resize: &str) -> Preprocess {
        let text = format!(
            r#"{{"do_resize": true, "do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true,
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3, {resize}}}"#
        );
        Preprocess::from_json(text.as_bytes()).expect("a valid configuration")
    }

    #[test]
    fn a_stretched_picture_is_seen_whole() {
        let stretched = preprocess(r#""size": {"height": 98, "width": 98}"#);
        assert_eq!(seen_centre(&stretched), 0.0);
    }

    #[test]
    fn a_cropped_picture_is_seen_in_its_centre() {
        let cropped = preprocess(
            r#""size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}"#,
        );
        assert_eq!(seen_centre(&cropped), 0.875);
    }

    fn first_page() -> String {
        let page = IndexPage {
            assets: assets::base_path(),
            max_image_bytes: 1,
            seen_centre: 0.0,
            backbone: "any",
        };
        page.render().expect("the template renders")
    }

    /// Panics where `html` asks another host or has a script or a style of its own.
    pub(super) fn assert_strict(html: &str) {
        for forbidden in [
            "http://",
            "https://",
            "<style",
            " style=",
            " onclick=",
            "javascript:",
        ] {
            assert!(!html.contains(forbidden), "the page contains {forbidden}");
        }
        for script in html.split("<script").skip(1) {
            assert!(
                script.trim_start().starts_with("type=\"module\" src="),
                "inline script: {script:.60}"
            );
        }
    }

    #[test]
    fn the_first_page_stays_within_its_budget() {
        let bytes = first_page().len() + assets::first_page_bytes();
        assert!(bytes <= 100_000, "the first page takes {bytes} bytes");
    }

    #[test]
    fn the_page_asks_no_other_host_and_has_no_inline_script_or_style() {
        assert_strict(&first_page());
    }
}
