//! Origins, and connections to them: TCP, then TLS unless the origin is plain http.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::RegistryError;
use super::resolver::{self, ResolveError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where distributions keep the certificate authorities that the machine trusts.
const AUTHORITY_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Scheme, host and port: what a credential is bound to (P10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    https: bool,
    /// Lower case; an IPv6 address without brackets.
    host: String,
    port: u16,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Its name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address answered.
    #[error("{address} does not answer")]
    Tcp {
        /// The last address tried.
        address: SocketAddr,
        /// Its failure.
        source: io::Error,
    },
    /// The name cannot be in a certificate.
    #[error("the name cannot be verified")]
    Name(#[from] InvalidDnsNameError),
    /// TLS failed: most often a certificate that is not trusted.
    #[error("no secure connection; if this registry speaks plain http, allow that explicitly")]
    Tls(#[source] io::Error),
    /// The machine has no list of certificate authorities.
    #[error("this machine has no certificate authorities; install the package ca-certificates")]
    NoAuthorities,
}

impl ConnectError {
    /// Whether it may be different in a moment.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            ConnectError::Tcp { .. } => true,
            ConnectError::Resolve(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl Origin {
    /// The origin of a registry's `host[:port]`: https, unless plain http was allowed.
    pub(super) fn of_registry(registry: &str, plain_http: bool) -> Origin {
        let (host, port) = split_port(registry);
        let https = !plain_http;
        let port = port.unwrap_or(if https { 443 } else { 80 });
        Origin { https, host, port }
    }

    pub(super) fn of_uri(uri: &Uri) -> Option<Origin> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (host, port) = (uri.host()?, uri.port_u16());
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let port = port.unwrap_or(if https { 443 } else { 80 });
        (!host.is_empty()).then_some(Origin { https, host, port })
    }

    pub(super) fn is_https(&self) -> bool {
        self.https
    }

    /// `host:port`, as in a `Host` header.
    pub(super) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// A registry part of a [`crate::Reference`], which was checked there.
fn split_port(registry: &str) -> (String, Option<u16>) {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (registry, None),
    };
    (host.trim_matches(['[', ']']).to_ascii_lowercase(), port)
}

/// Whether a registry's `host[:port]` is this machine: what it sends crosses no wire.
pub(super) fn is_loopback(registry: &str) -> bool {
    let (host, _) = split_port(registry);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    extra_authorities: Vec<CertificateDer<'static>>,
    /// Made at the first https connection: the machine's certificates take a while to parse.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(authorities: Option<&Path>) -> Result<Connector, RegistryError> {
        let extra_authorities = match authorities {
            Some(path) => read_authorities(path).map_err(|source| RegistryError::Authorities {
                path: path.display().to_string(),
                source,
            })?,
            None => Vec::new(),
        };
        Ok(Connector {
            extra_authorities,
            tls: OnceCell::new(),
        })
    }

    pub(super) async fn connect(&self, origin: &Origin) -> Result<Stream, ConnectError> {
        let addresses = resolver::resolve(&origin.host).await?;
        let tcp = connect_any(&addresses, origin.port).await?;
        if !origin.https {
            return Ok(Stream::Plain(tcp));
        }
        let name = ServerName::try_from(origin.host.clone())?;
        let config = self.tls.get_or_try_init(async || self.tls()).await?;
        let connector = TlsConnector::from(config.clone());
        let handshake = timeout(CONNECT_TIMEOUT, connector.connect(name, tcp)).await;
        match handshake {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(ConnectError::Tls(error)),
            Err(elapsed) => Err(ConnectError::Tls(elapsed.into())),
        }
    }

    /// Trusts what the machine trusts: a company's own authority is installed there, and a
    /// revoked one leaves by the system's updates. A list compiled in would know neither.
    fn tls(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(machine_authorities());
        roots.add_parsable_certificates(self.extra_authorities.iter().cloned());
        if roots.is_empty() {
            return Err(ConnectError::NoAuthorities);
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// The certificates of the authorities that this machine trusts; none where it has no list.
pub fn machine_authorities() -> Vec<CertificateDer<'static>> {
    let files = AUTHORITY_FILES.map(PathBuf::from);
    let found = files.iter().find_map(|file| read_authorities(file).ok());
    found.unwrap_or_default()
}

fn read_authorities(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)
}

/// The first address that answers.
async fn connect_any(addresses: &[IpAddr], port: u16) -> Result<TcpStream, ConnectError> {
    let mut failure = None;
    for address in addresses
        .iter()
        .map(|address| SocketAddr::new(*address, port))
    {
        let error = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small requests should not wait for company.
                stream
                    .set_nodelay(true)
                    .map_err(|source| ConnectError::Tcp { address, source })?;
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        failure = Some(ConnectError::Tcp {
            address,
            source: error,
        });
    }
    Err(
        failure.unwrap_or(ConnectError::Resolve(ResolveError::NoAddress {
            name: String::new(),
        })),
    )
}

/// A connection of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P10
    #[test]
    fn plain_http_is_never_a_guess() {
        for (registry, plain, origin) in [
            ("example.com", false, "https://example.com:443"),
            ("example.com:5000", false, "https://example.com:5000"),
            ("example.com:5000", true, "http://example.com:5000"),
            ("[::1]:5000", true, "http://[::1]:5000"),
        ] {
            assert_eq!(Origin::of_registry(registry, plain).to_string(), origin);
        }
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in [
            "localhost.example.com",
            "10.0.0.1:5000",
            "127.0.0.1.example.com",
            "[::2]:5000",
        ] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |uri: &str| Origin::of_uri(&uri.parse().unwrap());
        assert_eq!(of("https://A.example/x"), of("https://a.example:443/y?z"));
        assert_ne!(of("https://a.example/"), of("http://a.example:443/"));
        assert_ne!(of("https://a.example/"), of("https://a.example:444/"));
        assert_eq!(of("ftp://a.example/"), None);
    }
}
