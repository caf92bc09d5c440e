//! Certificates of clients: one more form of a token.
//!
//! ```text
//! public key, made elsewhere ──▶ certificate, signed by the host's authority, for clients
//!                                  sha256 of it = what the token's record has
//! ```
//! The private key stays where it was made. Nobody has to prove here that they have it:
//! each connection proves it, and a certificate of somebody else's key is of no use.

use std::sync::Arc;

use dyno_api::pem::P256;
use dyno_api::token::TokenId;
use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore};

use super::authority::{AuthorityError, SLOW_CLOCKS, since_epoch};

/// Bytes of a point that is not compressed, and the first of them (SEC 1 section 2.3.3).
const POINT: usize = 65;
const PLAIN: u8 = 4;

/// P15: no such key in PEM is longer.
const PEM_MAX: usize = 4096;

/// A client's public key: a point on P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

/// Why a text is no [`PublicKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the public key of an EC key on P-256, as PEM (`PUBLIC KEY`)")]
pub struct PublicKeyError;

impl PublicKey {
    /// That of a PEM text, RFC 7468 section 13.
    ///
    /// # Errors
    /// [`PublicKeyError`] for any other kind of key, too.
    pub fn from_pem(text: &str) -> Result<Self, PublicKeyError> {
        if text.len() > PEM_MAX {
            return Err(PublicKeyError);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_no_pem| PublicKeyError)?;
        match der.strip_prefix(&P256[..]) {
            Some(point) if point.len() == POINT && point[0] == PLAIN => Ok(Self(point.to_vec())),
            _ => Err(PublicKeyError),
        }
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A certificate of this key, for a client with this token, until then.
pub(super) fn sign(
    issuer: &Issuer<'static, KeyPair>,
    key: &PublicKey,
    token: &TokenId,
    now: Timestamp,
    until: Option<Timestamp>,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("dyno token {token}"));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // No host can be impersonated with it.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now.checked_sub(SLOW_CLOCKS).unwrap_or(now));
    params.not_after = match until {
        Some(until) => epoch + since_epoch(until),
        // One without an end, RFC 5280 section 4.1.2.5.
        None => date_time_ymd(9999, 12, 31),
    };
    Ok(params.signed_by(key, issuer)?.der().clone())
}

/// Lets in whoever shows no certificate, or one that this authority has signed for a
/// client and whose key they have.
pub(super) fn verifier(
    authority: &CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, AuthorityError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| AuthorityError::Serve(rustls::Error::General(error.to_string())))
}

#[cfg(test)]
mod tests {
    use dyno_api::pem::pem;

    use super::*;

    #[test]
    fn a_key_on_p_256_is_taken_and_no_other() {
        let public = |key: &KeyPair| pem("PUBLIC KEY", &key.subject_public_key_info());
        let key = KeyPair::generate().unwrap();
        let text = public(&key);
        assert_eq!(PublicKey::from_pem(&text).unwrap().0, key.der_bytes());
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        for wrong in [
            String::new(),
            "x".repeat(PEM_MAX + 1),
            public(&ed25519),
            public(&p384),
            pem("PRIVATE KEY", &key.serialize_der()),
            text.replace("PUBLIC KEY", "CERTIFICATE"),
        ] {
            assert_eq!(PublicKey::from_pem(&wrong), Err(PublicKeyError), "{wrong}");
        }
    }
}
