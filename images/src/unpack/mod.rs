//! Unpacking one layer into one folder: the inside of the helper program `dyno-unpack`.
//!
//! ```text
//! stdin ─▶ stream: gzip, zstd or plain; hashed (diffID), counted, bounded
//!            └▶ archive: tar members, with GNU and pax extensions
//!                 └▶ layer: what an entry means (whiteout, link, attributes)
//!                      └▶ tree: acts on the folder by fds only
//! stdout ◀─ one JSON line per report
//! ```
//! The program trusts nothing it reads and nothing that it has itself written before: every
//! path is resolved by the kernel beneath the folder, every time (P1). That it also runs in a
//! jail (P8) is for the bugs that remain.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::limits::Limits;
use crate::{dump, pack};

mod archive;
mod error;
mod layer;
mod pax;
mod place;
mod stream;
mod tree;

use error::Refusal;

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    /// Digest of the decompressed stream.
    pub(crate) diff_id: Digest,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Members of the archive.
    pub(crate) entries: u64,
    /// Device nodes, which are never made.
    pub(crate) devices_skipped: u64,
    /// The layer hides everything below it.
    pub(crate) opaque_root: bool,
}

/// One line on the helper's stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Report {
    /// So many decompressed bytes are done.
    Progress {
        /// Decompressed bytes.
        bytes: u64,
    },
    /// Everything is written.
    Done(Summary),
    /// Nothing of it may be used.
    Failed(String),
}

impl Summary {
    pub(crate) fn new(diff_id: Digest) -> Summary {
        Summary {
            diff_id,
            bytes: 0,
            entries: 0,
            devices_skipped: 0,
            opaque_root: false,
        }
    }
}

/// The program `dyno-unpack`: its arguments are the four numbers of [`Limits`], its standard
/// input is a layer, its current folder becomes the layer's tree. Exit code 0 means that the
/// last line of its output is a summary.
///
/// With `place PATH` its standard input is an archive that is put there, among what is there;
/// with `pack PATH` its standard output is the archive, and the exit code 3 where there is no
/// such path.
///
/// With `fill` and the four numbers its standard input is an archive of files that are no layer,
/// for the current folder, which is empty; with `dump` its standard output is the archive of the
/// current folder.
#[must_use]
pub fn main(arguments: impl Iterator<Item = String>) -> std::process::ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let unpacked = match words.as_slice() {
        ["pack", path] => return told(pack::pack(path, io::stdout().lock())),
        ["dump"] => return told(dump::dump(io::stdout().lock())),
        ["fill", ..] => limits(arguments.into_iter().skip(1)).map(fill_here),
        ["place", path] => Some(place::place(path, io::stdin())),
        _ => limits(arguments.into_iter()).map(unpack_here),
    };
    let report = match unpacked {
        Some(Ok(summary)) => Report::Done(summary),
        Some(Err(refusal)) => Report::Failed(refusal.chain()),
        None => Report::Failed(
            "usage: dyno-unpack BYTES ENTRIES DEPTH PATH_BYTES | fill BYTES ENTRIES DEPTH PATH_BYTES | \
             place PATH | pack PATH | dump".to_owned(),
        ),
    };
    let done = matches!(report, Report::Done(_));
    match (say(&report), done) {
        (Ok(()), true) => std::process::ExitCode::SUCCESS,
        _ => std::process::ExitCode::FAILURE,
    }
}

/// The exit code of what writes an archive; why it failed goes to standard error.
fn told(written: io::Result<()>) -> std::process::ExitCode {
    match written {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => pack::NOT_FOUND,
                _ => 1,
            };
            // If nobody reads it there is nobody to tell.
            writeln!(io::stderr(), "{error}").ok();
            code.into()
        }
    }
}

fn limits(mut arguments: impl Iterator<Item = String>) -> Option<Limits> {
    let bytes = arguments.next()?.parse().ok()?;
    let entries = arguments.next()?.parse().ok()?;
    let depth = arguments.next()?.parse().ok()?;
    let path_bytes = arguments.next()?.parse().ok()?;
    let limits = Limits {
        bytes,
        entries,
        depth,
        path_bytes,
    };
    arguments.next().is_none().then_some(limits)
}

fn unpack_here(limits: Limits) -> Result<Summary, Refusal> {
    let layer = layer::Layer::new(here()?, limits);
    unpack(io::stdin(), layer, limits, |bytes| {
        say(&Report::Progress { bytes })
    })
}

fn fill_here(limits: Limits) -> Result<Summary, Refusal> {
    let files = layer::Layer::whole(here()?, limits);
    unpack(io::stdin(), files, limits, |_bytes| Ok(()))
}

fn here() -> Result<OwnedFd, Refusal> {
    // Modes come from the archive alone.
    rustix::process::umask(Mode::empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(".", flags, Mode::empty()).map_err(Refusal::writing("open", b"."))
}

/// Unpacks `input` as `layer` has it, telling `progress` the decompressed bytes now and then.
fn unpack(
    input: impl io::Read + 'static,
    mut layer: layer::Layer,
    limits: Limits,
    progress: impl FnMut(u64) -> io::Result<()> + 'static,
) -> Result<Summary, Refusal> {
    let stream = stream::Stream::new(input, limits.bytes, progress).map_err(Refusal::Stream)?;
    let mut archive = archive::Archive::new(stream);
    while let Some(member) = archive.next()? {
        layer.apply(&member, &mut archive)?;
    }
    let diff_id = archive.finish()?;
    layer.finish(diff_id)
}

/// Writes a report at once, as one line.
fn say(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
