//! Listening, and stopping in good order.

use super::{AllowedHosts, ConnectionLimits, WebLimits, WebState, connections, router};
use crate::app::App;
use crate::jobs::Jobs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Address and port, e.g. `127.0.0.1:8080`; port 0 takes a free one.
    pub listen: String,
    /// Host names that the server answers for besides those of this machine. Matters on a loopback address only, e.g.
    /// behind a proxy; on other addresses the server answers for every name.
    pub allowed_hosts: Vec<String>,
    /// Of requests.
    pub limits: WebLimits,
    /// Of connections.
    pub connections: ConnectionLimits,
    /// Time that requests and the running job have to finish in once the server is told to stop.
    pub shutdown_timeout: Duration,
    /// Whether queued jobs are run.
    pub run_jobs: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            allowed_hosts: Vec::new(),
            limits: WebLimits::default(),
            connections: ConnectionLimits::default(),
            shutdown_timeout: Duration::from_secs(4),
            run_jobs: true,
        }
    }
}

/// How often it is written when adapters and classifiers were last used.
const USES_WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// Why the server could not start or had to stop.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum ServeError {
    #[error("{listen} cannot be listened on: {cause}")]
    Listen {
        listen: String,
        cause: std::io::Error,
    },
    #[error("signals to stop cannot be received: {0}")]
    Signals(std::io::Error),
}

/// Serves `app` and runs `jobs` until SIGINT or SIGTERM; `listening` is told the address once connections are accepted.
///
/// # Errors
/// [`ServeError`] where the address is taken or wrong, or the system takes the socket away.
pub async fn serve(
    app: Arc<App>,
    jobs: Jobs,
    options: ServeOptions,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let listen_error = |cause| ServeError::Listen {
        listen: options.listen.clone(),
        cause,
    };
    let mut stop = StopSignals::new().map_err(ServeError::Signals)?;
    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let hosts = if address.ip().is_loopback() {
        AllowedHosts::loopback_and(&options.allowed_hosts)
    } else {
        AllowedHosts::any()
    };
    let state = WebState::new(Arc::clone(&app), options.limits, hosts).with_jobs(jobs.clone());
    let (stopping, mut stopped) = watch::channel(false);
    let to_stop = jobs.clone();
    let stop = async move {
        stop.wait().await;
        tracing::info!("stopping: requests that run may finish, new ones are refused");
        to_stop.stop();
        stopping.send_replace(true);
        // A second signal ends everything at once.
        tokio::spawn(async move {
            stop.wait().await;
            tracing::warn!("stopped at once by a second signal");
            std::process::exit(1);
        });
    };
    let server = connections::serve(listener, router(state), options.connections, stop);
    // Commands beside the server then cannot change jobs; that must not stop a start, for example on a full disk.
    if let Err(error) = jobs.store().announce_server(address) {
        tracing::warn!(%error, "the server's address could not be written to the data folder");
    }
    let running = jobs.clone();
    let runner = options
        .run_jobs
        .then(|| tokio::spawn(async move { running.run().await }));
    listening(address);
    let too_late = async {
        // The sender lives as long as the server.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(options.shutdown_timeout).await;
    };
    let mut too_late = std::pin::pin!(too_late);
    tokio::select! {
        () = server => {}
        () = &mut too_late => tracing::warn!("requests that did not finish in time were dropped"),
        () = write_uses_now_and_then(&app) => {}
    }
    write_uses(&app).await;
    jobs.stop();
    if let Some(mut runner) = runner {
        tokio::select! {
            _ = &mut runner => {}
            () = too_late => tracing::warn!("the running job did not stop in time; it resumes from its last checkpoint"),
        }
    }
    if let Err(error) = jobs.store().withdraw_server() {
        tracing::warn!(%error, "the server's address could not be withdrawn");
    }
    Ok(())
}

/// Writes when adapters and classifiers were last used, as long as the server runs.
async fn write_uses_now_and_then(app: &App) {
    loop {
        tokio::time::sleep(USES_WRITTEN_EVERY).await;
        write_uses(app).await;
    }
}

async fn write_uses(app: &App) {
    if let Ok(registry) = app.registry()
        && let Err(error) = registry.write_uses().await
    {
        tracing::warn!(%error, "when adapters were last used could not be written");
    }
    if let Err(error) = app.write_classifier_uses().await {
        tracing::warn!(%error, "when classifiers last answered could not be written");
    }
}

#[cfg(unix)]
struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct StopSignals;

#[cfg(not(unix))]
impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn wait(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
