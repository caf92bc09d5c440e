//! A dyno's streams while somebody is attached to them.
//!
//! ```text
//! standard input ─thread─▶ Input ─▶ FrameWriter ─▶ dyno
//!     signals, resize ──▶ ┘
//! dyno ─▶ FrameReader ─▶ attend ─▶ standard output, standard error
//! ```
//! Both directions run apart: a dyno that does not read must not keep us from
//! reading what it writes, or both would wait for ever.

mod input;
mod write;

use std::io;

use dyno_api::client::{Attached, FrameReader, Output};
use dyno_api::dyno::ExitStatus;

use crate::failure::Failure;
use crate::terminal::{self, RawMode};
use crate::value::detach::DetachKeys;

pub(crate) use input::Input;

/// Which of its streams a client takes part in, and how.
#[derive(Debug)]
pub(crate) struct Streams {
    /// The other side has a terminal.
    pub(crate) tty: bool,
    /// Forward the standard input.
    pub(crate) stdin: bool,
    /// The keys that end the session and leave the dyno running.
    pub(crate) detach_keys: DetachKeys,
}

impl Streams {
    /// Rows and columns for the other side's terminal, where it has one.
    pub(crate) fn size(&self) -> Option<(u16, u16)> {
        self.tty.then(terminal::size).flatten()
    }
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The other side ended.
    Exit(ExitStatus),
    /// The detach keys were typed.
    Detached,
    /// The person asked to end again and again.
    Impatient,
    /// The reader of our standard output went away.
    ReaderGone,
    /// hostd went away; the dyno did not.
    Lost,
}

/// Takes part until either side ends it. The terminal is as before afterwards.
///
/// # Errors
/// A [`Failure`] where a stream of ours or the connection broke.
pub(crate) async fn attend(
    attached: Attached,
    streams: &Streams,
    input: &mut Input,
) -> Result<End, Failure> {
    let raw = streams.tty && streams.stdin && terminal::is_interactive();
    let raw = raw
        .then(RawMode::enter)
        .transpose()
        .map_err(|error| Failure::io("cannot make the terminal raw", &error))?;
    let Attached { mut reader, writer } = attached;
    let end = tokio::select! {
        end = copy_output(&mut reader) => end,
        end = input.forward(writer, streams) => Ok(end),
    };
    drop(raw);
    end
}

/// Writes what comes until the last word.
async fn copy_output(reader: &mut FrameReader) -> Result<End, Failure> {
    loop {
        let written = match reader.next().await? {
            Some(Output::Stdout(bytes)) => write::fully(io::stdout(), &bytes),
            Some(Output::Stderr(bytes)) => write::fully(io::stderr(), &bytes),
            Some(Output::Exit(status)) => return Ok(End::Exit(status)),
            Some(Output::Failed(error)) => return Err(error.into()),
            None => return Ok(End::Lost),
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::ReaderGone),
            Err(error) => return Err(error.into()),
        }
    }
}
