//! Answering requests on the control socket.

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use rustix::net::sockopt::socket_peercred;
use rustix::process::Uid;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::spawn_local;

use super::lines::{self, Line, Lines, MAX_REQUEST_BYTES};
use super::protocol::{Refusal, RefusalKind, Request, Response, Status};
use crate::confine::Landlock;
use crate::dns::Service;
use crate::listeners::{ListenError, Listeners};
use crate::tables::Live;

/// hostd, a successor, a person who looks (P15).
const MAX_CONNECTIONS: usize = 16;
/// Fits a line of [`Request::Sockets`] into one message with its descriptors.
const MAX_NETWORK_NAME_BYTES: usize = 128;

/// Set once to stop the edge.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    /// Asks the edge to stop.
    pub fn set(&self) {
        self.0.send_replace(true);
    }

    /// Waits for somebody to ask.
    pub async fn wait(&self) {
        // The sender is `self`: it cannot be gone.
        if let Err(error) = self.0.subscribe().wait_for(|stop| *stop).await {
            tracing::error!(%error, "nobody can stop the edge any more");
        }
    }
}

/// What requests are about.
#[derive(Debug)]
pub struct Server {
    /// The user who may connect besides root: who started the edge.
    pub starter: Uid,
    /// What confinement achieved.
    pub landlock: Landlock,
    /// The tables.
    pub tables: Rc<Live>,
    /// The name server.
    pub service: Rc<Service>,
    /// Its sockets.
    pub listeners: Rc<Listeners>,
    /// How the edge ends.
    pub stop: Stop,
}

impl Server {
    /// Serves `listener` until the task is dropped.
    pub async fn run(self: Rc<Self>, listener: UnixListener) {
        let places = Rc::new(());
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept control connections");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            if Rc::strong_count(&places) > MAX_CONNECTIONS || !self.admits(&stream) {
                continue;
            }
            let (server, place) = (Rc::clone(&self), Rc::clone(&places));
            spawn_local(async move {
                if let Err(error) = server.converse(&stream).await {
                    tracing::debug!(%error, "a control connection ended");
                }
                drop(place);
            });
        }
    }

    /// P14: the mode of the socket keeps others out; this does once more.
    fn admits(&self, stream: &UnixStream) -> bool {
        socket_peercred(stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == self.starter)
    }

    async fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        let mut lines = Lines::new(MAX_REQUEST_BYTES);
        loop {
            let received = stream
                .async_io(Interest::READABLE, || lines.receive(stream))
                .await;
            let line = match received {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let refusal = refuse(RefusalKind::BadRequest, error.to_string());
                    return write(stream, &Response::Err(refusal)).await;
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            let response = match self.answer(line, stream).await? {
                Ok(()) => Response::Ok(self.status()),
                Err(refusal) => Response::Err(refusal),
            };
            write(stream, &response).await?;
        }
    }

    /// Does what `line` asks for. An error ends the connection.
    async fn answer(&self, line: Line, stream: &UnixStream) -> io::Result<Result<(), Refusal>> {
        let request = match serde_json::from_slice(&line.bytes) {
            Ok(request) => request,
            Err(error) => return Ok(Err(refuse(RefusalKind::BadRequest, error.to_string()))),
        };
        match request {
            Request::Status => {}
            Request::Listen { network } => return Ok(self.listen(network, line)),
            Request::Close { network } => self.listeners.close(&network),
            Request::Reload => self.tables.reload(),
            Request::Sockets => self.hand_out(stream)?,
            Request::Stop => self.stop.set(),
        }
        Ok(Ok(()))
    }

    fn listen(&self, network: String, line: Line) -> Result<(), Refusal> {
        if network.len() > MAX_NETWORK_NAME_BYTES {
            let message = format!("a name of {} bytes is too long", network.len());
            return Err(refuse(RefusalKind::BadRequest, message));
        }
        self.listeners
            .listen(network, line.sockets)
            .map_err(|error| {
                let kind = match error {
                    ListenError::Full => RefusalKind::Full,
                    _ => RefusalKind::BadSockets,
                };
                refuse(kind, error.to_string())
            })
    }

    /// Sends each network's sockets. The lines are small and few, and fit the
    /// socket's buffer; a peer that lets it fill is cut off.
    fn hand_out(&self, stream: &UnixStream) -> io::Result<()> {
        self.listeners.each(|network, sockets: &[BorrowedFd<'_>]| {
            let line = encode(&Response::Network(network.to_owned()))?;
            match lines::send(stream, &line, sockets)? {
                sent if sent == line.len() => Ok(()),
                _ => Err(io::ErrorKind::WriteZero.into()),
            }
        })
    }

    fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            landlock: self.landlock == Landlock::Enforced,
            tables: self.tables.status(),
            listening: self.listeners.addresses(),
            counters: self.service.counters(),
        }
    }
}

fn refuse(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, message }
}

fn encode(response: &Response) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    Ok(line)
}

async fn write(stream: &UnixStream, response: &Response) -> io::Result<()> {
    let line = encode(response)?;
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || lines::send(stream, rest, &[]))
            .await?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}
