//! Names that move: aliases of an adapter, and the default adapter of a backbone.

use super::{RegistryProblems, attribution, json_body, name, optional_json_body};
use crate::app::App;
use crate::app::registry::Registry;
use crate::web::ApiError;
use crate::web::api::BackboneIdentity;
use crate::web::api::parameters::Path;
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{AliasKey, AliasMove, PointedAdapter};
use utoipa::ToSchema;

/// An alias and where it points.
#[derive(Serialize, ToSchema)]
pub struct Alias {
    /// `name@alias`, or `default` for the default adapter of `backbone`.
    #[schema(example = "meta@best")]
    alias: String,
    /// Only for a default.
    backbone: Option<BackboneIdentity>,
    adapter: PointedAdapter,
}

#[derive(Serialize, ToSchema)]
pub struct AliasList {
    aliases: Vec<Alias>,
}

/// Where an alias is to point.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasTarget {
    /// name, name:version, name@alias or id
    adapter: String,
    /// Kept in the history.
    reason: Option<String>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// Kept in the history.
    reason: Option<String>,
}

/// What was done.
#[derive(Serialize, ToSchema)]
pub struct Moved {
    /// Null where the alias pointed there already.
    #[serde(rename = "move")]
    moved: Option<AliasMove>,
}

/// Newest first.
#[derive(Serialize, ToSchema)]
pub struct AliasHistory {
    moves: Vec<AliasMove>,
}

/// Lists all aliases and defaults
#[utoipa::path(get, path = "/api/v1/adapter-aliases", tag = "adapters", responses(
    (status = 200, description = "Where each points", body = AliasList), RegistryProblems))]
pub(in crate::web) async fn list_aliases(
    State(app): State<Arc<App>>,
) -> Result<Json<AliasList>, ApiError> {
    let store = app.registry()?.store();
    let mut aliases = Vec::new();
    for (key, adapter) in store.list_aliases().await? {
        aliases.push(match key {
            AliasKey::Alias { .. } => Alias {
                alias: key.to_string(),
                backbone: None,
                adapter,
            },
            AliasKey::BackboneDefault(digest) => {
                let backbone = store.backbone_by_digest(&digest).await;
                Alias {
                    alias: "default".into(),
                    backbone: Some(BackboneIdentity {
                        name: backbone?.name.into(),
                        digest: digest.into(),
                    }),
                    adapter,
                }
            }
        });
    }
    Ok(Json(AliasList { aliases }))
}

/// Lets an alias point at a version of its adapter
#[utoipa::path(put, path = "/api/v1/adapters/{name}/aliases/{alias}", tag = "adapters", request_body = AliasTarget,
    params(("name" = String, Path, description = "Name of the adapter"), ("alias" = String, Path, description = "The alias")),
    responses((status = 200, description = "It points there", body = Moved), RegistryProblems))]
pub(in crate::web) async fn set_alias(
    State(app): State<Arc<App>>,
    Path(path): Path<(String, String)>,
    admission: Admission,
    request: Request,
) -> Result<Json<Moved>, ApiError> {
    let key = alias_key(&path)?;
    set(&app, &key, &admission, request).await
}

/// Removes an alias; its history stays
#[utoipa::path(delete, path = "/api/v1/adapters/{name}/aliases/{alias}", tag = "adapters",
    params(("name" = String, Path, description = "Name of the adapter"), ("alias" = String, Path, description = "The alias")),
    responses((status = 200, description = "It is gone", body = Moved), RegistryProblems))]
pub(in crate::web) async fn remove_alias(
    State(app): State<Arc<App>>,
    Path(path): Path<(String, String)>,
) -> Result<Json<Moved>, ApiError> {
    remove(app.registry()?, &alias_key(&path)?).await
}

/// Lists where an alias pointed
#[utoipa::path(get, path = "/api/v1/adapters/{name}/aliases/{alias}/history", tag = "adapters",
    params(("name" = String, Path, description = "Name of the adapter"), ("alias" = String, Path, description = "The alias")),
    responses((status = 200, description = "All moves, newest first", body = AliasHistory), RegistryProblems))]
pub(in crate::web) async fn list_alias_moves(
    State(app): State<Arc<App>>,
    Path(path): Path<(String, String)>,
) -> Result<Json<AliasHistory>, ApiError> {
    history(app.registry()?, &alias_key(&path)?).await
}

/// Takes back the last move of an alias
#[utoipa::path(post, path = "/api/v1/adapters/{name}/aliases/{alias}/rollback", tag = "adapters", request_body = RollBack,
    params(("name" = String, Path, description = "Name of the adapter"), ("alias" = String, Path, description = "The alias")),
    responses((status = 200, description = "It points where it did before", body = Moved), RegistryProblems))]
pub(in crate::web) async fn roll_back_alias(
    State(app): State<Arc<App>>,
    Path(path): Path<(String, String)>,
    admission: Admission,
    request: Request,
) -> Result<Json<Moved>, ApiError> {
    let key = alias_key(&path)?;
    let body = optional_json_body(&admission, request).await?;
    roll_back(app.registry()?, &key, body).await
}

/// Sets the adapter that a backbone uses where none is named
#[utoipa::path(put, path = "/api/v1/backbones/{backbone}/default-adapter", tag = "adapters", request_body = AliasTarget,
    params(("backbone" = String, Path, description = "Name of the backbone")),
    responses((status = 200, description = "It is the default", body = Moved), RegistryProblems))]
pub(in crate::web) async fn set_default_adapter(
    State(app): State<Arc<App>>,
    Path(backbone): Path<String>,
    admission: Admission,
    request: Request,
) -> Result<Json<Moved>, ApiError> {
    let key = default_key(app.registry()?, &backbone).await?;
    set(&app, &key, &admission, request).await
}

/// Lets the bare backbone answer again where no adapter is named
#[utoipa::path(delete, path = "/api/v1/backbones/{backbone}/default-adapter", tag = "adapters",
    params(("backbone" = String, Path, description = "Name of the backbone")),
    responses((status = 200, description = "There is no default any more", body = Moved), RegistryProblems))]
pub(in crate::web) async fn remove_default_adapter(
    State(app): State<Arc<App>>,
    Path(backbone): Path<String>,
) -> Result<Json<Moved>, ApiError> {
    let registry = app.registry()?;
    remove(registry, &default_key(registry, &backbone).await?).await
}

/// Lists which adapters were the default
#[utoipa::path(get, path = "/api/v1/backbones/{backbone}/default-adapter/history", tag = "adapters",
    params(("backbone" = String, Path, description = "Name of the backbone")),
    responses((status = 200, description = "All moves, newest first", body = AliasHistory), RegistryProblems))]
pub(in crate::web) async fn list_default_adapter_moves(
    State(app): State<Arc<App>>,
    Path(backbone): Path<String>,
) -> Result<Json<AliasHistory>, ApiError> {
    let registry = app.registry()?;
    history(registry, &default_key(registry, &backbone).await?).await
}

/// Takes back the last change of the default adapter
#[utoipa::path(post, path = "/api/v1/backbones/{backbone}/default-adapter/rollback", tag = "adapters", request_body = RollBack,
    params(("backbone" = String, Path, description = "Name of the backbone")),
    responses((status = 200, description = "The default is what it was before", body = Moved), RegistryProblems))]
pub(in crate::web) async fn roll_back_default_adapter(
    State(app): State<Arc<App>>,
    Path(backbone): Path<String>,
    admission: Admission,
    request: Request,
) -> Result<Json<Moved>, ApiError> {
    let key = default_key(app.registry()?, &backbone).await?;
    let body = optional_json_body(&admission, request).await?;
    roll_back(app.registry()?, &key, body).await
}

fn alias_key((adapter, alias): &(String, String)) -> Result<AliasKey, ApiError> {
    Ok(AliasKey::Alias {
        adapter: name("name", adapter)?,
        alias: name("alias", alias)?,
    })
}

async fn default_key(registry: &Registry, backbone: &str) -> Result<AliasKey, ApiError> {
    let backbone = registry
        .store()
        .backbone(&name("backbone", backbone)?)
        .await?;
    Ok(AliasKey::BackboneDefault(backbone.digest))
}

async fn set(
    app: &App,
    key: &AliasKey,
    admission: &Admission,
    request: Request,
) -> Result<Json<Moved>, ApiError> {
    let target: AliasTarget = json_body(admission, request).await?;
    let registry = app.registry()?;
    let adapter = registry.resolve(&target.adapter).await?;
    let by = attribution(target.reason)?;
    admission.answer(app.check_adapter(&adapter)).await?;
    let moved = registry.store().move_alias(key, adapter.id, &by).await;
    Ok(Json(Moved { moved: moved? }))
}

async fn remove(registry: &Registry, key: &AliasKey) -> Result<Json<Moved>, ApiError> {
    let moved = registry
        .store()
        .remove_alias(key, &attribution(None)?)
        .await;
    Ok(Json(Moved {
        moved: Some(moved?),
    }))
}

async fn history(registry: &Registry, key: &AliasKey) -> Result<Json<AliasHistory>, ApiError> {
    let moves = registry.store().alias_history(key).await;
    Ok(Json(AliasHistory { moves: moves? }))
}

async fn roll_back(
    registry: &Registry,
    key: &AliasKey,
    body: RollBack,
) -> Result<Json<Moved>, ApiError> {
    let by = attribution(body.reason)?;
    let moved = registry.store().roll_back_alias(key, &by).await;
    Ok(Json(Moved {
        moved: Some(moved?),
    }))
}
