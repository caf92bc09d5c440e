//! Connections to receivers: TCP whose send buffer is bounded, and TLS that verifies.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dyno_images::{ResolveError, machine_authorities, resolve};
use dyno_runtime::tcp;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::target::Target;
use super::window;

/// How long each step of connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The kernel doubles it.
const SEND_BUFFER: usize = window::MOST / 4;
/// Milliseconds. What is not acknowledged for so long, or not even asked for by a receiver
/// whose window is shut, breaks the connection off, tcp(7).
const USER_TIMEOUT: u32 = 10_000;

/// A connection of either kind.
pub(super) trait Link: AsyncRead + AsyncWrite + Send + Unpin {
    /// What it is made of.
    fn tcp(&self) -> &Tcp;
}

impl Link for Tcp {
    fn tcp(&self) -> &Tcp {
        self
    }
}

impl Link for TlsStream<Tcp> {
    fn tcp(&self) -> &Tcp {
        self.get_ref().0
    }
}

/// A TCP connection that counts what is written to it; with TLS, what that makes of it.
pub(super) struct Tcp {
    stream: TcpStream,
    written: u64,
}

impl Tcp {
    /// Bytes that were written to it.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// How many of them the peer's kernel has acknowledged. A FIN of ours that waits counts
    /// against them.
    pub(super) fn acknowledged(&self) -> io::Result<u64> {
        let waiting = tcp::unacknowledged(&self.stream)?;
        Ok(self.written.saturating_sub(waiting))
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            self.written += *count as u64;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Its name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address answered.
    #[error("{0} does not answer")]
    Tcp(SocketAddr, #[source] io::Error),
    /// A name without an address.
    #[error("it has no address")]
    NoAddress,
    /// The name cannot be in a certificate.
    #[error("the name cannot be verified")]
    Name(#[from] InvalidDnsNameError),
    /// No authority to trust.
    #[error("there are no certificate authorities to trust")]
    NoAuthorities,
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
    /// The receiver is not who it should be, or does not speak TLS.
    #[error("no secure connection")]
    Tls(#[source] io::Error),
}

/// Connects.
pub(super) async fn open(target: &Target, ca: Option<&str>) -> Result<Box<dyn Link>, ConnectError> {
    let stream = Tcp {
        stream: connect(target).await?,
        written: 0,
    };
    if !target.tls {
        return Ok(Box::new(stream));
    }
    let config = tls(ca)?;
    let name = ServerName::try_from(target.host.clone())?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match timeout(CONNECT, handshake).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(ConnectError::Tls(error)),
        Err(elapsed) => Err(ConnectError::Tls(elapsed.into())),
    }
}

async fn connect(target: &Target) -> Result<TcpStream, ConnectError> {
    let mut failure = ConnectError::NoAddress;
    for address in resolve(&target.host).await? {
        let address = SocketAddr::new(address, target.port);
        let connected = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(connected) => connected,
            Err(elapsed) => Err(elapsed.into()),
        };
        match connected.and_then(|stream| bounded(&stream).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = ConnectError::Tcp(address, error),
        }
    }
    Err(failure)
}

/// A receiver that is gone is noticed, what waits for one is bounded, and a short entry
/// does not wait until the one before it is acknowledged, tcp(7).
fn bounded(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER)?;
    sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT)?;
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    Ok(())
}

/// The certificates that these bytes are.
pub(super) fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

fn tls(ca: Option<&str>) -> Result<ClientConfig, ConnectError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(match ca {
        Some(pem) => authorities(pem).unwrap_or_default(),
        None => machine_authorities(),
    });
    if roots.is_empty() {
        return Err(ConnectError::NoAuthorities);
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}
