//! Calls about the host.

use http::Method;

use super::connection::Call;
use super::{Client, Error, Lines};
use crate::event::Event;
use crate::host::{HostInfo, Version};

impl Client {
    /// The versions of hostd and of its API.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn version(&self) -> Result<Version, Error> {
        self.json(Call::new(Method::GET, "/v1/version")).await
    }

    /// What the host is, has and cannot do.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn info(&self) -> Result<HostInfo, Error> {
        self.json(Call::new(Method::GET, "/v1/info")).await
    }

    /// Returns once hostd says that it can work.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer or is not well.
    pub async fn health(&self) -> Result<(), Error> {
        self.done(Call::new(Method::GET, "/v1/health")).await
    }

    /// The OpenAPI document.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.json(Call::new(Method::GET, "/v1/openapi.json")).await
    }

    /// What happens from now on.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn events(&self) -> Result<Lines<Event>, Error> {
        self.lines(Call::new(Method::GET, "/v1/events")).await
    }
}
