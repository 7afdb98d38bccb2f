//! The OpenAPI document and the page that shows it. Both come from the binary; nothing is fetched from elsewhere.

use super::WebState;
use axum::http::{HeaderValue, header};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

const DOCUMENT: &str = "/api/openapi.json";

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
        (name = "jobs", description = "Work in the background: tuning adapters, inverting them into synthetic images, recycling them into one"),
        (name = "pools", description = "Synthetic images of adapters"),
        (name = "health", description = "Whether the server lives and can answer"),
    )
)]
struct Base;

/// The document without its routes.
pub fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// Serves `document` and its page.
pub fn router(document: utoipa::openapi::OpenApi) -> Router<WebState> {
    let document = Arc::new(document);
    let docs: Router<WebState> = SwaggerUi::new("/api/docs")
        .config(
            Config::from(DOCUMENT)
                // The default sends the address of the document to a public validator.
                .validator_url("none")
                .try_it_out_enabled(true),
        )
        .into();
    let policy = HeaderValue::from_static(DOCS_CONTENT_SECURITY_POLICY);
    docs.layer(SetResponseHeaderLayer::overriding(
        header::CONTENT_SECURITY_POLICY,
        policy,
    ))
    .route(
        DOCUMENT,
        get(move || async move { Json(document.as_ref().clone()) }),
    )
}
