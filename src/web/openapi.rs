//! The OpenAPI document and the page that shows it. Both come from the binary; nothing is fetched from elsewhere.

use super::ApiError;
use super::problem::Problem;
use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use std::sync::{Arc, LazyLock};
use utoipa::OpenApi;
use utoipa::openapi::schema::{Object, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa_swagger_ui::{Config, serve};

const DOCUMENT: &str = "/api/openapi.json";
const DOCUMENTATION: &str = "/api/docs/";

static DOCS_CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from(DOCUMENT)
        // The default sends the address of the document to a public validator.
        .validator_url("none")
        .try_it_out_enabled(true);
    Arc::new(config)
});

/// Swagger UI writes style attributes and shows pictures from data URIs; it still loads nothing from elsewhere.
const DOCS_CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "LoRA Recycle",
        description = "Few-shot image classification without tuning. Errors are problems (RFC 9457) with a stable `code`."
    ),
    tags(
        (name = "classification", description = "Images in, answers out; nothing is stored"),
        (name = "backbones", description = "The models that look at the images"),
        (name = "adapters", description = "The registry of LoRA adapters: versions, aliases, merges and disk space"),
        (name = "classifiers", description = "Classifiers that stay: classes with their pictures, changes that can be undone, answers"),
        (name = "jobs", description = "Work in the background: tuning adapters, inverting them into synthetic images, recycling them into one"),
        (name = "pools", description = "Synthetic images of adapters"),
        (name = "health", description = "Whether the server lives and can answer"),
    ),
    components(schemas(Problem))
)]
struct Base;

/// The document without its routes.
pub fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// Gives a name to each object inside a variant of an enum, as `Start` and `merge` become `StartMerge`: generators of
/// clients make types of objects with names.
pub fn name_inner_objects(document: &mut utoipa::openapi::OpenApi) {
    let Some(components) = &mut document.components else {
        return;
    };
    let mut named = Vec::new();
    for (name, schema) in &mut components.schemas {
        let RefOr::T(Schema::OneOf(choice)) = schema else {
            continue;
        };
        for variant in &mut choice.items {
            let RefOr::T(Schema::Object(variant)) = variant else {
                continue;
            };
            for (field, inner) in &mut variant.properties {
                let is_object = |object: &Object| !object.properties.is_empty();
                if matches!(inner, RefOr::T(Schema::Object(object)) if is_object(object)) {
                    let words = field.split('_').map(capitalised);
                    let own_name = format!("{name}{}", words.collect::<String>());
                    let reference = Ref::from_schema_name(&own_name).into();
                    named.push((own_name, std::mem::replace(inner, reference)));
                }
            }
        }
    }
    components.schemas.extend(named);
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

pub async fn document_as_json(
    State(document): State<Arc<utoipa::openapi::OpenApi>>,
) -> Json<utoipa::openapi::OpenApi> {
    Json(document.as_ref().clone())
}

/// The page that shows the document has its files below an address with a slash.
pub async fn to_documentation() -> Redirect {
    Redirect::to(DOCUMENTATION)
}

/// The page that shows the document, and its files.
pub async fn documentation(OriginalUri(address): OriginalUri) -> Result<Response, ApiError> {
    let file = address
        .path()
        .strip_prefix(DOCUMENTATION)
        .unwrap_or_default();
    match serve(file, Arc::clone(&DOCS_CONFIG)) {
        Ok(Some(file)) => {
            let encoding = file
                .gzpipped
                .then_some([(header::CONTENT_ENCODING, "gzip")]);
            let headers = [
                (header::CONTENT_TYPE, file.content_type),
                (
                    header::CONTENT_SECURITY_POLICY,
                    DOCS_CONTENT_SECURITY_POLICY.to_owned(),
                ),
            ];
            Ok((headers, encoding, file.bytes.into_owned()).into_response())
        }
        Ok(None) => Err(ApiError::UnknownRoute),
        Err(error) => Err(ApiError::Internal(error.to_string())),
    }
}
