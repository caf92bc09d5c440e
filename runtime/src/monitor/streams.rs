//! The monitor's ends of a process' standard streams: pipes, or a terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime as oci;
use rustix::fs::{OFlags, fchown, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid};
use rustix::termios::{Winsize, tcsetwinsize};

use super::log::Stream;
use crate::container::Stdio;
use crate::spec::Bundle;

/// Bytes of input that wait for the process to read them.
const MAX_QUEUE: usize = 64 * 1024;

/// End of file, typed on a terminal (`VEOF` of termios(3)).
const END_OF_TRANSMISSION: u8 = 4;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    End,
}

/// Our ends of the streams of one process.
#[derive(Debug, Default)]
pub(super) struct Streams {
    stdin: Option<OwnedFd>,
    queue: Vec<u8>,
    /// Close standard input once the queue is written.
    ending: bool,
    is_terminal: bool,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Streams {
    /// Pipes for a process that runs as `user`; its standard input is
    /// `/dev/null` unless it shall be fed.
    pub(super) fn pipes(fed: bool, user: &oci::User, bundle: &Bundle) -> io::Result<(Self, Stdio)> {
        let owner = owner(user, bundle);
        let (stdin, their_stdin) = if fed {
            let (theirs, ours) = pipe_of(owner)?;
            fcntl_setfl(&ours, OFlags::NONBLOCK)?;
            (Some(ours), theirs)
        } else {
            (None, OwnedFd::from(File::open("/dev/null")?))
        };
        let (stdout, their_stdout) = output(owner)?;
        let (stderr, their_stderr) = output(owner)?;
        let ours = Self {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            ..Self::default()
        };
        let theirs = Stdio::Fds {
            stdin: their_stdin,
            stdout: their_stdout,
            stderr: their_stderr,
        };
        Ok((ours, theirs))
    }

    /// The streams of a process whose terminal has this master.
    pub(super) fn terminal(master: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        Ok(Self {
            stdin: Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?),
            is_terminal: true,
            stdout: Some(master),
            ..Self::default()
        })
    }

    /// The descriptor that an output stream is read from.
    pub(super) fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        match stream {
            Stream::Stdout => self.stdout.as_ref().map(AsFd::as_fd),
            Stream::Stderr => self.stderr.as_ref().map(AsFd::as_fd),
        }
    }

    /// Reads once; a stream that has ended is closed.
    pub(super) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Output {
        let Some(fd) = self.output(stream) else {
            return Output::End;
        };
        match read(fd, buffer) {
            Ok(count) if count > 0 => return Output::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => return Output::Nothing,
            // A terminal that nobody has open any more answers EIO.
            Ok(_) | Err(_) => self.close_output(stream),
        }
        Output::End
    }

    /// Reads no more from this stream.
    pub(super) fn close_output(&mut self, stream: Stream) {
        match stream {
            Stream::Stdout => self.stdout = None,
            Stream::Stderr => self.stderr = None,
        }
    }

    /// Whether both output streams have ended.
    pub(super) fn ended(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Whether more input can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < MAX_QUEUE
    }

    /// Takes input for the process; what it cannot read any more is thrown away.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() && !self.ending {
            self.queue.extend_from_slice(bytes);
            self.write_queue();
        }
    }

    /// No more input comes: the process reads end of file after what it was fed.
    pub(super) fn end_input(&mut self) {
        if self.is_terminal {
            self.feed(&[END_OF_TRANSMISSION]);
        } else {
            self.ending = true;
            self.write_queue();
        }
    }

    /// The descriptor to write to, while something waits to be written.
    pub(super) fn blocked_input(&self) -> Option<BorrowedFd<'_>> {
        let waiting = !self.queue.is_empty();
        self.stdin.as_ref().filter(|_| waiting).map(AsFd::as_fd)
    }

    /// Writes as much input as the process takes.
    pub(super) fn write_queue(&mut self) {
        while let Some(stdin) = &self.stdin {
            if self.queue.is_empty() {
                if self.ending {
                    self.stdin = None;
                }
                return;
            }
            match write(stdin, &self.queue) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The process has closed its end.
                Err(_) => {
                    self.stdin = None;
                    self.queue = Vec::new();
                }
            }
        }
    }

    /// Tells a terminal its size; of no effect on pipes.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let Some(master) = self.stdin.as_ref().filter(|_| self.is_terminal) {
            let size = Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            if let Err(error) = tcsetwinsize(master, size) {
                super::complain(&format_args!("resize the terminal: {error}"));
            }
        }
    }
}

fn output(owner: (Uid, Gid)) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_of(owner)?;
    fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((ours, theirs))
}

/// A pipe that belongs to the process' user, who could not open
/// `/dev/stdout` otherwise.
fn pipe_of((uid, gid): (Uid, Gid)) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fchown(&writer, Some(uid), Some(gid))?;
    Ok((reader, writer))
}

fn owner(user: &oci::User, bundle: &Bundle) -> (Uid, Gid) {
    let uid = on_host(user.uid(), bundle.uid_mappings());
    let gid = on_host(user.gid(), bundle.gid_mappings());
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

/// The host's id for one of the container's; the same where nothing is mapped.
fn on_host(id: u32, mappings: &[oci::LinuxIdMapping]) -> u32 {
    let mapped = mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then(|| mapping.host_id().saturating_add(offset))
    });
    mapped.unwrap_or(id)
}
