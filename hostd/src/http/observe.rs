//! Metrics and health: on the API's socket, and by TCP where `--metrics-listen` says so.
//! What is served by TCP asks nobody who they are, so it is these three and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::Answer;
use super::extract::{Nothing, Params};
use super::listener::connection;
use super::pace::{Mode, Paced};
use super::{ListenError, counted, nothing_there};
use crate::host::Host;
use crate::metrics::{self, Format};
use crate::readiness;

/// P15: connections at a time. Scrapers are few.
const MAX_CONNECTIONS: usize = 32;
/// P15: how long one may stay: whoever does not read makes room for others. Scrapers of
/// a busy host connect again.
const CONNECTION: Duration = Duration::from_secs(60);
/// Milliseconds that the kernel keeps what such a one does not take, tcp(7).
const UNTAKEN: u32 = 30_000;

type Shared = State<Arc<Host>>;

pub(super) async fn metrics(
    State(host): Shared,
    _: Params<Nothing>,
    headers: HeaderMap,
) -> Answer<Response> {
    let accept = headers.get(header::ACCEPT);
    let format = Format::of(accept.and_then(|accept| accept.to_str().ok()));
    let page = metrics::scrape(&host, format).await?;
    let headers = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, page).into_response())
}

pub(super) async fn healthz(_: Params<Nothing>) -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(host): Shared, _: Params<Nothing>) -> Response {
    let readiness = readiness::examine(&host).await;
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness)).into_response()
}

/// Listens on this address for scrapers and probes.
///
/// # Errors
/// [`ListenError`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|source| ListenError {
        operation: "bind",
        path: PathBuf::from(address.to_string()),
        source,
    })
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, host: Arc<Host>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(nothing_there)
        .layer(from_fn_with_state(host.clone(), counted))
        .with_state(host);
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => match sockopt::set_tcp_user_timeout(&stream, UNTAKEN) {
                Ok(()) => {
                    let service = TowerToHyperService::new(router.clone());
                    let stream = Paced::new(stream, Mode::default());
                    let served = timeout(CONNECTION, connection(stream, service));
                    tokio::spawn(async move {
                        served.await.unwrap_or_default();
                        drop(permit);
                    });
                }
                Err(error) => tracing::warn!(%error, "a connection for metrics was closed"),
            },
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
