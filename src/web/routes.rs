//! Every route that the server has, in one table: method, address, what it needs, and who answers. Router and OpenAPI document are
//! made from it, so that nothing is served that is not listed here.

use super::api::problems::{ADMITTED_REQUEST, ANY_REQUEST, REQUEST_WITH_BODY, problem_response};
use super::envelope::REQUEST_ID;
use super::limits::{Gate, admit};
use super::needs::{Access, Body, Needs};
use super::{WebState, api, health, openapi, pages};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, get, on};
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, RefOr, Required};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

/// Who answers.
enum Handler {
    /// It is in the OpenAPI document.
    Documented(fn() -> UtoipaMethodRouter<WebState>),
    /// An older spelling of something that is there.
    Deprecated(fn() -> MethodRouter<WebState>),
    /// For people: a page, a file of one, or what shows the document.
    Page(fn() -> MethodRouter<WebState>),
}

/// A row of the table.
pub struct Route {
    /// Of the request.
    pub method: HttpMethod,
    /// As axum writes it.
    pub path: &'static str,
    /// What is asked of a request before it is answered.
    pub needs: Needs,
    handler: Handler,
}

const OPEN: Needs = Needs {
    access: Access::Open,
    admission: false,
    is_download: false,
    body: Body::None,
};
const READ: Needs = Needs {
    access: Access::Read,
    ..OPEN
};
const WRITE: Needs = Needs {
    access: Access::Write,
    ..OPEN
};

/// These needs, with a limited number of requests at a time.
const fn admitted(needs: Needs) -> Needs {
    Needs {
        admission: true,
        ..needs
    }
}

/// A download, of which a limited number is sent at a time.
const DOWNLOAD: Needs = Needs {
    is_download: true,
    ..admitted(READ)
};

/// These needs, with a body.
const fn with_body(needs: Needs, body: Body) -> Needs {
    Needs {
        body,
        ..admitted(needs)
    }
}

const fn documented(
    method: HttpMethod,
    path: &'static str,
    needs: Needs,
    handler: fn() -> UtoipaMethodRouter<WebState>,
) -> Route {
    Route {
        method,
        path,
        needs,
        handler: Handler::Documented(handler),
    }
}

const fn deprecated(
    method: HttpMethod,
    path: &'static str,
    needs: Needs,
    handler: fn() -> MethodRouter<WebState>,
) -> Route {
    Route {
        method,
        path,
        needs,
        handler: Handler::Deprecated(handler),
    }
}

const fn page(path: &'static str, handler: fn() -> MethodRouter<WebState>) -> Route {
    Route {
        method: Get,
        path,
        needs: OPEN,
        handler: Handler::Page(handler),
    }
}

use Body::{Form, Json, JsonIfAny, JsonOrForm, Upload};
use HttpMethod::{Delete, Get, Patch, Post, Put};

/// Every route there is.
#[rustfmt::skip]
pub static ROUTES: &[Route] = &[
    // Classification
    documented(Post, "/api/v1/classify", with_body(READ, JsonOrForm), || routes!(api::classify::classify_images)),
    documented(Post, "/api/v1/embed", with_body(READ, JsonOrForm), || routes!(api::embed::embed_images)),
    documented(Post, "/api/v1/thumbnails", with_body(READ, Form), || routes!(api::thumbnails::make_thumbnail)),
    // Backbones
    documented(Get, "/api/v1/backbones", READ, || routes!(api::backbones::list_backbones)),
    // Adapters
    documented(Get, "/api/v1/adapters", READ, || routes!(api::adapters::manage::list_adapters)),
    documented(Post, "/api/v1/adapters", with_body(WRITE, Form), || routes!(api::adapters::import::import_adapter)),
    documented(Post, "/api/v1/adapters/merge", with_body(WRITE, Json), || routes!(api::adapters::merge::merge_adapters)),
    documented(Get, "/api/v1/adapters/{reference}", READ, || routes!(api::adapters::manage::get_adapter)),
    documented(Patch, "/api/v1/adapters/{reference}", with_body(WRITE, Json), || routes!(api::adapters::manage::change_adapter)),
    documented(Delete, "/api/v1/adapters/{reference}", WRITE, || routes!(api::adapters::manage::delete_adapter)),
    documented(Get, "/api/v1/adapters/{reference}/report", READ, || routes!(api::adapters::manage::get_import_report)),
    documented(Get, "/api/v1/adapters/{reference}/export", DOWNLOAD, || routes!(api::adapters::export::export_adapter)),
    // Aliases and defaults
    documented(Get, "/api/v1/adapter-aliases", READ, || routes!(api::adapters::aliases::list_aliases)),
    documented(Put, "/api/v1/adapters/{name}/aliases/{alias}", with_body(WRITE, Json), || routes!(api::adapters::aliases::set_alias)),
    documented(Delete, "/api/v1/adapters/{name}/aliases/{alias}", WRITE, || routes!(api::adapters::aliases::remove_alias)),
    documented(Get, "/api/v1/adapters/{name}/aliases/{alias}/history", READ, || routes!(api::adapters::aliases::list_alias_moves)),
    documented(Post, "/api/v1/adapters/{name}/aliases/{alias}/rollback", with_body(WRITE, JsonIfAny), || routes!(api::adapters::aliases::roll_back_alias)),
    documented(Put, "/api/v1/backbones/{backbone}/default-adapter", with_body(WRITE, Json), || routes!(api::adapters::aliases::set_default_adapter)),
    documented(Delete, "/api/v1/backbones/{backbone}/default-adapter", WRITE, || routes!(api::adapters::aliases::remove_default_adapter)),
    documented(Get, "/api/v1/backbones/{backbone}/default-adapter/history", READ, || routes!(api::adapters::aliases::list_default_adapter_moves)),
    documented(Post, "/api/v1/backbones/{backbone}/default-adapter/rollback", with_body(WRITE, JsonIfAny), || routes!(api::adapters::aliases::roll_back_default_adapter)),
    documented(Get, "/api/v1/storage", READ, || routes!(api::adapters::storage::measure_storage)),
    documented(Post, "/api/v1/storage/gc", WRITE, || routes!(api::adapters::storage::collect_garbage)),
    // Classifiers
    documented(Post, "/api/v1/classifiers", with_body(WRITE, Json), || routes!(api::classifiers::manage::create_classifier)),
    documented(Get, "/api/v1/classifiers", READ, || routes!(api::classifiers::manage::list_classifiers)),
    documented(Get, "/api/v1/classifiers/{id}", READ, || routes!(api::classifiers::manage::get_classifier)),
    documented(Patch, "/api/v1/classifiers/{id}", with_body(WRITE, Json), || routes!(api::classifiers::manage::change_classifier)),
    documented(Delete, "/api/v1/classifiers/{id}", WRITE, || routes!(api::classifiers::manage::delete_classifier)),
    documented(Post, "/api/v1/classifiers/{id}/classes", with_body(WRITE, Json), || routes!(api::classifiers::classes::add_class)),
    documented(Patch, "/api/v1/classifiers/{id}/classes/{class}", with_body(WRITE, Json), || routes!(api::classifiers::classes::rename_class)),
    documented(Delete, "/api/v1/classifiers/{id}/classes/{class}", WRITE, || routes!(api::classifiers::classes::delete_class)),
    documented(Post, "/api/v1/classifiers/{id}/classes/{class}/merge", with_body(WRITE, Json), || routes!(api::classifiers::classes::merge_class)),
    documented(Post, "/api/v1/classifiers/{id}/images", with_body(WRITE, JsonOrForm), || routes!(api::classifiers::images::add_images)),
    documented(Get, "/api/v1/classifiers/{id}/images", READ, || routes!(api::classifiers::images::list_images)),
    documented(Patch, "/api/v1/classifiers/{id}/images", with_body(WRITE, Json), || routes!(api::classifiers::images::move_images)),
    documented(Delete, "/api/v1/classifiers/{id}/images", with_body(WRITE, Json), || routes!(api::classifiers::images::delete_images)),
    documented(Get, "/api/v1/classifiers/{id}/images/{image}", READ, || routes!(api::classifiers::images::get_image)),
    documented(Get, "/api/v1/classifiers/{id}/images/{image}/thumbnail", READ, || routes!(api::classifiers::images::get_thumbnail)),
    documented(Post, "/api/v1/classifiers/{id}/classify", with_body(READ, JsonOrForm), || routes!(api::classifiers::classify::classify_with_classifier)),
    documented(Get, "/api/v1/classifiers/{id}/check", admitted(READ), || routes!(api::classifiers::check::check_classifier)),
    documented(Post, "/api/v1/classifiers/{id}/undo", WRITE, || routes!(api::classifiers::history::undo_change)),
    documented(Post, "/api/v1/classifiers/{id}/redo", WRITE, || routes!(api::classifiers::history::redo_change)),
    documented(Post, "/api/v1/classifiers/{id}/batches", with_body(WRITE, Upload), || routes!(api::classifiers::batches::manage::create_batch)),
    documented(Get, "/api/v1/classifiers/{id}/batches", READ, || routes!(api::classifiers::batches::manage::list_batches)),
    documented(Get, "/api/v1/classifiers/{id}/batches/{batch}", READ, || routes!(api::classifiers::batches::manage::get_batch)),
    documented(Delete, "/api/v1/classifiers/{id}/batches/{batch}", WRITE, || routes!(api::classifiers::batches::manage::delete_batch)),
    documented(Get, "/api/v1/classifiers/{id}/batches/{batch}/pictures/{position}", READ, || routes!(api::classifiers::batches::pictures::get_batch_picture)),
    documented(Get, "/api/v1/classifiers/{id}/batches/{batch}/pictures/{position}/thumbnail", READ, || routes!(api::classifiers::batches::pictures::get_batch_thumbnail)),
    documented(Get, "/api/v1/classifiers/{id}/snippets", READ, || routes!(api::classifiers::snippets::get_snippets)),
    documented(Get, "/api/v1/classifiers/{id}/export", DOWNLOAD, || routes!(api::classifiers::export::export_classifier)),
    documented(Post, "/api/v1/classifiers/import", with_body(WRITE, Form), || routes!(api::classifiers::import::import_classifier)),
    // Jobs
    documented(Post, "/api/v1/jobs/tune", with_body(WRITE, JsonOrForm), || routes!(api::jobs::submit::start_tuning)),
    documented(Post, "/api/v1/jobs/invert", with_body(WRITE, JsonOrForm), || routes!(api::jobs::submit::start_inversion)),
    documented(Post, "/api/v1/jobs/recycle", with_body(WRITE, JsonOrForm), || routes!(api::jobs::submit::start_recycling)),
    documented(Post, "/api/v1/jobs/evaluate", with_body(WRITE, JsonOrForm), || routes!(api::jobs::submit::start_evaluation)),
    deprecated(Post, "/api/v1/jobs", with_body(WRITE, JsonOrForm), || on(MethodFilter::POST, api::jobs::submit::submit_any)),
    documented(Get, "/api/v1/jobs", READ, || routes!(api::jobs::manage::list_jobs)),
    documented(Get, "/api/v1/jobs/{id}", READ, || routes!(api::jobs::manage::get_job)),
    documented(Post, "/api/v1/jobs/{id}/cancel", WRITE, || routes!(api::jobs::manage::cancel_job)),
    documented(Post, "/api/v1/jobs/{id}/retry", WRITE, || routes!(api::jobs::manage::retry_job)),
    documented(Get, "/api/v1/jobs/{id}/events", READ, || routes!(api::jobs::events::follow_job)),
    documented(Get, "/api/v1/jobs/{id}/previews", READ, || routes!(api::jobs::previews::list_previews)),
    documented(Get, "/api/v1/jobs/{id}/previews/{index}", READ, || routes!(api::jobs::previews::get_preview)),
    // Pools
    documented(Get, "/api/v1/pools", READ, || routes!(api::pools::list_pools)),
    documented(Get, "/api/v1/pools/{id}", READ, || routes!(api::pools::get_pool)),
    documented(Delete, "/api/v1/pools/{id}", WRITE, || routes!(api::pools::delete_pool)),
    documented(Get, "/api/v1/pools/{id}/images/{index}", READ, || routes!(api::pools::get_pool_image)),
    documented(Get, "/api/v1/pools/{id}/kept-tokens", READ, || routes!(api::pools::get_kept_tokens)),
    documented(Get, "/api/v1/pools/{id}/quality", admitted(READ), || routes!(api::pool_quality::measure_pool)),
    documented(Post, "/api/v1/pools/{id}/quality", with_body(READ, Form), || routes!(api::pool_quality::compare_pool)),
    // Health
    documented(Get, "/healthz", OPEN, || routes!(health::get_health)),
    documented(Get, "/readyz", OPEN, || routes!(health::get_readiness)),
    // The document
    page("/api/openapi.json", || get(openapi::document_as_json)),
    page("/api/docs", || get(openapi::to_documentation)),
    page("/api/docs/", || get(openapi::documentation)),
    page("/api/docs/{*file}", || get(openapi::documentation)),
    // Pages
    page("/", || get(pages::sort)),
    page("/c/{id}", || get(pages::sort)),
    page("/static/{digest}/{*path}", || get(pages::page_file)),
    page("/admin/adapters", || pages::admin::page("admin/adapters.html")),
    page("/admin/adapters/{reference}", || pages::admin::page("admin/adapter.html")),
    page("/admin/jobs", || pages::admin::page("admin/jobs.html")),
    page("/admin/jobs/{id}", || pages::admin::page("admin/job.html")),
    page("/admin/recycle", || pages::admin::page("admin/recycle.html")),
    page("/admin/compare", || pages::admin::page("admin/compare.html")),
    page("/admin/compare/{id}", || pages::admin::page("admin/comparison.html")),
    page("/admin/pools", || pages::admin::page("admin/pools.html")),
    page("/admin/pools/{id}", || pages::admin::page("admin/pool.html")),
];

impl Route {
    /// Whether it is in the OpenAPI document.
    pub fn is_documented(&self) -> bool {
        matches!(self.handler, Handler::Documented(_))
    }

    /// Whether it is for people: a page, a file of one, or what shows the document.
    pub fn is_page(&self) -> bool {
        matches!(self.handler, Handler::Page(_))
    }

    fn method_router(&self) -> MethodRouter<WebState> {
        match self.handler {
            Handler::Documented(handler) => handler().2,
            Handler::Deprecated(handler) | Handler::Page(handler) => handler(),
        }
    }
}

/// A router with all routes of the table.
pub fn router(gate: &Gate) -> Router<WebState> {
    ROUTES.iter().fold(Router::new(), |router, route| {
        let mut method_router = route.method_router();
        if route.needs.admission {
            method_router =
                method_router.route_layer(from_fn_with_state(gate.entrance(route.needs), admit));
        }
        router.route(route.path, method_router)
    })
}

/// The OpenAPI document of all routes that are documented.
pub fn document(base: OpenApi) -> OpenApi {
    let router = OpenApiRouter::with_openapi(base);
    let documented = ROUTES.iter().filter_map(|route| match route.handler {
        Handler::Documented(handler) => Some((route, handler())),
        Handler::Deprecated(_) | Handler::Page(_) => None,
    });
    let router = documented.fold(router, |router, (route, mut handler)| {
        for item in handler.1.paths.values_mut() {
            let operations = [
                &mut item.get,
                &mut item.post,
                &mut item.put,
                &mut item.patch,
                &mut item.delete,
            ];
            let operations = operations.into_iter().flatten();
            operations.for_each(|operation| add_needs(operation, route.needs));
        }
        router.routes(handler)
    });
    let mut document = router.into_openapi();
    openapi::name_inner_objects(&mut document);
    document
}

/// What the needs of a route add: error answers, and whether there must be a body.
fn add_needs(operation: &mut Operation, needs: Needs) {
    let of_body = match needs.body {
        Body::None => &[][..],
        Body::Json | Body::JsonIfAny | Body::Form | Body::Upload | Body::JsonOrForm => {
            &REQUEST_WITH_BODY
        }
    };
    let parameters = operation.parameters.get_or_insert_default();
    parameters.push(RefOr::T(request_id()));
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(match needs.body {
            Body::JsonIfAny => Required::False,
            Body::None | Body::Json | Body::Form | Body::Upload | Body::JsonOrForm => {
                Required::True
            }
        });
    }
    let of_admission = match needs.admission {
        true => &ADMITTED_REQUEST[..],
        false => &[],
    };
    for (status, description) in ANY_REQUEST.iter().chain(of_body).chain(of_admission) {
        let response = RefOr::T(problem_response(description));
        let responses = &mut operation.responses.responses;
        responses.entry((*status).to_owned()).or_insert(response);
    }
}

/// The header that names a request.
fn request_id() -> Parameter {
    ParameterBuilder::new()
        .name(REQUEST_ID.as_str())
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Names the request in the server's log, and comes back with the answer: 1 to 64 letters, digits, '-', '_' and '.'. Another is made up where it is left out or something else.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_row_says_the_method_and_address_of_its_handler() {
        for route in ROUTES {
            if let Handler::Documented(handler) = route.handler {
                let (_, paths, _) = handler();
                let found: Vec<&String> = paths.paths.keys().collect();
                assert_eq!(found, [route.path]);
                let operation = paths.get_path_operation(route.path, route.method.clone());
                assert!(operation.is_some(), "{}", route.path);
            }
        }
    }

    #[test]
    fn every_documented_route_is_in_the_document_under_a_name_of_its_own_and_nothing_else_is() {
        let document = document(openapi::base());
        let mut names = BTreeSet::new();
        for route in ROUTES {
            let paths = &document.paths;
            let operation = paths.get_path_operation(route.path, route.method.clone());
            assert_eq!(operation.is_some(), route.is_documented(), "{}", route.path);
            if let Some(operation) = operation {
                let name = operation.operation_id.clone().unwrap_or_default();
                assert!(names.insert(name.clone()), "{name} appears twice");
            }
        }
        let documented = ROUTES.iter().filter(|route| route.is_documented());
        let items = document.paths.paths.values();
        let operations = items.map(|item| {
            let all = [&item.get, &item.post, &item.put, &item.patch, &item.delete];
            let none = [&item.head, &item.options, &item.trace];
            assert!(none.into_iter().flatten().next().is_none());
            all.into_iter().flatten().count()
        });
        assert_eq!(operations.sum::<usize>(), documented.count());
    }

    #[test]
    fn what_changes_something_is_no_get_and_what_has_a_body_is_admitted() {
        for Route {
            method,
            path,
            needs,
            ..
        } in ROUTES
        {
            let reads = *method == Get;
            assert!(!reads || needs.access != Access::Write, "{path}");
            assert!(!reads || needs.body == Body::None, "{path}");
            assert!(needs.body == Body::None || needs.admission, "{path}");
            let only_writes = matches!(method, Put | Patch | Delete);
            assert!(!only_writes || needs.access == Access::Write, "{path}");
        }
    }

    #[test]
    fn the_document_says_which_bodies_a_route_takes() {
        let document = document(openapi::base());
        for route in ROUTES.iter().filter(|route| route.is_documented()) {
            let paths = &document.paths;
            let operation = paths.get_path_operation(route.path, route.method.clone());
            let body = operation.and_then(|operation| operation.request_body.as_ref());
            let kinds: Vec<&str> = body
                .map(|body| match body {
                    RefOr::T(body) => body.content.keys().map(String::as_str).collect(),
                    RefOr::Ref(_) => Vec::new(),
                })
                .unwrap_or_default();
            let expected: &[&str] = match route.needs.body {
                Body::None => &[],
                Body::Json | Body::JsonIfAny => &["application/json"],
                Body::Form | Body::Upload => &["multipart/form-data"],
                Body::JsonOrForm => &["application/json", "multipart/form-data"],
            };
            assert_eq!(kinds, expected, "{}", route.path);
        }
    }
}
