//! `serve`: the page and the REST interface.

use super::CliError;
use super::jobs::{RunnerArguments, check_device};
use super::options::{Common, block_on};
use crate::jobs::{Jobs, Services, product_kinds};
use crate::web::{self, ConnectionLimits, ServeError, ServeOptions, WebLimits};
use clap::Args;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle serve
  lora-recycle serve --listen 127.0.0.1:9000 --data-dir /srv/lora-recycle
  lora-recycle serve --listen 0.0.0.0:8080    reachable from other machines: put a proxy with a login in front")]
pub struct Serve {
    /// Address and port; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "LORA_RECYCLE_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    listen: String,
    /// Host name that the server answers for besides this machine's own, e.g. behind a proxy; may be given several times
    #[arg(
        long = "allowed-host",
        value_name = "NAME",
        env = "LORA_RECYCLE_ALLOWED_HOSTS",
        value_delimiter = ','
    )]
    allowed_hosts: Vec<String>,
    /// Most connections at a time; one more closes the one that has been silent for longest [default: what the system's limit of
    /// open files leaves]
    #[arg(long, value_name = "NUMBER", env = "LORA_RECYCLE_MAX_CONNECTIONS")]
    max_connections: Option<NonZeroUsize>,
    /// Seconds in which the headers of a request must come, also between two requests
    #[arg(long, value_name = "SECONDS", env = "LORA_RECYCLE_HEADER_TIMEOUT_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    header_timeout_seconds: u64,
    /// Seconds in which a client must take some of its answer
    #[arg(long, value_name = "SECONDS", env = "LORA_RECYCLE_WRITE_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    write_timeout_seconds: u64,
    /// Seconds before a body that comes with less than 1 KiB a second is refused
    #[arg(long, value_name = "SECONDS", env = "LORA_RECYCLE_BODY_GRACE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    body_grace_seconds: u64,
    /// Seconds that requests and the running job have to finish in after SIGTERM or Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        env = "LORA_RECYCLE_SHUTDOWN_TIMEOUT_SECONDS",
        default_value_t = 4
    )]
    shutdown_timeout_seconds: u64,
    #[command(flatten)]
    runner: RunnerArguments,
    /// Queue jobs, but run none
    #[arg(long, env = "LORA_RECYCLE_NO_JOBS")]
    no_jobs: bool,
}

impl Serve {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        block_on(self.serve(common))?
    }

    async fn serve(&self, common: &Common) -> Result<(), CliError> {
        let registry = common.open_registry().await??;
        let app = Arc::new(common.open_app_with(registry.clone()).await?);
        let services = Services::new(registry, Some(Arc::clone(&app.backbone)));
        let services = services.answering(Arc::clone(&app));
        let jobs = Jobs::new(services, product_kinds(), self.runner.options(common));
        check_device(&jobs)?;
        let info = app.encoder_info();
        eprintln!(
            "{} with {info} ({} threads)",
            app.backbone_name, info.threads
        );
        let mut limits = WebLimits::default();
        limits.body_pace.grace = Duration::from_secs(self.body_grace_seconds);
        let options = ServeOptions {
            listen: self.listen.clone(),
            allowed_hosts: self.allowed_hosts.clone(),
            run_jobs: !self.no_jobs,
            limits,
            connections: ConnectionLimits {
                max_connections: self.max_connections.map_or(0, NonZeroUsize::get),
                header_timeout: Duration::from_secs(self.header_timeout_seconds),
                write_timeout: Duration::from_secs(self.write_timeout_seconds),
                ..ConnectionLimits::default()
            },
            shutdown_timeout: Duration::from_secs(self.shutdown_timeout_seconds),
        };
        web::serve(app, jobs, options, |address| {
            eprintln!("listening on http://{address}");
        })
        .await
        .map_err(|error| match error {
            ServeError::Listen { .. } => CliError::user(error.to_string()).hint(
                "choose another --listen ADDRESS:PORT, or stop the program that uses this one",
            ),
            ServeError::Signals(_) => CliError::internal(error.to_string()),
        })
    }
}
