//! Calls about the host.

use http::Method;

use super::connection::Call;
use super::{Client, Error, Lines};
use crate::audit::AuditEntry;
use crate::doctor::HostCheck;
use crate::event::Event;
use crate::host::{HostHealth, HostInfo, Version};
use crate::query::{AuditQuery, EventsQuery};

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

    /// Whether hostd has taken up all its work.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn health(&self) -> Result<HostHealth, Error> {
        self.json(Call::new(Method::GET, "/v1/health")).await
    }

    /// What its machine has of what dynos need.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn doctor(&self) -> Result<Vec<HostCheck>, Error> {
        self.json(Call::new(Method::GET, "/v1/doctor")).await
    }

    /// The OpenAPI document.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn openapi(&self) -> Result<serde_json::Value, Error> {
        self.json(Call::new(Method::GET, "/v1/openapi.json")).await
    }

    /// What happens on this host.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn events(&self, query: &EventsQuery) -> Result<Lines<Event>, Error> {
        let call = Call::new(Method::GET, "/v1/events").query(query)?;
        self.lines(call).await
    }

    /// Who changed what on this host.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Lines<AuditEntry>, Error> {
        let call = Call::new(Method::GET, "/v1/audit").query(query)?;
        self.lines(call).await
    }
}
