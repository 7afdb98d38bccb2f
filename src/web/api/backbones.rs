//! The backbones that this server answers with.

use crate::app::App;

use axum::Json;
use axum::extract::State;
use model::backbone::{Backbone, Pooling};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Which backbone gave an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BackboneIdentity {
    /// What it is called here.
    #[schema(example = "dinov2-s8")]
    pub name: String,
    /// SHA-256 over its tensors, lower-case hexadecimal.
    pub digest: String,
}

impl BackboneIdentity {
    /// The backbone that `app` answers with.
    pub fn of(app: &App) -> Self {
        Self {
            name: app.backbone_name.clone(),
            digest: app.backbone.digest.clone(),
        }
    }
}

/// A backbone and its measures.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackboneDescription {
    #[serde(flatten)]
    pub identity: BackboneIdentity,
    #[schema(example = "dinov2")]
    pub architecture: &'static str,
    /// Width of a token.
    pub width: usize,
    pub layers: usize,
    /// Side in pixels of the square image that it sees.
    pub image_size: usize,
    pub feature_width: usize,
    #[schema(value_type = String, example = "cls_mean")]
    pub pooling: Pooling,
    /// Number of weights.
    pub parameters: usize,
    /// Whether requests that name no backbone are answered with it.
    pub default: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BackboneList {
    pub backbones: Vec<BackboneDescription>,
}

/// Lists the backbones that this server answers with
#[utoipa::path(get, path = "/api/v1/backbones", tag = "backbones", responses(
    (status = 200, description = "The default first", body = BackboneList),
))]
pub(in crate::web) async fn list_backbones(State(app): State<Arc<App>>) -> Json<BackboneList> {
    Json(BackboneList {
        backbones: vec![describe(&app)],
    })
}

fn describe(app: &App) -> BackboneDescription {
    let Backbone {
        config, weights, ..
    } = app.backbone.as_ref();
    BackboneDescription {
        identity: BackboneIdentity::of(app),
        architecture: config.architecture.name(),
        width: config.width,
        layers: config.layers,
        image_size: app.backbone.image_size(),
        feature_width: config.feature_width(),
        pooling: config.pooling,
        parameters: weights.parameter_count(),
        default: true,
    }
}
