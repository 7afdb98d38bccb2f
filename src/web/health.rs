//! Whether the process lives, and whether it can answer.

use super::api::BackboneIdentity;
use super::problem::{ApiError, Problem};
use super::readiness::{CheckResult, Checks, Readiness, probe_milliseconds, summary};
use crate::app::App;
use crate::inference::EncoderInfo;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The process lives.
#[derive(Serialize, ToSchema)]
pub struct Alive {
    #[schema(example = "alive")]
    status: &'static str,
    /// Version of the program.
    version: &'static str,
}

/// Questions are answered; the checks say what else works.
#[derive(Serialize, ToSchema)]
pub struct Ready {
    /// `ready`, or `degraded` where something that changes or jobs need does not work.
    status: Readiness,
    backbone: BackboneIdentity,
    encoder: EncoderInfo,
    probe_milliseconds: f64,
    /// What was looked at within the last seconds.
    checks: Vec<CheckResult>,
}

/// Says that the process lives
#[utoipa::path(get, path = "/healthz", tag = "health", responses(
    (status = 200, description = "The process lives", body = Alive),
))]
pub async fn get_health() -> Json<Alive> {
    Json(Alive {
        status: "alive",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Says whether requests can be answered, which engine answers them, and what else works
///
/// Each check is made again when its result is 5 seconds old, and counts as failed where it takes longer than 5 seconds. A full disk, a locked database
/// or a stopped queue is `degraded`, with status 200, since questions are answered.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "Questions are answered", body = Ready),
    (status = 503, description = "The encoder or the default adapter does not answer; the detail says why",
        body = Problem, content_type = "application/problem+json"),
))]
pub async fn get_readiness(
    State(app): State<Arc<App>>,
    State(checks): State<Checks>,
) -> Result<Json<Ready>, ApiError> {
    let checks = checks.all().await;
    let (status, problems) = summary(&checks);
    if status == Readiness::NotReady {
        return Err(ApiError::NotReady(problems));
    }
    Ok(Json(Ready {
        status,
        backbone: BackboneIdentity::of(&app),
        encoder: app.encoder_info().clone(),
        probe_milliseconds: probe_milliseconds(&checks),
        checks,
    }))
}
