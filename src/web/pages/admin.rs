//! The pages of adapters, recycling, comparing, jobs and pools. They are frames; their content comes from the REST interface, which
//! the page calls like every other client.

use super::document;
use crate::app::evaluation::MethodKind;
use crate::web::WebState;
use crate::web::api::MOST_REAL_PICTURES;
use crate::web::limits::Gate;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use minijinja::{Value, context};
use model::adapter::MergeMethod;
use serde_json::json;

/// The page of this template. The frame of one thing is the same for all of its kind: its script reads from the address which one it is.
pub fn page(template: &'static str) -> MethodRouter<WebState> {
    get(
        async move |State(gate): State<Gate>, request: HeaderMap| -> Response {
            document(&request, template, values(gate.limits.max_body_bytes))
        },
    )
}

/// What the pages are given: the most bytes that the server takes at once, the most pictures that a pool is compared with, the ways to
/// merge that are offered, and as JSON for scripts what people read in place of the names of methods.
fn values(max_upload_bytes: usize) -> Value {
    let all = MergeMethod::ALL.iter().map(|method| method.facts());
    let merges: Vec<Value> = all
        .filter_map(|own| {
            own.choice
                .map(|choice| context! { name => own.name, choice })
        })
        .collect();
    let method_titles = json!(MethodKind::titles()).to_string();
    context! { max_upload_bytes, most_real_pictures => MOST_REAL_PICTURES, merges, method_titles }
}

#[cfg(test)]
mod tests {
    use super::super::{files, templates};
    use super::*;
    use crate::web::pages::tests::assert_strict;

    /// Each page with its scripts that ask for elements.
    fn pages() -> Vec<(String, &'static [&'static str])> {
        let scripts: [(&str, &[&str]); 9] = [
            ("admin/adapters.html", &["list", "importing"]),
            ("admin/adapter.html", &["adapter", "pointers", "confirm"]),
            (
                "admin/jobs.html",
                &["jobs", "start_tune", "start_invert", "confirm"],
            ),
            (
                "admin/job.html",
                &["job", "learned_from", "image_grid", "confirm"],
            ),
            ("admin/recycle.html", &["recycle", "runs", "confirm"]),
            (
                "admin/compare.html",
                &[
                    "compare",
                    "compare_form",
                    "compare_report",
                    "runs",
                    "confirm",
                ],
            ),
            (
                "admin/comparison.html",
                &[
                    "compare_result",
                    "compare_report",
                    "compare_publish",
                    "confirm",
                ],
            ),
            ("admin/pools.html", &["pools"]),
            (
                "admin/pool.html",
                &["pool", "quality", "real_pictures", "image_grid", "confirm"],
            ),
        ];
        scripts
            .into_iter()
            .map(|(template, scripts)| {
                let html = templates::render(template, values(1)).expect("a page");
                (html, scripts)
            })
            .collect()
    }

    #[test]
    fn the_pages_ask_no_other_host_and_have_no_inline_script_or_style() {
        for (html, _) in pages() {
            assert_strict(&html);
        }
    }

    #[test]
    fn every_merge_with_words_for_it_is_offered_once_and_the_others_are_not() {
        let html = templates::render("admin/compare.html", values(1)).expect("a page");
        for method in MergeMethod::ALL.iter().map(|method| method.facts()) {
            let tick = format!("name=\"merge\" id=\"compare-{}\"", method.name);
            let offered = usize::from(method.choice.is_some());
            assert_eq!(html.matches(&tick).count(), offered, "{method:?}");
        }
    }

    #[test]
    fn scripts_and_styles_of_the_pages_are_served() {
        let prefix = format!("=\"{}/", files::base_path());
        for (html, _) in pages() {
            let paths = html
                .split(&prefix)
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
                .collect::<Vec<_>>();
            assert!(paths.len() >= 4, "{paths:?}");
            for path in paths {
                assert!(files::find(path).is_some(), "{path} is missing");
            }
        }
    }

    #[test]
    fn every_element_that_a_script_asks_for_by_its_id_is_on_the_page() {
        for (html, scripts) in pages() {
            for script in scripts {
                let file = files::find(&format!("js/admin/{script}.js")).expect("a script");
                let text = str::from_utf8(&file.bytes).expect("text");
                for id in text.split("byId(\"").skip(1) {
                    let id = id.split('"').next().unwrap_or_default();
                    assert!(html.contains(&format!("id=\"{id}\"")), "{script}.js: {id}");
                }
            }
        }
    }
}
