//! Connections: how many there are, how long each may be silent, and how all of them end. Knows no route.

mod watched_stream;

use super::problem::{ApiError, closing};
use axum::body::Body;
use axum::http::{Request, Version, header};
use axum::response::Response;
use axum::{Router, extract::Request as AxumRequest};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt;
use watched_stream::{Progress, WatchedStream};

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time; 0 takes what the system's limit of open files leaves. One more closes the one that has been silent for longest.
    pub max_connections: usize,
    /// Of one address that is not this machine's own.
    pub max_per_address: usize,
    /// Time for the headers of a request, also between two requests.
    pub header_timeout: Duration,
    /// Time in which a client takes some of an answer.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 0,
            max_per_address: 256,
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Files that are open besides connections: database, blobs, the encoder's, checkpoints.
const OTHER_FILES: u64 = 256;
/// Where the system sets no limit.
const MOST_CONNECTIONS: u64 = 16_384;
/// Before connections are accepted again after that failed.
const PAUSE: Duration = Duration::from_millis(100);

impl ConnectionLimits {
    fn connections(&self) -> usize {
        match self.max_connections {
            0 => usize::try_from(open_files().min(MOST_CONNECTIONS + OTHER_FILES) - OTHER_FILES)
                .unwrap_or(usize::MAX),
            given => given,
        }
    }
}

/// How many files this process may open, after that limit has been raised as far as it goes.
#[cfg(unix)]
fn open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit = raised,
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
    limit.current.unwrap_or(u64::MAX).max(2 * OTHER_FILES)
}

#[cfg(not(unix))]
fn open_files() -> u64 {
    MOST_CONNECTIONS
}

/// A connection as the others see it.
struct Entry {
    address: IpAddr,
    progress: Arc<Progress>,
    /// Requests that are answered right now; the client waits, and silence means nothing.
    answering: Arc<AtomicUsize>,
    end: AbortHandle,
}

/// All connections by number.
#[derive(Default)]
struct Table {
    entries: Mutex<HashMap<u64, Entry>>,
}

impl Table {
    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        // A panic between two calls leaves nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one of `address`: closes the connection that has been silent for longest, first one of the same address.
    fn make_room(&self, limits: &ConnectionLimits, most: usize, address: IpAddr) {
        let entries = self.locked();
        let own = |entry: &&Entry| entry.address == address;
        let of_address = entries.values().filter(own).count();
        let is_crowded = !address.is_loopback() && of_address >= limits.max_per_address;
        if !is_crowded && entries.len() < most {
            return;
        }
        let silent = entries
            .values()
            .filter(|entry| !is_crowded || entry.address == address)
            .filter(|entry| entry.answering.load(Ordering::Relaxed) == 0)
            .max_by_key(|entry| entry.progress.silent_for());
        if let Some(entry) = silent {
            entry.end.abort();
        }
    }
}

/// Accepts connections and lets `router` answer until `stop` is done; then refuses new requests, and ends once those that run are answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) {
    let most = limits.connections();
    let table = Arc::new(Table::default());
    let stopping = Arc::new(AtomicBool::new(false));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut number = 0_u64;
    let mut stop = std::pin::pin!(stop);
    let accept = async || loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let mut open = |connections: &mut JoinSet<()>, (stream, peer): (_, std::net::SocketAddr)| {
        table.make_room(&limits, most, peer.ip());
        let progress = Arc::new(Progress::default());
        let answering = Arc::new(AtomicUsize::new(0));
        let stream = WatchedStream::new(stream, Arc::clone(&progress), limits.write_timeout);
        let service = {
            let (router, stopping) = (router.clone(), Arc::clone(&stopping));
            let answering = Arc::clone(&answering);
            service_fn(move |request| {
                answer(
                    router.clone(),
                    request,
                    Arc::clone(&stopping),
                    Arc::clone(&answering),
                )
            })
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        number += 1;
        let (own, of) = (number, Arc::clone(&table));
        let end = connections.spawn(async move {
            let _leaves = Leaves { table: of, own };
            // Whoever is silent for too long, breaks off or speaks another protocol ends a connection, and nothing else.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        table.locked().insert(
            own,
            Entry {
                address: peer.ip(),
                progress,
                answering,
                end,
            },
        );
    };
    loop {
        tokio::select! {
            accepted = accept() => open(&mut connections, accepted),
            Some(_) = connections.join_next() => {}
            () = &mut stop => break,
        }
    }
    stopping.store(true, Ordering::Relaxed);
    // Those that come now are told that the server stops.
    let ended = graceful.shutdown();
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => return,
            (stream, _) = accept() => {
                let refusal = refused_at_once(stream, limits.write_timeout);
                connections.spawn(refusal);
            }
        }
    }
}

/// Takes a connection out of the table when it ends, however that is.
struct Leaves {
    table: Arc<Table>,
    own: u64,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.table.locked().remove(&self.own);
    }
}

struct Answering(Arc<AtomicUsize>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    router: Router,
    request: Request<Incoming>,
    stopping: Arc<AtomicBool>,
    answering: Arc<AtomicUsize>,
) -> Result<Response, Infallible> {
    answering.fetch_add(1, Ordering::Relaxed);
    let _answering = Answering(answering);
    let request: AxumRequest = request.map(Body::new);
    if stopping.load(Ordering::Relaxed) {
        return Ok(closing(ApiError::Stopping));
    }
    // HTTP/1.1 wants exactly one; two could mean different servers to a proxy and to this one.
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Ok(closing(ApiError::BadHost(hosts)));
    }
    router.oneshot(request).await
}

async fn refused_at_once(stream: tokio::net::TcpStream, write_timeout: Duration) {
    let service =
        service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(closing(ApiError::Stopping)));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // The server stops; whoever is slow gets no word.
    let _ = tokio::time::timeout(write_timeout, connection).await;
}
