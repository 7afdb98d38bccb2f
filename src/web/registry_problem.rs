//! What a client is told of an error of the registry.

use super::problem::Words;
use crate::app::registry::RegistryError;
use crate::store::StoreError;
use axum::http::StatusCode;

/// Status, code and words of `error`.
pub(super) fn words(error: &RegistryError) -> Words {
    let detail = error.to_string();
    match error {
        RegistryError::Store(StoreError::UnknownAdapter { .. }) => Words::new(
            StatusCode::NOT_FOUND,
            "adapter_not_found",
            "There is no such adapter",
            detail,
        )
        .parameter("adapter")
        .hint("GET /api/v1/adapters lists what there is; adapter=none asks for the bare backbone"),
        RegistryError::Name(_) => Words::new(
            StatusCode::NOT_FOUND,
            "adapter_not_found",
            "There is no such adapter",
            format!("there is no such adapter: {detail}"),
        )
        .parameter("adapter")
        .hint("an adapter is named name, name:version or name@alias"),
        RegistryError::OtherBackbone { .. } => Words::new(
            StatusCode::CONFLICT,
            "adapter_for_other_backbone",
            "The adapter was made for another backbone",
            detail,
        )
        .parameter("adapter"),
        _ => Words::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The server failed",
            "the registry failed",
        ),
    }
}
