//! The resources of the REST interface, one module each.

mod adapters;
mod backbones;
mod classify;
mod embed;
mod images;
mod parameters;
mod schemas;

pub use backbones::BackboneIdentity;

use super::{ApiError, WebState};
use utoipa_axum::router::OpenApiRouter;

/// Everything below `/api/v1`.
pub fn router() -> OpenApiRouter<WebState> {
    OpenApiRouter::default()
        .merge(classify::router())
        .merge(embed::router())
        .merge(backbones::router())
        .merge(adapters::router())
}

/// There is no registry of adapters yet: whoever names one must not get the bare backbone's answer.
fn refuse_adapter(adapter: Option<String>) -> Result<(), ApiError> {
    adapter.map_or(Ok(()), |_| {
        Err(ApiError::Registry(
            crate::app::registry::RegistryError::Absent,
        ))
    })
}
