//! Calls about tokens.

use http::Method;

use super::connection::Call;
use super::path::encode;
use super::{Client, Error};
use crate::token::{CertificateSpec, NewCertificate, NewToken, Token, TokenSpec};

impl Client {
    /// Every token, without secrets.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        self.json(Call::new(Method::GET, "/v1/tokens")).await
    }

    /// Makes a token. Its secret is in this answer alone.
    ///
    /// # Errors
    /// [`Error::Api`] where it cannot be.
    pub async fn create_token(&self, spec: &TokenSpec) -> Result<NewToken, Error> {
        self.json(Call::new(Method::POST, "/v1/tokens").json(spec)?)
            .await
    }

    /// Makes a token that is shown by a certificate.
    ///
    /// # Errors
    /// [`Error::Api`] where it cannot be.
    pub async fn create_certificate(
        &self,
        spec: &CertificateSpec,
    ) -> Result<NewCertificate, Error> {
        self.json(Call::new(Method::POST, "/v1/certificates").json(spec)?)
            .await
    }

    /// Takes a token away, by its id or name.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none.
    pub async fn remove_token(&self, token: &str) -> Result<(), Error> {
        let path = format!("/v1/tokens/{}", encode(token));
        self.done(Call::new(Method::DELETE, path)).await
    }
}
