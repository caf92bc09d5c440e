//! TLS to a dyno's own address. Its certificate is not verified: it is
//! usually for a public name, or nobody's, and the address is the proof.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// What is spoken within, as ALPN names it (RFC 7301).
pub(super) type Protocol = LazyLock<Result<Arc<ClientConfig>, Error>>;

/// HTTP/1.1, which needs no name.
pub(super) static HTTP_1: Protocol = LazyLock::new(|| config(&[]));
/// HTTP/2, which servers of gRPC insist on being told.
pub(super) static HTTP_2: Protocol = LazyLock::new(|| config(&[b"h2"]));

fn config(protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Asks for the host that the check names, else for the address.
pub(super) async fn open(
    stream: TcpStream,
    host: Option<&str>,
    protocol: &Protocol,
) -> Result<TlsStream<TcpStream>, String> {
    let failed = |error: io::Error| format!("TLS: {error}");
    let peer: IpAddr = stream.peer_addr().map_err(failed)?.ip();
    let named = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    let config = protocol.as_ref().map_err(|error| format!("TLS: {error}"))?;
    TlsConnector::from(config.clone())
        .connect(named.unwrap_or(ServerName::from(peer)), stream)
        .await
        .map_err(failed)
}

/// Takes whoever has the key to the certificate that it shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::health::HttpProbe;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    use super::super::http;
    use super::*;

    /// A certificate of its own making, and its key: it opens nothing.
    const NOBODY: &[u8] = include_bytes!("tls/nobody.pem");

    #[tokio::test]
    async fn a_server_with_a_certificate_of_its_own_making_is_asked() {
        let provider = Arc::new(ring::default_provider());
        let certificate = CertificateDer::from_pem_slice(NOBODY).unwrap();
        let key = PrivateKeyDer::from_pem_slice(NOBODY).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let probe = HttpProbe {
            path: Some("/x".to_owned()),
            host: Some("web.example".to_owned()),
            ..HttpProbe::default()
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = open(stream, probe.host.as_deref(), &HTTP_1).await.unwrap();
        assert_eq!(http::ask(stream, &probe, address).await, Ok(()));
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /x HTTP/1.1\r\nHost: web.example\r\n"));
    }
}
