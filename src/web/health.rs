//! Whether the process lives, and whether it can answer.

use super::problem::{ApiError, Problem};
use crate::app::App;
use crate::inference::EncoderInfo;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::api::BackboneIdentity;

/// How long a result of the probe is trusted: probes often asked for must not take computing time from requests.
const TRUSTED: Duration = Duration::from_secs(10);

/// A probe waits in the queue like any request; past this the server counts as stuck.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the probe inference and remembers its result for a while.
#[derive(Clone)]
pub struct Readiness {
    app: Arc<App>,
    last: Arc<Mutex<Option<Probe>>>,
}

#[derive(Clone)]
struct Probe {
    finished: Instant,
    /// How long it took, or why it failed.
    result: Result<Duration, String>,
}

impl Readiness {
    pub fn new(app: Arc<App>) -> Self {
        Self {
            app,
            last: Arc::default(),
        }
    }

    /// How long the last probe took. Concurrent callers share one probe.
    async fn probe(&self) -> Result<Duration, ApiError> {
        let mut last = self.last.lock().await;
        let probe = match last.as_ref() {
            Some(probe) if probe.finished.elapsed() < TRUSTED => probe.clone(),
            _ => last.insert(self.run().await).clone(),
        };
        probe.result.map_err(ApiError::NotReady)
    }

    async fn run(&self) -> Probe {
        let started = Instant::now();
        let result = match tokio::time::timeout(PROBE_TIMEOUT, self.app.probe()).await {
            Ok(Ok(())) => Ok(started.elapsed()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer after {} s", PROBE_TIMEOUT.as_secs())),
        };
        if let Err(reason) = &result {
            tracing::error!(reason, "the probe inference failed");
        }
        Probe {
            finished: Instant::now(),
            result,
        }
    }
}

/// The process lives.
#[derive(Serialize, ToSchema)]
pub struct Alive {
    #[schema(example = "alive")]
    status: &'static str,
    /// Version of the program.
    version: &'static str,
}

/// A probe inference passed a moment ago.
#[derive(Serialize, ToSchema)]
pub struct Ready {
    #[schema(example = "ready")]
    status: &'static str,
    backbone: BackboneIdentity,
    encoder: EncoderInfo,
    probe_milliseconds: f64,
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

/// Says whether requests can be answered, and which engine answers them
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "A probe inference passed within the last seconds", body = Ready),
    (status = 503, description = "The probe inference failed; the detail says why",
        body = Problem, content_type = "application/problem+json"),
))]
pub async fn get_readiness(
    State(app): State<Arc<App>>,
    State(readiness): State<Readiness>,
) -> Result<Json<Ready>, ApiError> {
    let elapsed = readiness.probe().await?;
    Ok(Json(Ready {
        status: "ready",
        backbone: BackboneIdentity::of(&app),
        encoder: app.encoder_info().clone(),
        probe_milliseconds: elapsed.as_secs_f64() * 1e3,
    }))
}
