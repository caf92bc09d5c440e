//! hostd that listens with TLS: the way there.
//!
//! ```text
//! addresses ─▶ TCP ─▶ TLS 1.3 ─▶ pin: is it the right host? ─▶ stream ─▶ secret with each request
//!                                                    └ certificate, where that is shown instead
//! ```

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, version};

use super::pin::Pinned;
use super::{Error, Identity, Pin, Proof};

/// How long one address may take to answer, and TLS to stand (P15).
const PATIENCE: Duration = Duration::from_secs(10);

/// Pauses between tries where the host closes at once: it does so to the seventeenth
/// of those who come at the same time.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// A host that has gone without a word is noticed after a minute, tcp(7).
const UNTAKEN: u32 = 60_000;
const SILENCE: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;

/// A name that each certificate of a hostd has, whatever else its host is called.
const EVERY_HOST: &str = "localhost";

/// A hostd that listens with TLS.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The host, as errors call it.
    pub name: String,
    /// Where it listens; each is tried, in this order.
    pub addresses: Vec<SocketAddr>,
    /// Whom its certificate has to be signed by.
    pub authority: Pin,
    /// What is shown to it.
    pub proof: Proof,
}

/// Why there is no connection to such a hostd.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No address answers.
    #[error("{address} does not answer")]
    Unreachable {
        /// The last that was tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Its name has no address.
    #[error("its name has no address")]
    NoAddress,
    /// It has begun, and does not go on.
    #[error("it does not get to TLS within {} s", PATIENCE.as_secs())]
    Late,
    /// It has broken the connection off before TLS stood.
    #[error("it closes connections")]
    Closed,
    /// Something else than TLS is spoken there.
    #[error("what listens there does not speak TLS")]
    NotTls,
    /// It speaks something older.
    #[error("what listens there does not speak TLS 1.3")]
    Version,
    /// It is another host, or somebody in between.
    #[error("its certificate is not signed by {0}")]
    Authority(Pin),
    /// Its certificate is not good at the time that it is here.
    #[error("its certificate is not good at this time")]
    Clock,
    /// It does not let the certificate in that is shown to it.
    #[error("it refuses the certificate that is shown to it")]
    Refused(#[source] rustls::Error),
    /// TLS does not come about for another reason.
    #[error("no TLS")]
    Tls(#[source] io::Error),
}

/// The way to one such host.
#[derive(Debug)]
pub(super) struct Tls {
    remote: Remote,
    connector: Connector,
    /// What each request says of whoever sends it.
    pub(super) authorization: Option<HeaderValue>,
}

struct Connector(TlsConnector);

impl fmt::Debug for Connector {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Connector")
    }
}

impl Tls {
    pub(super) fn new(remote: Remote) -> Result<Self, Error> {
        let connector = connector(&remote).map_err(|error| Error::Tls {
            name: remote.name.clone(),
            source: TlsError::Tls(io::Error::other(error)),
        })?;
        Ok(Self {
            authorization: match &remote.proof {
                Proof::Secret(secret) => secret.header(),
                Proof::Certificate(_) => None,
            },
            connector: Connector(connector),
            remote,
        })
    }

    /// What a call comes to that broke: a host tells only after TLS stands that it does not
    /// let a certificate in (RFC 8446 section 4.4.2.4).
    pub(super) fn broken(&self, operation: &str, source: hyper::Error) -> Error {
        match alert(&source) {
            Some(alert) => Error::Tls {
                name: self.remote.name.clone(),
                source: TlsError::Refused(alert),
            },
            None => Error::Http {
                operation: operation.to_owned(),
                source,
            },
        }
    }

    /// One more connection, on which TLS stands.
    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, Error> {
        let mut pauses = PAUSES.into_iter();
        loop {
            match (self.attempt().await, pauses.next()) {
                (Ok(stream), _) => return Ok(stream),
                (Err(TlsError::Closed), Some(pause)) => sleep(pause).await,
                (Err(source), _) => {
                    return Err(Error::Tls {
                        name: self.remote.name.clone(),
                        source,
                    });
                }
            }
        }
    }

    async fn attempt(&self) -> Result<TlsStream<TcpStream>, TlsError> {
        let tcp = tcp(&self.remote.addresses).await?;
        // It is asked for by no name: the host behind the authority is one and the same.
        let name = ServerName::try_from(EVERY_HOST);
        let name = name.map_err(|invalid| TlsError::Tls(io::Error::other(invalid)))?;
        match timeout(PATIENCE, self.connector.0.connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(told(error, self.remote.authority)),
            Err(_) => Err(TlsError::Late),
        }
    }
}

/// The first address that answers.
async fn tcp(addresses: &[SocketAddr]) -> Result<TcpStream, TlsError> {
    let mut failure = TlsError::NoAddress;
    for &address in addresses {
        let connected = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(connected) => connected.and_then(keep_alive),
            Err(elapsed) => Err(elapsed.into()),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(source) => failure = TlsError::Unreachable { address, source },
        }
    }
    Err(failure)
}

fn keep_alive(stream: TcpStream) -> io::Result<TcpStream> {
    // Small requests should not wait for company.
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&stream, UNTAKEN)?;
    sockopt::set_tcp_keepidle(&stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(&stream, SILENCE)?;
    sockopt::set_tcp_keepcnt(&stream, PROBES)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    Ok(stream)
}

/// The alert that a connection has ended with.
fn alert(error: &hyper::Error) -> Option<rustls::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<io::Error>();
        let inner = io.and_then(io::Error::get_ref);
        match inner.and_then(|inner| inner.downcast_ref()) {
            Some(alert @ rustls::Error::AlertReceived(_)) => return Some(alert.clone()),
            _ => source = cause.source(),
        }
    }
    None
}

/// What kept TLS from coming about, in words that say what to do.
fn told(error: io::Error, authority: Pin) -> TlsError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match (inner, error.kind()) {
        (Some(rustls::Error::InvalidCertificate(why)), _) => match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsError::Clock,
            _ => TlsError::Authority(authority),
        },
        (Some(rustls::Error::InvalidMessage(_)), _) => TlsError::NotTls,
        (
            Some(
                rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
                | rustls::Error::PeerIncompatible(_),
            ),
            _,
        ) => TlsError::Version,
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => TlsError::Closed,
        _ => TlsError::Tls(error),
    }
}

fn connector(remote: &Remote) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let pinned = Pinned::new(remote.authority, provider.clone());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned));
    let mut config = match &remote.proof {
        Proof::Secret(_) => config.with_no_client_auth(),
        Proof::Certificate(Identity { chain, key }) => {
            config.with_client_auth_cert(chain.clone(), key.clone_key())?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_sni = false;
    // hostd keeps nothing of a connection that has ended.
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}
