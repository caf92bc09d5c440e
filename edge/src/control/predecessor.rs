//! The edge that runs already: found, asked for its sockets, stopped.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::lines::{Line, Lines};
use super::protocol::{Refusal, Request, Response, Status};

/// How long a living edge may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// More networks than an edge serves.
const MAX_NETWORKS: usize = 4096;
/// More than the status of them all.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A connection to the edge that serves now.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
}

/// The running edge did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PredecessorError {
    /// It cannot be talked to.
    #[error("cannot talk to the running edge")]
    Io(#[from] io::Error),
    /// It speaks something else.
    #[error("the running edge answered something unknown")]
    Answer(#[from] serde_json::Error),
    /// It refused.
    #[error("the running edge refused: {}", .0.message)]
    Refused(Refusal),
    /// It answers without end.
    #[error("the running edge claims more than {MAX_NETWORKS} networks")]
    TooMany,
}

impl Predecessor {
    /// Connects to the edge at `control`; `None` where none lives.
    ///
    /// # Errors
    /// When something is there that cannot be connected to.
    pub fn find(control: &Path) -> Result<Option<Self>, PredecessorError> {
        let stream = match UnixStream::connect(control) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Some(Self { stream }))
    }

    /// How it is.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub fn status(&mut self) -> Result<Status, PredecessorError> {
        self.ask(&Request::Status)?;
        self.last()
    }

    /// Copies of all its sockets, by network. It goes on serving them.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub fn sockets(&mut self) -> Result<Vec<(String, Vec<OwnedFd>)>, PredecessorError> {
        self.ask(&Request::Sockets)?;
        let mut networks = Vec::new();
        loop {
            let line = self.line()?;
            match serde_json::from_slice(&line.bytes)? {
                Response::Network(_) if networks.len() >= MAX_NETWORKS => {
                    return Err(PredecessorError::TooMany);
                }
                Response::Network(network) => networks.push((network, line.sockets)),
                Response::Ok(_) => return Ok(networks),
                Response::Err(refusal) => return Err(PredecessorError::Refused(refusal)),
            }
        }
    }

    /// Makes it drain and exit.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub fn stop(mut self) -> Result<Status, PredecessorError> {
        self.ask(&Request::Stop)?;
        self.last()
    }

    fn ask(&mut self, request: &Request) -> Result<(), PredecessorError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        Ok(self.stream.write_all(&line)?)
    }

    fn last(&mut self) -> Result<Status, PredecessorError> {
        match serde_json::from_slice(&self.line()?.bytes)? {
            Response::Ok(status) => Ok(status),
            Response::Err(refusal) => Err(PredecessorError::Refused(refusal)),
            Response::Network(_) => Err(PredecessorError::TooMany),
        }
    }

    fn line(&mut self) -> Result<Line, PredecessorError> {
        let mut lines = Lines::new(MAX_ANSWER_BYTES);
        loop {
            if let Some(line) = lines.receive(&self.stream)? {
                return Ok(line);
            }
        }
    }
}
