//! Calls about log drains.

use http::Method;

use super::connection::Call;
use super::path::encode;
use super::{Client, Error};
use crate::drain::{Drain, DrainSpec};

impl Client {
    /// Every drain, and how it is.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn drains(&self) -> Result<Vec<Drain>, Error> {
        self.json(Call::new(Method::GET, "/v1/drains")).await
    }

    /// Sends the output of one dyno or of all somewhere, from now on.
    ///
    /// # Errors
    /// [`Error::Api`] where it cannot be.
    pub async fn add_drain(&self, spec: &DrainSpec) -> Result<Drain, Error> {
        self.json(Call::new(Method::POST, "/v1/drains").json(spec)?)
            .await
    }

    /// Sends nothing more there.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such drain.
    pub async fn remove_drain(&self, name: &str) -> Result<(), Error> {
        let path = format!("/v1/drains/{}", encode(name));
        self.done(Call::new(Method::DELETE, path)).await
    }
}
