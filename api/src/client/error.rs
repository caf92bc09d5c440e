//! How a call fails.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use super::TlsError;
use crate::error::ApiError;
use crate::frame::FrameError;

/// Why a call has no answer. `operation` is the method and path of the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens on the socket, or the caller may not use it.
    #[error("cannot connect to hostd at {}", socket.display())]
    Connect {
        /// The socket that was tried.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The program that was to speak for another machine's hostd does not.
    #[error("no connection to hostd on {name}")]
    Bridge {
        /// The machine.
        name: String,
        /// The program's exit code, where it ended by itself.
        status: Option<i32>,
    },
    /// That program cannot be run.
    #[error("cannot run {}", program.display())]
    Program {
        /// The program.
        program: OsString,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no connection to a hostd that listens with TLS.
    #[error("cannot connect to hostd at {name}")]
    Tls {
        /// The host.
        name: String,
        /// Why.
        source: TlsError,
    },
    /// hostd refused the request, and says why.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// hostd answered with a status and a body that are not of the contract.
    #[error("{operation}: hostd answered with status {status}: {body:?}")]
    Status {
        /// The call.
        operation: String,
        /// The HTTP status code.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The connection broke while the call was under way.
    #[error("{operation}: the connection to hostd broke")]
    Http {
        /// The call.
        operation: String,
        /// What broke.
        source: hyper::Error,
    },
    /// The request cannot be written as HTTP.
    #[error("{operation}: not a valid request")]
    Request {
        /// The call.
        operation: String,
        /// What is wrong with it.
        source: http::Error,
    },
    /// The request has no JSON form.
    #[error("{operation}: cannot encode the request")]
    Encode {
        /// The call.
        operation: String,
        /// What has none.
        source: serde_json::Error,
    },
    /// The answer is not what the contract says.
    #[error("{operation}: cannot decode hostd's answer")]
    Decode {
        /// The call.
        operation: String,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// The answer is longer than a client accepts.
    #[error("{operation}: the answer exceeds {limit} bytes")]
    TooLong {
        /// The call.
        operation: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// Reading or writing an attached stream failed.
    #[error("cannot read or write the attached stream")]
    Stream(#[from] io::Error),
    /// The other side of an attached stream sent what is not a frame.
    #[error("the attached stream is broken")]
    Frame(#[from] FrameError),
}

impl Error {
    /// No hostd listens there (as opposed to: the caller may not connect).
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ))
    }
}
