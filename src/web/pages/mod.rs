//! What a person sees in the browser: the page, the pages of adapters, jobs and pools, their embedded files, and the friendly "not found".
//! Knows the backbone's preprocessing (to draw over the right part of a picture); classifies nothing itself,
//! the page calls the REST interface like every other client.

pub(super) mod admin;
#[cfg_attr(
    embedded_pages,
    allow(dead_code, reason = "there the build script alone joins the modules")
)]
mod bundle;
#[cfg_attr(
    embedded_pages,
    allow(dead_code, reason = "there the build script alone lists the files")
)]
mod file_list;
mod files;
mod headers;
mod templates;

use super::{ApiError, problem};
use crate::app::App;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use headers::Caching;
use minijinja::{Value, context};
use model::backbone::{Preprocess, ResizeTarget};
use std::sync::Arc;

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

pub async fn sort(State(app): State<Arc<App>>, request: HeaderMap) -> Response {
    let values = sort_values(
        app.limits().max_bytes,
        seen_centre(&app.backbone.preprocess),
        &app.backbone_name,
    );
    document(&request, "sort.html", values)
}

/// What the page that sorts is given: the most bytes of a picture, which part of it the backbone sees, and what the backbone is called.
fn sort_values(max_image_bytes: usize, seen_centre: f32, backbone: &str) -> Value {
    context! { max_image_bytes, seen_centre, backbone }
}

/// The page of the template `name`, or 304 where the browser has it.
fn document(request: &HeaderMap, name: &str, values: Value) -> Response {
    match templates::render(name, values) {
        Ok(html) => {
            let etag = headers::etag_of(html.as_bytes());
            let kind = "text/html; charset=utf-8";
            headers::respond(request, kind, html.into(), &etag, Caching::Revalidate)
        }
        Err(error) => ApiError::Internal(format!("{error:#}")).into_response(),
    }
}

fn not_found() -> Response {
    match templates::render("not_found.html", context! {}) {
        Ok(html) => headers::page(StatusCode::NOT_FOUND, html),
        Err(error) => ApiError::Internal(format!("{error:#}")).into_response(),
    }
}

pub async fn page_file(
    Path((digest, path)): Path<(String, String)>,
    request: HeaderMap,
) -> Response {
    let Some(file) = files::find(&path) else {
        return not_found();
    };
    // A page opened before an update asks by the old digest: it gets today's file, but must not keep it under that name.
    let caching = if digest == files::digest() {
        Caching::Forever
    } else {
        Caching::Revalidate
    };
    headers::respond(&request, file.content_type, file.bytes, &file.etag, caching)
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
        templates::render("sort.html", sort_values(1, 0.0, "any")).expect("the template renders")
    }

    /// Panics where `html` asks another host or has an inline script or style.
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
    fn the_page_asks_no_other_host_and_has_no_inline_script_or_style() {
        assert_strict(&first_page());
    }
}
