//! The OpenAPI document: its committed copy, and whether it describes recipes and routes as the program handles them.

use crate::test_app::TestApp;
use axum::body::Body;
use axum::http::{Method, Request};
use lora_recycle::web::{ROUTES, document};
use model::adapter::Adapter;
use model::backbone::embedded_config;
use recycle::inversion::InversionRecipe;
use recycle::meta_train::MetaTrainRecipe;
use recycle::over_preset::Recipe;
use recycle::recipe::RecipeError;
use recycle::tune::TuneRecipe;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use test_support::project;

#[test]
fn the_committed_document_is_that_of_the_program() {
    let made = serde_json::to_string_pretty(document()).unwrap() + "\n";
    let path = project("docs/openapi.json");
    if std::env::var_os("LORA_RECYCLE_REWRITE").is_some() {
        fs::write(path, made).unwrap();
        return;
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == made,
        "docs/openapi.json is not what the program serves; write it again with\n  \
         LORA_RECYCLE_REWRITE=1 cargo test --test it openapi::the_committed_document_is_that_of_the_program"
    );
}

fn method(name: &str) -> Method {
    name.parse().unwrap()
}

#[tokio::test]
async fn nothing_is_served_that_does_not_stand_in_the_table_of_routes() {
    let app = TestApp::new();
    let send = async |method: &Method, path: &str| {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json");
        app.send(request.body(Body::empty()).unwrap()).await.status
    };
    let listed: BTreeSet<(String, &str)> = ROUTES
        .iter()
        .map(|route| {
            let method = serde_json::to_value(&route.method).unwrap();
            (method.as_str().unwrap().to_uppercase(), route.path)
        })
        .collect();
    let paths: BTreeSet<&str> = listed.iter().map(|(_, path)| *path).collect();
    for path in paths {
        // A name in the place of each parameter.
        let address: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for name in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let status = send(&method(name), &address).await.as_u16();
            let is_listed = listed.contains(&(name.to_owned(), path));
            assert_eq!(status != 405, is_listed, "{name} {path}: {status}");
        }
    }
    for path in [
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/job",
        "/api/v1/jobs/",
        "/api/v2/jobs",
        "/admin",
        "/healthz/",
        "/metrics",
    ] {
        assert_eq!(send(&Method::GET, path).await.as_u16(), 404, "{path}");
    }
}

fn schema<'a>(root: &'a Value, name: &str) -> &'a Map<String, Value> {
    let schema = &root["components"]["schemas"][name];
    schema["properties"].as_object().expect(name)
}

/// The recipe with `value` as its field `name`; what is wrong with it in the end.
fn problem<R: Recipe>(
    name: &str,
    value: Value,
    validate: impl Fn(&R) -> Result<(), RecipeError>,
) -> String {
    let read = R::from_json(&json!({ name: value }));
    let checked = read.and_then(|recipe| validate(&recipe));
    checked
        .err()
        .map_or_else(String::new, |error| error.to_string())
}

/// Every limit of a number that the document names is the one that is checked.
fn check_limits<R: Recipe>(name: &str, validate: impl Fn(&R) -> Result<(), RecipeError>) {
    let root = serde_json::to_value(document()).unwrap();
    let request = format!("{name}Request");
    let fields = schema(&root, name);
    let of_request = schema(&root, &request);
    let written = serde_json::to_value(R::default()).unwrap();
    let mut checked = 0;
    for (field, limits) in fields {
        let whole = limits["type"] == "integer" || limits["type"][0] == "integer";
        let step = |by: f64| if whole { by.signum() } else { by };
        let outside = [
            ("minimum", step(-0.001)),
            ("maximum", step(0.001)),
            ("exclusiveMinimum", 0.0),
            ("exclusiveMaximum", 0.0),
        ];
        for (limit, by) in outside {
            let Some(bound) = limits[limit].as_f64() else {
                continue;
            };
            let number = |value: f64| {
                if whole {
                    json!(value as i64)
                } else {
                    json!(value)
                }
            };
            let refused = problem(field, number(bound + by), &validate);
            assert!(
                refused.contains(field.as_str()) || refused.contains("invalid value"),
                "{name}.{field} {limit}: {refused}"
            );
            if !limit.starts_with("exclusive") {
                let allowed = problem(field, number(bound), &validate);
                let says = allowed.contains(&format!("{field} is {bound}; it must lie"));
                assert!(!says, "{name}.{field}: {allowed}");
            }
            checked += 1;
        }
        // What a request may leave out has the default that stands there.
        assert!(of_request.contains_key(field), "{request} has no {field}");
        if let Some(default) = of_request[field].get("default") {
            assert_eq!(*default, written[field], "{request}.{field}");
        }
    }
    assert!(checked >= 10, "{name}: {checked}");
    let presets = of_request["preset"]["enum"].as_array().unwrap();
    assert_eq!(presets.len(), R::presets().len());
    assert!(
        root["components"]["schemas"][request]
            .get("required")
            .is_none()
    );
}

#[test]
fn recipes_stand_in_the_document_with_their_defaults_and_the_limits_that_are_checked() {
    let config = embedded_config().unwrap();
    check_limits("TuneRecipe", |recipe: &TuneRecipe| recipe.validate(&config));
    check_limits("MetaTrainRecipe", |recipe: &MetaTrainRecipe| {
        recipe.validate(&config)
    });
    check_limits("InversionRecipe", |recipe: &InversionRecipe| {
        recipe.validate(&config, &Adapter::default()).map(drop)
    });
}
