//! `dyno-edge` as hostd sees it: started or adopted, given its tables by file
//! and its sockets over the control socket. It outlives hostd.
//!
//! Its contract is the documentation of the `dyno-edge` crate.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dyno_api::edge::Tables;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Deserialize;

use crate::durable::{self, Survives};

const DNS_PORT: u16 = 53;
/// How long the edge may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to start.
const STARTS: Duration = Duration::from_secs(30);
/// P15: bytes of an answer.
const MAX_LINE: usize = 1 << 20;

/// Where the edge is and whom it runs as.
#[derive(Debug, Clone)]
pub struct Edge {
    binary: PathBuf,
    folder: PathBuf,
    id: u32,
}

/// Why names are not served.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A step on the way failed.
    #[error("cannot {operation}")]
    Io {
        /// What was done.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The edge refused.
    #[error("dyno-edge refused: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Status),
    Err(Message),
}

#[derive(Deserialize)]
struct Status {
    version: String,
    listening: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StartLine {
    Ready {},
    Failed { message: String },
}

fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> EdgeError {
    let operation = operation.into();
    move |source| EdgeError::Io { operation, source }
}

impl Edge {
    /// The edge of the host whose edge folder this is, to run as this user and group.
    pub fn new(binary: &Path, folder: &Path, id: u32) -> Self {
        Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            id,
        }
    }

    /// Replaces the tables; the edge notices by itself.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_tables(&self, tables: &Tables) -> io::Result<()> {
        let path = self.folder.join("tables.json");
        // Readable to the edge, which cannot be entered by anyone else: the
        // folder is root's and the edge's group's alone.
        durable::write_mode(&path, &serde_json::to_vec(tables)?, 0o644, Survives::Crash)
    }

    /// Starts the edge or adopts the one that runs, and has it serve DNS on
    /// these addresses. Cheap when all is well: to be called again and again.
    /// Blocks.
    ///
    /// # Errors
    /// [`EdgeError`]: dynos run on without names.
    pub fn ensure(&self, network: &str, gateways: &[IpAddr]) -> Result<(), EdgeError> {
        let status = match self.status() {
            Ok(status) if status.version == env!("CARGO_PKG_VERSION") => status,
            Ok(_) => {
                self.start(true)?;
                self.status()?
            }
            Err(EdgeError::Io { .. }) => {
                self.start(false)?;
                self.status()?
            }
            Err(refused) => return Err(refused),
        };
        if status.listening.contains_key(network) {
            return Ok(());
        }
        self.listen(network, gateways)
    }

    /// Ends the edge, where one runs; it finishes what is in flight.
    ///
    /// # Errors
    /// When one runs and does not want to.
    pub fn stop(&self) -> Result<(), EdgeError> {
        if UnixStream::connect(self.control()).is_err() {
            return Ok(());
        }
        self.ask(r#"{"op":"stop"}"#, &[]).map(|_| ())
    }

    fn start(&self, replace: bool) -> Result<(), EdgeError> {
        fs::create_dir_all(&self.folder)
            .map_err(failed(format!("make {}", self.folder.display())))?;
        let log = self.folder.join("edge.log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(failed(format!("write {}", log.display())))?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--tables")
            .arg(self.folder.join("tables.json"))
            .arg("--control")
            .arg(self.control())
            .args(["--uid", &self.id.to_string(), "--gid", &self.id.to_string()])
            .args(replace.then_some("--replace"))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command
            .spawn()
            .map_err(failed(format!("execute {}", self.binary.display())))?;
        let heard = match child.stdout.take() {
            Some(stdout) => line_within(stdout, STARTS),
            None => Ok(String::new()),
        };
        // It outlives this hostd; while hostd lives, it is hostd's to reap.
        std::thread::spawn(move || match child.wait() {
            Ok(status) => tracing::info!(%status, "dyno-edge ended"),
            Err(error) => tracing::warn!(%error, "cannot wait for dyno-edge"),
        });
        let line = heard.map_err(failed("hear from dyno-edge"))?;
        match serde_json::from_str(&line) {
            Ok(StartLine::Ready {}) => Ok(()),
            Ok(StartLine::Failed { message }) => Err(EdgeError::Refused(message)),
            Err(error) => Err(failed("understand dyno-edge")(error.into())),
        }
    }

    fn status(&self) -> Result<Status, EdgeError> {
        self.ask(r#"{"op":"status"}"#, &[])
    }

    fn listen(&self, network: &str, gateways: &[IpAddr]) -> Result<(), EdgeError> {
        let mut sockets: Vec<OwnedFd> = Vec::new();
        for gateway in gateways {
            let address = SocketAddr::new(*gateway, DNS_PORT);
            let udp = UdpSocket::bind(address).map_err(failed(format!("bind udp {address}")))?;
            let tcp = TcpListener::bind(address).map_err(failed(format!("bind tcp {address}")))?;
            sockets.extend([OwnedFd::from(udp), OwnedFd::from(tcp)]);
        }
        let request = serde_json::json!({"op": "listen", "network": network}).to_string();
        self.ask(&request, &sockets).map(|_| ())
    }

    fn control(&self) -> PathBuf {
        self.folder.join("edge.sock")
    }

    fn ask(&self, request: &str, sockets: &[OwnedFd]) -> Result<Status, EdgeError> {
        let mut stream = UnixStream::connect(self.control()).map_err(failed("reach dyno-edge"))?;
        let line = self
            .exchange(&mut stream, request, sockets)
            .map_err(failed("ask dyno-edge"))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Ok(status)) => Ok(status),
            Ok(Answer::Err(refusal)) => Err(EdgeError::Refused(refusal.message)),
            Err(error) => Err(failed("understand dyno-edge")(error.into())),
        }
    }

    fn exchange(
        &self,
        stream: &mut UnixStream,
        request: &str,
        sockets: &[OwnedFd],
    ) -> io::Result<String> {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let line = format!("{request}\n");
        if sockets.is_empty() {
            stream.write_all(line.as_bytes())?;
        } else {
            send_with(stream, line.as_bytes(), sockets)?;
        }
        line_within(stream, ANSWER)
    }
}

/// Reads a line, all of it before the time is over and within [`MAX_LINE`]: the edge
/// faces the network, and whoever has taken it over holds up nobody.
fn line_within(mut from: impl Read + AsFd, limit: Duration) -> io::Result<String> {
    let deadline = Instant::now() + limit;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while !line.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&from, PollFlags::IN)];
        if poll(&mut ready, Some(&wait))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match from.read(&mut buffer)? {
            0 => break,
            count => line.extend_from_slice(&buffer[..count]),
        }
        if line.len() > MAX_LINE {
            return Err(io::Error::other("its answer does not end"));
        }
    }
    String::from_utf8(line).map_err(io::Error::other)
}

/// The line and the descriptors in one sendmsg(2), as the contract has it.
fn send_with(stream: &UnixStream, line: &[u8], sockets: &[OwnedFd]) -> io::Result<()> {
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more than 8 sockets for one network",
        ));
    }
    let sent = rustix::net::sendmsg(
        stream,
        &[IoSlice::new(line)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    if sent < line.len() {
        (&mut &*stream).write_all(&line[sent..])?;
    }
    Ok(())
}
