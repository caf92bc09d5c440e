//! Calls about dynos.

use http::Method;
use jiff::Timestamp;

use super::connection::Call;
use super::path::{Query, encode};
use super::{Client, Error, Lines};
use crate::dyno::{Dyno, DynoSpec, ExitStatus, LogLine, Stats};

/// How a dyno is asked to end; what is absent is the dyno's own.
#[derive(Debug, Clone, Default)]
pub struct StopQuery {
    /// The signal, `TERM` or `SIGTERM` or its number.
    pub signal: Option<String>,
    /// Milliseconds between the signal and the kill of the whole cgroup.
    pub grace_ms: Option<u64>,
}

/// Which lines of a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    /// Stay and stream what comes, until the dyno is removed.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<u64>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
}

/// Each call names its dyno by id or by name.
///
/// # Errors
/// [`Error::Api`] with [`ErrorKind::NotFound`](crate::error::ErrorKind) where
/// there is no such dyno, with `Conflict` where its phase does not allow it.
impl Client {
    /// Creates a dyno without starting it. It is durable once this returns.
    ///
    /// # Errors
    /// [`Error::Api`] with the field that was refused, and why.
    pub async fn create(&self, spec: &DynoSpec) -> Result<Dyno, Error> {
        self.json(Call::new(Method::POST, "/v1/dynos").json(spec)?).await
    }

    /// All dynos.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn dynos(&self) -> Result<Vec<Dyno>, Error> {
        self.json(Call::new(Method::GET, "/v1/dynos")).await
    }

    /// One dyno.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn dyno(&self, dyno: &str) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::GET, dyno, "")).await
    }

    /// Removes a dyno; one that runs only by `force`.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno, or it runs.
    pub async fn remove(&self, dyno: &str, force: bool) -> Result<(), Error> {
        let query = Query::default().with("force", force.then_some(true)).into_string();
        self.done(Self::dyno_call(Method::DELETE, dyno, &query)).await
    }

    /// Starts a dyno.
    ///
    /// # Errors
    /// [`Error::Api`] where its command cannot be executed.
    pub async fn start(&self, dyno: &str) -> Result<(), Error> {
        self.done(Self::dyno_call(Method::POST, dyno, "/start")).await
    }

    /// Asks a dyno to end, and ends it once its grace is over.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn stop(&self, dyno: &str, how: &StopQuery) -> Result<(), Error> {
        let path = format!("/stop{}", how.query());
        self.done(Self::dyno_call(Method::POST, dyno, &path)).await
    }

    /// Stops a dyno and starts it again.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it cannot be started.
    pub async fn restart(&self, dyno: &str, how: &StopQuery) -> Result<(), Error> {
        let path = format!("/restart{}", how.query());
        self.done(Self::dyno_call(Method::POST, dyno, &path)).await
    }

    /// Sends a signal to a dyno's first process; `KILL` where absent.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno, it does not run, or there
    /// is no such signal.
    pub async fn kill(&self, dyno: &str, signal: Option<&str>) -> Result<(), Error> {
        let query = Query::default().with("signal", signal).into_string();
        self.done(Self::dyno_call(Method::POST, dyno, &format!("/kill{query}"))).await
    }

    /// Waits until a dyno has ended for good.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn wait(&self, dyno: &str) -> Result<ExitStatus, Error> {
        self.json(Self::dyno_call(Method::GET, dyno, "/wait")).await
    }

    /// What a dyno wrote.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn logs(&self, dyno: &str, which: &LogQuery) -> Result<Lines<LogLine>, Error> {
        let path = format!("/logs{}", which.query());
        self.lines(Self::dyno_call(Method::GET, dyno, &path)).await
    }

    /// What a dyno uses now.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it does not run.
    pub async fn stats(&self, dyno: &str) -> Result<Stats, Error> {
        self.json(Self::dyno_call(Method::GET, dyno, "/stats")).await
    }

    /// A call on the route of one dyno.
    pub(super) fn dyno_call(method: Method, dyno: &str, rest: &str) -> Call {
        Call::new(method, format!("/v1/dynos/{}{rest}", encode(dyno)))
    }
}

impl StopQuery {
    fn query(&self) -> String {
        Query::default()
            .with("signal", self.signal.as_deref())
            .with("grace_ms", self.grace_ms)
            .into_string()
    }
}

impl LogQuery {
    fn query(&self) -> String {
        Query::default()
            .with("follow", self.follow.then_some(true))
            .with("tail", self.tail)
            .with("since", self.since)
            .into_string()
    }
}
