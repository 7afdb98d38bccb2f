//! The pages of adapters, recycling, comparing, jobs and pools. They are frames; what stands in them comes from the REST interface, which
//! the page calls like every other client.

use super::{assets, document};
use crate::web::WebState;
use crate::web::api::MOST_REAL_PICTURES;
use crate::web::limits::Gate;
use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodRouter, get};

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
}

#[derive(Clone, Template)]
#[template(path = "admin/comparison.html")]
struct ComparisonPage<'a> {
    assets: &'a str,
}

// The frame of one thing is the same for all of its kind: its script reads from the address which one it is.

/// All adapters.
pub fn adapters() -> MethodRouter<WebState> {
    frame(AdaptersPage {
        assets: assets::base_path(),
    })
}

/// One adapter.
pub fn adapter() -> MethodRouter<WebState> {
    frame(AdapterPage {
        assets: assets::base_path(),
    })
}

/// All jobs.
pub fn jobs() -> MethodRouter<WebState> {
    upload_frame(|max_upload_bytes| JobsPage {
        assets: assets::base_path(),
        max_upload_bytes,
    })
}

/// One job.
pub fn job() -> MethodRouter<WebState> {
    frame(JobPage {
        assets: assets::base_path(),
    })
}

/// Recycling, with its runs.
pub fn recycle() -> MethodRouter<WebState> {
    upload_frame(|max_upload_bytes| RecyclePage {
        assets: assets::base_path(),
        max_upload_bytes,
    })
}

/// Comparing, with its runs.
pub fn compare() -> MethodRouter<WebState> {
    upload_frame(|max_upload_bytes| ComparePage {
        assets: assets::base_path(),
        max_upload_bytes,
    })
}

/// One comparison.
pub fn comparison() -> MethodRouter<WebState> {
    frame(ComparisonPage {
        assets: assets::base_path(),
    })
}

/// All pools.
pub fn pools() -> MethodRouter<WebState> {
    frame(PoolsPage {
        assets: assets::base_path(),
    })
}

/// One pool.
pub fn pool() -> MethodRouter<WebState> {
    upload_frame(|max_upload_bytes| PoolPage {
        assets: assets::base_path(),
        max_upload_bytes,
        most_real_pictures: MOST_REAL_PICTURES,
    })
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
        let compare = ComparePage {
            assets,
            max_upload_bytes,
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
                &["compare", "compare_form", "runs", "confirm"],
            ),
            (
                html(&ComparisonPage { assets }),
                &["compare_result", "compare_publish", "confirm"],
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
