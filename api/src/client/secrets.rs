//! Calls about secrets.

use bytes::Bytes;
use http::Method;

use super::body::RequestBody;
use super::connection::Call;
use super::path::encode;
use super::{Client, Error};
use crate::query::ForceQuery;
use crate::secret::{Rotation, Secret};

impl Client {
    /// Every secret, without values.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn secrets(&self) -> Result<Vec<Secret>, Error> {
        self.json(Call::new(Method::GET, "/v1/secrets")).await
    }

    /// One secret, without its value.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none of that name.
    pub async fn secret(&self, name: &str) -> Result<Secret, Error> {
        self.json(Call::new(Method::GET, of(name))).await
    }

    /// Sets a secret's value.
    ///
    /// # Errors
    /// [`Error::Api`] where the name or the value is refused.
    pub async fn set_secret(&self, name: &str, value: Bytes) -> Result<Secret, Error> {
        let call = Call::new(Method::PUT, of(name));
        self.json(call.body(RequestBody::Bytes(value))).await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none, or a dyno is given it and that is not forced.
    pub async fn remove_secret(&self, name: &str, force: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, of(name)).query(&ForceQuery { force })?;
        self.done(call).await
    }

    /// Makes a new key and encrypts every secret under it.
    ///
    /// # Errors
    /// [`Error::Api`] where a secret cannot be decrypted; everything is as before then.
    pub async fn rotate_secret_key(&self) -> Result<Rotation, Error> {
        let call = Call::new(Method::POST, "/v1/secret-key/rotate");
        self.json(call).await
    }
}

fn of(name: &str) -> String {
    format!("/v1/secrets/{}", encode(name))
}
