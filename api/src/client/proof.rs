//! What a client shows to a host that listens with TLS.

use std::fmt;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Secret;

/// One of the two forms of a token.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Its secret, with each request.
    Secret(Secret),
    /// A certificate, when TLS begins.
    Certificate(Identity),
}

/// A certificate and its key.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Why a file is no [`Identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It has no certificate.
    #[error("there is no certificate in it")]
    Certificate,
    /// It has no key.
    #[error("there is no private key in it")]
    Key,
}

impl Identity {
    /// Both, in the PEM of one file (RFC 7468), in any order.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_no_pem| IdentityError::Certificate)?;
        if chain.is_empty() {
            return Err(IdentityError::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|_no_pem| IdentityError::Key)?;
        Ok(Self { chain, key })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Identity")
    }
}
