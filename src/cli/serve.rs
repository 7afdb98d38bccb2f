//! `serve`: the page and the REST interface.

use super::CliError;
use super::jobs::{RunnerArguments, check_device};
use super::options::{Common, block_on};
use crate::jobs::{Jobs, Services, product_kinds};
use crate::web::{self, ServeError, ServeOptions};
use clap::Args;
use std::sync::Arc;

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
        let options = ServeOptions {
            listen: self.listen.clone(),
            allowed_hosts: self.allowed_hosts.clone(),
            run_jobs: !self.no_jobs,
            ..ServeOptions::default()
        };
        web::serve(app, jobs, options, |address| {
            eprintln!("listening on http://{address}");
        })
        .await
        .map_err(|error| match error {
            ServeError::Listen { .. } => CliError::user(error.to_string()).hint(
                "choose another --listen ADDRESS:PORT, or stop the program that uses this one",
            ),
            ServeError::Signals(_) | ServeError::Serve(_) => CliError::internal(error.to_string()),
        })
    }
}
