//! Merging stored adapters.

use super::import::created;
use super::schema::Adapter;
use super::{RegistryProblems, json_body, name};
use crate::app::registry::MergePart;
use crate::app::{App, AppError};
use crate::web::ApiError;
use crate::web::limits::Admission;
use axum::extract::{Request, State};
use axum::response::Response;
use model::adapter::{MajoritySign, MergeOptions, Merging};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Most adapters of one merge; all are in memory together.
const MOST_ADAPTERS: usize = 1_000;

/// What to merge, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeRequest {
    /// Name of the result; it becomes the next version.
    name: String,
    adapters: Vec<MergeRequestPart>,
    method: Merging,
    /// What the merged change is multiplied with.
    #[serde(default = "one", alias = "factor")] // old spelling
    scale: f32,
    /// Share of values that methods with TIES and `peft-dare-linear` keep, above 0 and at most 1.
    density: Option<f64>,
    /// Rank of the result; `average` and PEFT's methods but `peft-svd` take none.
    rank: Option<usize>,
    #[serde(default)]
    majority_sign: MajoritySign,
    /// Seed of `peft-dare-linear`'s choice.
    #[serde(default)]
    seed: u64,
}

fn one() -> f32 {
    1.0
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeRequestPart {
    /// name, name:version, name@alias or id
    adapter: String,
    /// What its change is multiplied with; where it is not given, 1/n of n adapters for `average` and PEFT's methods, and 1 for the others.
    weight: Option<f32>,
}

/// The merged adapter and notes on it.
#[derive(Serialize, ToSchema)]
pub struct MergeAnswer {
    adapter: Adapter,
    /// One sentence each.
    notes: Vec<String>,
}

/// Merges adapters of one backbone into a new one, which remembers them
#[utoipa::path(post, path = "/api/v1/adapters/merge", tag = "adapters", request_body = MergeRequest,
    responses((status = 201, description = "It is stored; Location has its address", body = MergeAnswer), RegistryProblems))]
pub(in crate::web) async fn merge_adapters(
    State(app): State<Arc<App>>,
    admission: Admission,
    request: Request,
) -> Result<Response, ApiError> {
    let body: MergeRequest = json_body(&admission, request).await?;
    let result_name = name("name", &body.name)?;
    if body.adapters.len() > MOST_ADAPTERS {
        return Err(ApiError::TooMany {
            parameter: "adapters",
            what: "adapters",
            found: body.adapters.len(),
            limit: MOST_ADAPTERS,
        });
    }
    let options = MergeOptions {
        scale: body.scale,
        rank: body.rank,
        density: body.density,
        majority_sign: body.majority_sign,
        seed: body.seed,
        ..MergeOptions::new(body.method)
    };
    let parts: Vec<MergePart> = body
        .adapters
        .into_iter()
        .map(|part| MergePart {
            reference: part.adapter,
            weight: part.weight,
        })
        .collect();
    let registry = app.registry()?;
    let work = async { Ok::<_, AppError>(registry.merge(&parts, options, result_name).await?) };
    let merged = admission.answer(work).await?;
    Ok(created(
        merged.record.id,
        &MergeAnswer {
            adapter: merged.record.into(),
            notes: merged.notes,
        },
    ))
}
