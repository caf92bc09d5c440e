//! Whom a host's certificate has to be signed by: one authority, known by its hash.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// SHA-256 of the certificate (DER) of the authority that signs for one host, as
/// [`crate::token::Endpoint`] tells it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin([u8; 32]);

/// Why a text is no [`Pin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256: and 64 hexadecimal digits, as `dyno token create` tells them")]
pub struct PinError;

impl Pin {
    /// That of an authority's certificate in a PEM file (RFC 7468), the first in it.
    ///
    /// # Errors
    /// [`PinError`] where there is none.
    pub fn of_pem(text: &[u8]) -> Result<Self, PinError> {
        let certificate = CertificateDer::from_pem_slice(text).map_err(|_no_pem| PinError)?;
        Ok(Self::of(&certificate))
    }

    fn of(certificate: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(hash)
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits = text.strip_prefix("sha256:").ok_or(PinError)?;
        let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(PinError);
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return Err(PinError);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
            for digit in pair {
                let value = u8::try_from(nibble(*digit)?).map_err(|_above_15| PinError)?;
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(to, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl TryFrom<String> for Pin {
    type Error = PinError;

    fn try_from(text: String) -> Result<Self, PinError> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

/// Trusts the one authority that has this hash, and what it has signed for a server.
#[derive(Debug)]
pub(super) struct Pinned {
    authority: Pin,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    pub(super) fn new(authority: Pin, provider: Arc<CryptoProvider>) -> Self {
        Self {
            authority,
            provider,
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = chain.iter().find(|one| Pin::of(one) == self.authority);
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(leaf, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, leaf, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_written_as_it_is_read() {
        let text = format!("sha256:{}", "0f9a".repeat(16));
        let pin: Pin = text.parse().unwrap();
        assert_eq!(pin.to_string(), text);
        for wrong in [
            "",
            "sha256:",
            &text[7..],
            &text[..70],
            &format!("{text}0"),
            &text.replace('f', "g"),
        ] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong:?}");
        }
    }
}
