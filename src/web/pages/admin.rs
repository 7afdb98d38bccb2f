//! The pages of adapters, recycling, comparing, jobs and pools. They are frames; what stands in them comes from the REST interface, which
//! the page calls like every other client.

use super::{assets, document};
use crate::app::evaluation::MethodKind;
use crate::web::WebState;
use crate::web::api::MOST_REAL_PICTURES;
use crate::web::limits::Gate;
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use model::adapter::MergeMethod;
use std::sync::LazyLock;

#[derive(Clone, Template)]
#[template(path = "admin/adapters.html")]
struct AdaptersPage<'a> {
    assets: &'a str,
}

#[derive(Clone, Template)]
#[template(path = "admin/adapter.html")]
struct AdapterPage<'a> {
    assets: &'a str,
}

#[derive(Clone, Template)]
#[template(path = "admin/jobs.html")]
struct JobsPage<'a> {
    assets: &'a str,
    max_upload_bytes: usize,
}

#[derive(Clone, Template)]
#[template(path = "admin/job.html")]
struct JobPage<'a> {
    assets: &'a str,
}

#[derive(Clone, Template)]
#[template(path = "admin/pools.html")]
struct PoolsPage<'a> {
    assets: &'a str,
}

#[derive(Clone, Template)]
#[template(path = "admin/pool.html")]
struct PoolPage<'a> {
    assets: &'a str,
    max_upload_bytes: usize,
    most_real_pictures: usize,
}

#[derive(Clone, Template)]
#[template(path = "admin/recycle.html")]
struct RecyclePage<'a> {
    assets: &'a str,
    max_upload_bytes: usize,
}

#[derive(Clone, Template)]
#[template(path = "admin/compare.html")]
struct ComparePage<'a> {
    assets: &'a str,
    max_upload_bytes: usize,
    /// Ways to merge that are offered.
    merges: &'a [MergeMethod],
    method_titles: &'a str,
}

#[derive(Clone, Template)]
#[template(path = "admin/comparison.html")]
struct ComparisonPage<'a> {
    assets: &'a str,
    method_titles: &'a str,
}

/// What people read in place of the names of methods, as JSON for scripts.
fn method_titles() -> &'static str {
    static TITLES: LazyLock<String> =
        LazyLock::new(|| serde_json::json!(MethodKind::titles()).to_string());
    &TITLES
}

/// The frame of one thing is the same for all of its kind: its script reads from the address which one it is.
pub fn router() -> Router<WebState> {
    let assets = assets::base_path();
    let method_titles = method_titles();
    Router::new()
        .route("/admin/adapters", frame(AdaptersPage { assets }))
        .route("/admin/adapters/{reference}", frame(AdapterPage { assets }))
        .route(
            "/admin/jobs",
            upload_frame(move |max_upload_bytes| JobsPage {
                assets,
                max_upload_bytes,
            }),
        )
        .route("/admin/jobs/{id}", frame(JobPage { assets }))
        .route(
            "/admin/recycle",
            upload_frame(move |max_upload_bytes| RecyclePage {
                assets,
                max_upload_bytes,
            }),
        )
        .route(
            "/admin/compare",
            upload_frame(move |max_upload_bytes| ComparePage {
                assets,
                max_upload_bytes,
                merges: MergeMethod::ALL,
                method_titles,
            }),
        )
        .route(
            "/admin/compare/{id}",
            frame(ComparisonPage {
                assets,
                method_titles,
            }),
        )
        .route("/admin/pools", frame(PoolsPage { assets }))
        .route(
            "/admin/pools/{id}",
            upload_frame(move |max_upload_bytes| PoolPage {
                assets,
                max_upload_bytes,
                most_real_pictures: MOST_REAL_PICTURES,
            }),
        )
}

/// A page whose form sends pictures: it is told the most bytes that the server takes.
fn upload_frame<P, F>(page: F) -> MethodRouter<WebState>
where
    P: Template + Send + 'static,
    F: Fn(usize) -> P + Clone + Send + Sync + 'static,
{
    get(
        async move |State(gate): State<Gate>, request: HeaderMap| -> Response {
            document(&request, &page(gate.limits.max_body_bytes))
        },
    )
}

fn frame<P>(page: P) -> MethodRouter<WebState>
where
    P: Template + Clone + Send + Sync + 'static,
{
    get(async move |request: HeaderMap| -> Response { document(&request, &page) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::pages::tests::assert_strict;

    /// Each page with its scripts that ask for elements.
    fn pages() -> [(String, &'static [&'static str]); 9] {
        let assets = assets::base_path();
        let max_upload_bytes = 1;
        let jobs = JobsPage {
            assets,
            max_upload_bytes,
        };
        let recycle = RecyclePage {
            assets,
            max_upload_bytes,
        };
        let method_titles = method_titles();
        let compare = ComparePage {
            assets,
            max_upload_bytes,
            merges: MergeMethod::ALL,
            method_titles,
        };
        let comparison = ComparisonPage {
            assets,
            method_titles,
        };
        let pool = PoolPage {
            assets,
            max_upload_bytes,
            most_real_pictures: 1,
        };
        let html = |page: &dyn askama::DynTemplate| page.dyn_render().expect("a page");
        [
            (html(&AdaptersPage { assets }), &["list", "importing"]),
            (
                html(&AdapterPage { assets }),
                &["adapter", "pointers", "confirm"],
            ),
            (
                html(&jobs),
                &["jobs", "start_tune", "start_invert", "confirm"],
            ),
            (
                html(&JobPage { assets }),
                &["job", "learned_from", "image_grid", "confirm"],
            ),
            (html(&recycle), &["recycle", "runs", "confirm"]),
            (
                html(&compare),
                &[
                    "compare",
                    "compare_form",
                    "compare_report",
                    "runs",
                    "confirm",
                ],
            ),
            (
                html(&comparison),
                &[
                    "compare_result",
                    "compare_report",
                    "compare_publish",
                    "confirm",
                ],
            ),
            (html(&PoolsPage { assets }), &["pools"]),
            (
                html(&pool),
                &["pool", "quality", "real_pictures", "image_grid", "confirm"],
            ),
        ]
    }

    #[test]
    fn the_pages_ask_no_other_host_and_have_no_inline_script_or_style() {
        for (html, _) in pages() {
            assert_strict(&html);
        }
    }

    #[test]
    fn every_merge_with_words_for_it_is_offered_once_and_the_others_are_not() {
        let page = ComparePage {
            assets: "",
            max_upload_bytes: 1,
            merges: MergeMethod::ALL,
            method_titles: method_titles(),
        };
        let html = page.render().expect("a page");
        for method in MergeMethod::ALL.iter().map(|method| method.facts()) {
            let boxes = html.matches(&format!("name=\"merge\" id=\"compare-{}\"", method.name));
            assert_eq!(
                boxes.count(),
                usize::from(method.choice.is_some()),
                "{method:?}"
            );
        }
    }

    #[test]
    fn scripts_and_styles_of_the_pages_are_embedded() {
        let prefix = format!("=\"{}/", assets::base_path());
        for (html, _) in pages() {
            let paths = html
                .split(&prefix)
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
                .collect::<Vec<_>>();
            assert!(paths.len() >= 4, "{paths:?}");
            for path in paths {
                assert!(assets::find(path).is_some(), "{path} is missing");
            }
        }
    }

    #[test]
    fn every_element_that_a_script_asks_for_by_its_id_is_on_the_page() {
        for (html, scripts) in pages() {
            for script in scripts {
                let file = assets::find(&format!("js/admin/{script}.js")).expect("a script");
                let text = str::from_utf8(file.bytes).expect("text");
                for id in text.split("byId(\"").skip(1) {
                    let id = id.split('"').next().unwrap_or_default();
                    assert!(html.contains(&format!("id=\"{id}\"")), "{script}.js: {id}");
                }
            }
        }
    }
}
