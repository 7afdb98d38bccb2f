//! The pages of the registry: the list of adapters and one adapter. They are frames; what stands in them comes from the REST
//! interface, which the page calls like every other client.

use super::{assets, document};
use crate::web::WebState;
use askama::Template;
use axum::Router;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;

#[derive(Template)]
#[template(path = "admin/adapters.html")]
struct AdaptersPage<'a> {
    assets: &'a str,
}

#[derive(Template)]
#[template(path = "admin/adapter.html")]
struct AdapterPage<'a> {
    assets: &'a str,
}

pub fn router() -> Router<WebState> {
    Router::new()
        .route("/admin/adapters", get(adapters))
        .route("/admin/adapters/{reference}", get(adapter))
}

async fn adapters(request: HeaderMap) -> Response {
    let assets = assets::base_path();
    document(&request, &AdaptersPage { assets })
}

/// The same frame for every adapter: its script reads the reference from the address.
async fn adapter(request: HeaderMap) -> Response {
    let assets = assets::base_path();
    document(&request, &AdapterPage { assets })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::pages::tests::assert_strict;

    #[test]
    fn the_pages_ask_no_other_host_and_have_no_inline_script_or_style() {
        let assets = assets::base_path();
        assert_strict(&AdaptersPage { assets }.render().expect("a page"));
        assert_strict(&AdapterPage { assets }.render().expect("a page"));
    }

    #[test]
    fn scripts_and_styles_of_the_pages_are_embedded() {
        let assets = assets::base_path();
        for html in [
            AdaptersPage { assets }.render().expect("a page"),
            AdapterPage { assets }.render().expect("a page"),
        ] {
            let prefix = format!("=\"{assets}/");
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
        let assets = assets::base_path();
        let list = AdaptersPage { assets }.render().expect("a page");
        let one = AdapterPage { assets }.render().expect("a page");
        for (html, scripts) in [
            (&list, &["list", "importing"][..]),
            (&one, &["adapter", "pointers"][..]),
        ] {
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
