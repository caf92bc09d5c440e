//! Calls about dynos.

use http::Method;
use tokio::io::AsyncRead;

use super::body::RequestBody;
use super::connection::Call;
use super::path::encode;
use super::{Client, Download, Error, Lines};
use crate::checkpoint::{Checkpoint, CheckpointRequest, RestoreRequest};
use crate::dyno::{Change, Dyno, DynoSpec, ExitStatus, LimitRequest, LogLine, Stats};
use crate::query::{
    ArchiveQuery, CreateQuery, KillQuery, LogsQuery, RemoveQuery, StatsQuery, StopQuery, WaitQuery,
};
use crate::why::Why;

/// Each call names its dyno by id or by name.
///
/// # Errors
/// [`Error::Api`] with [`ErrorKind::NotFound`](crate::error::ErrorKind) where
/// there is no such dyno, with `Conflict` where its phase does not allow it.
impl Client {
    /// Creates a dyno, and starts it where asked to. It is durable once this returns.
    ///
    /// # Errors
    /// [`Error::Api`] with the field that was refused, or why it could not be
    /// started; nothing is left of it then.
    pub async fn create(&self, spec: &DynoSpec, query: CreateQuery) -> Result<Dyno, Error> {
        self.json(
            Call::new(Method::POST, "/v1/dynos")
                .query(&query)?
                .json(spec)?,
        )
        .await
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
    pub async fn remove(&self, dyno: &str, query: RemoveQuery) -> Result<(), Error> {
        self.done(Self::dyno_call(Method::DELETE, dyno, "").query(&query)?)
            .await
    }

    /// Starts a dyno.
    ///
    /// # Errors
    /// [`Error::Api`] where its command cannot be executed.
    pub async fn start(&self, dyno: &str) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/start"))
            .await
    }

    /// Asks a dyno to end, kills it once its grace is over, and returns when it has ended.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn stop(&self, dyno: &str, query: &StopQuery) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/stop").query(query)?)
            .await
    }

    /// Stops a dyno and starts it again.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it cannot be started.
    pub async fn restart(&self, dyno: &str, query: &StopQuery) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/restart").query(query)?)
            .await
    }

    /// Sends a signal to a dyno's first process.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno, it does not run, or there
    /// is no such signal.
    pub async fn kill(&self, dyno: &str, query: &KillQuery) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/kill").query(query)?)
            .await
    }

    /// Changes a dyno's limits.
    ///
    /// # Errors
    /// [`Error::Api`] where they cannot be had; those of before hold then.
    pub async fn limit(&self, dyno: &str, request: &LimitRequest) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/limit").json(request)?)
            .await
    }

    /// Holds a dyno still.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it does not run.
    pub async fn pause(&self, dyno: &str) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/pause"))
            .await
    }

    /// Lets a paused dyno go on.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it does not run.
    pub async fn resume(&self, dyno: &str) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/resume"))
            .await
    }

    /// The checkpoints of a dyno, the oldest first.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn checkpoints(&self, dyno: &str) -> Result<Vec<Checkpoint>, Error> {
        self.json(Self::dyno_call(Method::GET, dyno, "/checkpoints"))
            .await
    }

    /// Saves a dyno that runs.
    ///
    /// # Errors
    /// [`Error::Api`] where it cannot be saved; it runs on then.
    pub async fn checkpoint(
        &self,
        dyno: &str,
        request: &CheckpointRequest,
    ) -> Result<Checkpoint, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/checkpoints").json(request)?)
            .await
    }

    /// Removes a checkpoint.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none.
    pub async fn remove_checkpoint(&self, dyno: &str, checkpoint: &str) -> Result<(), Error> {
        let path = format!("/checkpoints/{}", encode(checkpoint));
        self.done(Self::dyno_call(Method::DELETE, dyno, &path))
            .await
    }

    /// Brings a dyno back from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Api`] where it runs, or cannot be brought back.
    pub async fn restore(&self, dyno: &str, request: &RestoreRequest) -> Result<Dyno, Error> {
        self.json(Self::dyno_call(Method::POST, dyno, "/restore").json(request)?)
            .await
    }

    /// Waits until a dyno has ended for good, and where that is asked for until
    /// it is removed.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn wait(&self, dyno: &str, query: WaitQuery) -> Result<ExitStatus, Error> {
        self.json(Self::dyno_call(Method::GET, dyno, "/wait").query(&query)?)
            .await
    }

    /// What a dyno wrote.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn logs(&self, dyno: &str, query: &LogsQuery) -> Result<Lines<LogLine>, Error> {
        self.lines(Self::dyno_call(Method::GET, dyno, "/logs").query(query)?)
            .await
    }

    /// What a dyno uses now.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it does not run.
    pub async fn stats(&self, dyno: &str) -> Result<Stats, Error> {
        let query = StatsQuery { stream: false };
        self.json(Self::dyno_call(Method::GET, dyno, "/stats").query(&query)?)
            .await
    }

    /// What a dyno uses, once a second until it has ended.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it does not run.
    pub async fn stats_stream(&self, dyno: &str) -> Result<Lines<Stats>, Error> {
        let query = StatsQuery { stream: true };
        self.lines(Self::dyno_call(Method::GET, dyno, "/stats").query(&query)?)
            .await
    }

    /// Why a dyno is as it is.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn why(&self, dyno: &str) -> Result<Why, Error> {
        self.json(Self::dyno_call(Method::GET, dyno, "/why")).await
    }

    /// A path of a dyno as a tar stream.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or path.
    pub async fn archive(&self, dyno: &str, query: &ArchiveQuery) -> Result<Download, Error> {
        self.download(Self::dyno_call(Method::GET, dyno, "/archive").query(query)?)
            .await
    }

    /// Puts a tar stream at a path of a dyno.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno, or the archive does not fit there.
    pub async fn put_archive(
        &self,
        dyno: &str,
        query: &ArchiveQuery,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<(), Error> {
        let call = Self::dyno_call(Method::PUT, dyno, "/archive").query(query)?;
        self.done(call.body(RequestBody::archive(archive).await?))
            .await
    }

    /// What a dyno has changed of its image's files.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno.
    pub async fn changes(&self, dyno: &str) -> Result<Lines<Change>, Error> {
        self.lines(Self::dyno_call(Method::GET, dyno, "/changes"))
            .await
    }

    /// A call on the route of one dyno.
    pub(super) fn dyno_call(method: Method, dyno: &str, rest: &str) -> Call {
        Call::new(method, format!("/v1/dynos/{}{rest}", encode(dyno)))
    }
}
