//! Calls about the host.

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::connection::Call;
use super::{Client, Error, Lines};
use crate::event::{Event, What};
use crate::host::{Health, HostInfo, Version};
use crate::query::EventsQuery;

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
    pub async fn health(&self) -> Result<Health, Error> {
        self.json(Call::new(Method::GET, "/v1/health")).await
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
    pub async fn events(&self, query: &EventsQuery) -> Result<Events, Error> {
        let call = Call::new(Method::GET, "/v1/events").query(query)?;
        self.lines(call).await.map(Events)
    }
}

/// A stream of events. Dropping it ends the call.
#[derive(Debug)]
pub struct Events(Lines<Line>);

impl Events {
    /// The next event; `None` once hostd has ended the stream. Cancel safe.
    ///
    /// # Errors
    /// As [`Lines::next`].
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        let line = self.0.next().await?;
        Ok(line.map(
            |Line {
                 sequence,
                 time,
                 what,
             }| Event {
                sequence,
                time,
                what,
            },
        ))
    }
}

/// An event as it travels. serde cannot refuse unknown fields, as [`Event`]
/// would, where the rest of them is flattened: it takes each for unknown.
#[derive(Debug, Deserialize)]
struct Line {
    sequence: u64,
    time: Timestamp,
    #[serde(flatten)]
    what: What,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_hostd_writes_is_an_event() {
        let what = What::ImageRemoved {
            reference: "docker.io/library/debian:12".to_owned(),
        };
        let time = Timestamp::UNIX_EPOCH;
        let event = Event {
            sequence: 7,
            time,
            what,
        };
        let line: Line = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!((line.sequence, line.time, line.what), (7, time, event.what));
    }
}
