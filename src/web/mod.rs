//! HTTP: the REST interface, the page, health, the OpenAPI document, and the rules that hold for every request.
//! Knows `App` and the queue of jobs; knows no model, no image format and no SQL. All routes are in one table, `routes.rs`.

pub mod api;
mod classifier_problem;
mod connections;
mod envelope;
mod explanation;
mod guard;
mod health;
mod limits;
mod needs;
mod openapi;
mod paced_body;
mod pages;
mod problem;
mod readiness;
mod registry_problem;
mod repeated;
mod routes;
mod server;

pub use api::classifiers::export::ClassifierFormat;
pub use api::{Job, StartedJobs};
pub use connections::ConnectionLimits;
pub use guard::AllowedHosts;
pub use limits::WebLimits;
pub use needs::{Access, Body, Needs};
pub use paced_body::Pace;
pub use problem::{ApiError, Problem};
pub use routes::{ROUTES, Route};
pub use server::{ServeError, ServeOptions, serve};

use crate::app::App;
use crate::jobs::Jobs;
use axum::Router;
use axum::extract::FromRef;
use limits::Gate;
use readiness::Checks;
use std::sync::{Arc, LazyLock};
use utoipa::openapi::OpenApi;

/// What handlers share; clones are cheap.
#[derive(Clone, FromRef)]
pub struct WebState {
    app: Arc<App>,
    gate: Gate,
    checks: Checks,
    jobs: Option<Jobs>,
    document: Arc<OpenApi>,
    #[from_ref(skip)]
    hosts: AllowedHosts,
}

impl WebState {
    /// The state of a server that answers from `app` and has no queue of jobs.
    pub fn new(app: Arc<App>, limits: WebLimits, hosts: AllowedHosts) -> Self {
        Self {
            checks: Checks::new(Arc::clone(&app)),
            app,
            gate: Gate::new(limits),
            jobs: None,
            document: Arc::clone(&DOCUMENT),
            hosts,
        }
    }

    /// Gives the server a queue of jobs; whether they are run is decided elsewhere.
    pub fn with_jobs(mut self, jobs: Jobs) -> Self {
        self.checks = self.checks.with_jobs(jobs.clone());
        self.jobs = Some(jobs);
        self
    }
}

static DOCUMENT: LazyLock<Arc<OpenApi>> =
    LazyLock::new(|| Arc::new(routes::document(openapi::base())));

/// The OpenAPI document of the REST interface.
pub fn document() -> &'static OpenApi {
    &DOCUMENT
}

/// Everything that is served, with the rules that hold for every request.
pub fn router(state: WebState) -> Router {
    let routes = routes::router(&state.gate)
        .fallback(pages::unknown_address)
        .method_not_allowed_fallback(problem::method_not_allowed);
    let max_body_bytes = state.gate.limits.max_body_bytes;
    envelope::wrap(routes, state.hosts.clone(), max_body_bytes).with_state(state)
}
