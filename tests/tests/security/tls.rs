//! A client of hostd's listener, made of nothing that hostd is made of but rustls.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use dyno_tests::DEADLINE;
use dyno_tests::host::Host;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned, SupportedCipherSuite, SupportedProtocolVersion,
};
use serde_json::Value;

/// A connection.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A token, and where it is good.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) secret: String,
    pub(crate) address: SocketAddr,
    pub(crate) pin: String,
}

/// Has the host make a token with these scopes.
#[track_caller]
pub(crate) fn token(host: &Host, name: &str, scopes: &str, more: &[&str]) -> Key {
    let arguments = ["token", "create", "--json", "--scope", scopes, name];
    let new: Value = serde_json::from_str(&host.ok(&[&arguments, more].concat())).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Key {
        secret: text(&new["secret"]),
        address: text(&new["endpoint"]["address"]).parse().unwrap(),
        pin: text(&new["endpoint"]["ca"]),
    }
}

impl Key {
    /// The same way in with another secret.
    pub(crate) fn with(&self, secret: &str) -> Self {
        Self {
            secret: secret.to_owned(),
            ..self.clone()
        }
    }

    /// Connects, and believes who has what is pinned.
    pub(crate) fn connect(&self) -> io::Result<Tls> {
        self.connect_by(&[&rustls::version::TLS13])
    }

    pub(crate) fn connect_by(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<Tls> {
        self.connect_with(versions, None)
    }

    /// The same, with whatever is shown where a certificate is asked for.
    pub(crate) fn connect_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shown: Option<Arc<dyn ResolvesClientCert>>,
    ) -> io::Result<Tls> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(self.pin.clone())));
        let config = match shown {
            None => config.with_no_client_auth(),
            Some(shown) => config.with_client_cert_resolver(shown),
        };
        let name = ServerName::from(self.address.ip());
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect_timeout(&self.address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// Sends a request and returns what begins to come back on that connection.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> io::Result<Tls> {
        let mut stream = self.connect()?;
        stream.write_all(
            self.request(method, path, body, "Connection: close")
                .as_bytes(),
        )?;
        Ok(stream)
    }

    /// A request as it is written.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str, header: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: hostd\r\nAuthorization: Bearer {}\r\n{header}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.secret,
            body.len()
        )
    }

    /// The whole answer to a request.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = self.send(method, path, body).unwrap();
        rest(&mut stream)
    }
}

/// Whatever comes until the other side ends, however it does.
pub(crate) fn rest(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // It may end without a farewell.
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("it does not end"),
        Ok(_) | Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// Reads until this text has come.
#[track_caller]
pub(crate) fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(text) {
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "no {text:?} in {seen:?}");
        seen += &String::from_utf8_lossy(&buffer[..count]);
    }
    seen
}

/// Trusts one certificate by its hash, and what it has signed.
#[derive(Debug)]
struct Pinned(String);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::from(CertificateError::UnknownIssuer);
        let authority = chain.iter().find(|one| pin(one) == self.0);
        let mut roots = RootCertStore::empty();
        roots.add(authority.ok_or_else(unknown)?.clone().into_owned())?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().unwrap();
        verifier.verify_server_cert(leaf, &[], name, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signed, &known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = ring::default_provider().signature_verification_algorithms;
        known.supported_schemes()
    }
}

fn pin(certificate: &CertificateDer<'_>) -> String {
    let SupportedCipherSuite::Tls13(suite) = ring::cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        panic!("not a suite of TLS 1.3");
    };
    let hash = suite.common.hash_provider.hash(certificate);
    let mut pin = "sha256:".to_owned();
    for byte in hash.as_ref() {
        write!(pin, "{byte:02x}").unwrap();
    }
    pin
}
