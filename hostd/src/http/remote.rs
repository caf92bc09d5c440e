//! The TCP listener: TLS 1.3, then the same API as on the socket, for whoever has a token or a
//! certificate that is one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use jiff::Timestamp;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::ListenError;
use super::caller::Peer;
use super::listener::visit;
use super::places::{Guest, Places};
use crate::remote::gate::Stranger;
use crate::remote::{Authority, Cut, Gate, Session};

/// P15: connections at a time. Those of the socket are counted apart: root of the host
/// is never kept out by others.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take until TLS stands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Milliseconds that the kernel keeps what a client does not take, tcp(7).
const UNTAKEN: u32 = 60_000;
/// Silence after which the kernel asks whether a client is still there.
const SILENCE: Duration = Duration::from_secs(60);

/// Listens on this address.
///
/// # Errors
/// [`ListenError`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    super::observe::bind(address)
}

/// The address that a listener has in fact.
///
/// # Errors
/// [`ListenError`].
pub fn address(listener: &TcpListener) -> Result<SocketAddr, ListenError> {
    listener.local_addr().map_err(|source| ListenError {
        operation: "ask for the address of",
        path: PathBuf::from("the listener"),
        source,
    })
}

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    authority: Arc<Authority>,
    gate: Arc<Gate>,
    router: Router,
) {
    let places = Places::new(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, address)) => match gate.admit(address.ip(), Instant::now()) {
                Ok(stranger) => {
                    let acceptor = TlsAcceptor::from(authority.config(Timestamp::now()));
                    let visit = Visit {
                        stream,
                        address,
                        stranger,
                        places: places.clone(),
                    };
                    tokio::spawn(visit.serve(acceptor, router.clone()));
                }
                Err(closed) => {
                    tracing::debug!(address = %address.ip(), %closed, "a connection was closed");
                }
            },
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::error!(%error, "cannot accept a connection from elsewhere");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection that was let in.
struct Visit {
    stream: TcpStream,
    address: SocketAddr,
    stranger: Stranger,
    places: Arc<Places>,
}

impl Visit {
    async fn serve(self, acceptor: TlsAcceptor, router: Router) {
        let address = self.address;
        if let Err(error) = keep_alive(&self.stream) {
            tracing::warn!(%error, "a connection from elsewhere was closed");
            return;
        }
        let stream = match timeout(HANDSHAKE, acceptor.accept(self.stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "a client and TLS do not agree");
                return;
            }
            Err(_) => {
                tracing::debug!(%address, "a client did not get to TLS in time");
                return;
            }
        };
        // Those that are not here yet have bounds of their own.
        let place = match self.places.take(Guest::Owner).await {
            Ok(place) => place,
            Err(full) => {
                tracing::warn!(%address, %full, "a connection was closed");
                return;
            }
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.and_then(|chain| chain.first()).cloned();
        let session = Session::new(address, self.stranger, certificate);
        let stream = Cut::new(stream, session.clone());
        visit(stream, Peer::Remote(session), router, place).await;
    }
}

/// Whoever is gone without a word is found out, however long a stream is silent.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    stream.set_nodelay(true).unwrap_or_default();
    sockopt::set_tcp_user_timeout(stream, UNTAKEN)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    sockopt::set_socket_keepalive(stream, true)
}
