//! Typed calls to hostd over its unix socket.
//!
//! Each call has a connection of its own: a connect on a unix socket costs
//! microseconds, and a stream never holds up another call.
//!
//! ```text
//! Client ──▶ connection   connect, HTTP/1.1 handshake, send
//!              ├─▶ body    what travels to hostd
//!              ├─▶ lines   JSON lines that hostd streams back
//!              └─▶ attach  frames after an upgrade
//! ```
//!
//! The calls need a tokio runtime with I/O enabled; a current-thread one will do.

mod attach;
mod body;
mod connection;
mod dynos;
mod error;
mod host;
mod images;
mod lines;
mod path;

use std::path::{Path, PathBuf};

pub use attach::{Attached, FrameReader, FrameWriter, Output};
pub use error::Error;
pub use lines::Lines;

/// A client of the hostd that listens on one unix socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the hostd behind `socket`; nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
