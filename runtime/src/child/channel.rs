//! What parent and child tell each other: one packet each, of fixed size.
//!
//! ```text
//!  parent                        child
//!    │ ── go (+ root) ─────────▶   │   ids are mapped; with the root, if that waited for it
//!    │ ◀── terminal (+ fd) ──────  │   if it has one
//!    │ ◀── hooks ── go ────────▶   │   if there are any
//!    │ ◀── listener (+ fd) ──────  │   if calls of it are notified of
//!    │ ◀── ready ────────────────  │
//!    │ ── start ───────────────▶   │   or "go", and start comes through a FIFO, by another process
//!    │ ◀── end of file ──────────  │   execve succeeded
//!    │ ◀── failed {step, errno} ─  │   at any time, instead
//! ```

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};

const GO: u8 = 1;
const READY: u8 = 2;
const TERMINAL: u8 = 3;
const FAILED: u8 = 4;
const CLONED: u8 = 5;
const HOOKS: u8 = 6;
const LISTENER: u8 = 7;

/// `[what, step (u32), errno or pid (i32)]`.
const PACKET: usize = 9;

/// The largest error number that a system call returns (`err.h`, `MAX_ERRNO`).
const MAX_ERRNO: i32 = 4095;

/// The child's end.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

/// The parent's end.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

/// What a child reported.
#[derive(Debug)]
pub(crate) enum Report {
    /// It waits for its hooks.
    Hooks,
    /// It waits to be started.
    Ready,
    /// The master of its terminal.
    Terminal(OwnedFd),
    /// What its seccomp notifications are received by.
    Listener(OwnedFd),
    /// The process between parent and child cloned this one.
    Cloned(i32),
    /// A step failed.
    Failed {
        /// Index into the plan's steps; their number stands for `execve` itself.
        step: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// It executed its program, or died.
    Closed,
}

/// A connected pair of ends.
pub(crate) fn pair() -> Result<(Receiver, Reporter)> {
    let (parent, child) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((Receiver(parent), Reporter(child)))
}

impl Reporter {
    /// Blocks until the parent says go; what it hands over with that.
    pub(crate) fn await_parent(&self) -> Result<Option<OwnedFd>> {
        let mut byte = [0];
        match receive(&self.0, &mut byte)? {
            (0, _) => Err(Errno::SRCH),
            (_, handed) => Ok(handed),
        }
    }

    /// Says that all is ready and blocks until a byte comes on `start`. Where that
    /// is another's to say, its parent lets it go on before: who is not on record
    /// does not outlive its parent. `read(2)`, as a seccomp filter may be in force.
    pub(crate) fn await_start(&self, start: BorrowedFd<'_>) -> Result<()> {
        self.send(READY, 0, 0, None)?;
        if start.as_raw_fd() != self.0.as_raw_fd() {
            await_byte(self.0.as_fd())?;
        }
        await_byte(start)
    }

    /// Says that its hooks are due and blocks until they are done.
    pub(crate) fn await_hooks(&self) -> Result<()> {
        self.send(HOOKS, 0, 0, None)?;
        self.await_parent().map(drop)
    }

    /// Hands the terminal's master over.
    pub(crate) fn terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        self.send(TERMINAL, 0, 0, Some(master))
    }

    /// Hands the listener of its seccomp filter over.
    pub(crate) fn listener(&self, listener: BorrowedFd<'_>) -> Result<()> {
        self.send(LISTENER, 0, 0, Some(listener))
    }

    /// Says which process was cloned.
    pub(crate) fn cloned(&self, pid: i32) -> Result<()> {
        self.send(CLONED, 0, pid, None)
    }

    /// Says which step failed; whether anybody is there to hear it.
    pub(crate) fn fail(&self, step: usize, errno: Errno) -> bool {
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        self.send(FAILED, step, errno.raw_os_error(), None).is_ok()
    }

    /// Fails if the parent's end is closed: it died before the death signal was set.
    /// Not by poll(2), which refuses to look at more descriptors than a process may have.
    pub(crate) fn parent_lives(&self) -> Result<()> {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::io::retry_on_intr(|| recv(&self.0, &mut [0], look)) {
            Err(Errno::AGAIN) => Ok(()),
            Ok((_, length)) if length > 0 => Ok(()),
            _ => Err(Errno::SRCH),
        }
    }

    /// This end, where it is also the one that the word to start comes on.
    pub(crate) fn as_start(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn send(&self, what: u8, step: u32, value: i32, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut packet = [0; PACKET];
        packet[0] = what;
        packet[1..5].copy_from_slice(&step.to_ne_bytes());
        packet[5..9].copy_from_slice(&value.to_ne_bytes());
        send(&self.0, &packet, fd)
    }
}

impl Receiver {
    /// Closes a child's copy of this end: else the child could not see its
    /// parent's death, being the other party itself.
    pub(crate) fn close_copy(&self) {
        crate::sys::process::close_copy(self.0.as_fd());
    }

    /// Lets the child go on, with what it was to get.
    pub(crate) fn go(&self, handed: Option<BorrowedFd<'_>>) -> Result<()> {
        send(&self.0, &[GO], handed)
    }

    /// The next report; `ETIMEDOUT` when there is none within `patience`.
    pub(crate) fn report(&self, patience: Duration) -> Result<Report> {
        self.await_packet(patience)?;
        let mut packet = [0; PACKET];
        let (bytes, fd) = match receive(&self.0, &mut packet) {
            Err(Errno::CONNRESET) => (0, None),
            received => received?,
        };
        if bytes == 0 {
            return Ok(Report::Closed);
        }
        decode(&packet[..bytes], fd)
    }
}

/// What a packet says. It comes from code of ours, but from a process that a
/// container's configuration drives: it is refused rather than trusted.
pub(crate) fn decode(packet: &[u8], fd: Option<OwnedFd>) -> Result<Report> {
    let &[what, a, b, c, d, e, f, g, h] = packet else {
        return Err(Errno::BADMSG);
    };
    let value = i32::from_ne_bytes([e, f, g, h]);
    match what {
        READY => Ok(Report::Ready),
        HOOKS => Ok(Report::Hooks),
        CLONED if value > 0 => Ok(Report::Cloned(value)),
        TERMINAL => fd.map(Report::Terminal).ok_or(Errno::BADMSG),
        LISTENER => fd.map(Report::Listener).ok_or(Errno::BADMSG),
        // Other numbers are no answer of a kernel's, and no `Errno` either.
        FAILED if (1..=MAX_ERRNO).contains(&value) => Ok(Report::Failed {
            step: u32::from_ne_bytes([a, b, c, d]) as usize,
            errno: Errno::from_raw_os_error(value),
        }),
        _ => Err(Errno::BADMSG),
    }
}

impl Receiver {
    fn await_packet(&self, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let left = patience.saturating_sub(begin.elapsed());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Sends one packet, with a descriptor where there is one.
fn send(socket: &OwnedFd, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let fds = fd.map(|fd| [fd]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let slices = [IoSlice::new(packet)];
    sendmsg(socket, &slices, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// Receives one packet: its length, and the descriptor that came with it.
fn receive(socket: &OwnedFd, packet: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut *packet)];
        recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((received.bytes, fd))
}

/// Any byte will do; the end of the stream means that nobody can say it any more.
fn await_byte(fd: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut byte))? {
        0 => Err(Errno::SRCH),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(what: u8, step: u32, value: i32) -> Vec<u8> {
        let mut packet = vec![what];
        packet.extend(step.to_ne_bytes());
        packet.extend(value.to_ne_bytes());
        packet
    }

    #[test]
    fn what_no_child_of_ours_sends_is_refused_and_not_believed() {
        let table = [
            vec![],
            vec![READY],
            [packet(READY, 0, 0), vec![0]].concat(),
            packet(0, 0, 0),
            packet(GO, 0, 0),
            packet(255, 0, 0),
            packet(CLONED, 0, 0),
            packet(CLONED, 0, -1),
            packet(FAILED, 3, 0),
            packet(FAILED, 3, -2),
            packet(FAILED, 3, 4096),
            packet(FAILED, 3, i32::MIN),
            packet(TERMINAL, 0, 0),
            packet(LISTENER, 0, 0),
        ];
        for bytes in table {
            assert!(
                matches!(decode(&bytes, None), Err(Errno::BADMSG)),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_child_knows_whether_its_parent_lives() {
        let (receiver, reporter) = pair().unwrap();
        assert_eq!(reporter.parent_lives(), Ok(()));
        receiver.go(None).unwrap();
        assert_eq!(reporter.parent_lives(), Ok(()));
        assert!(reporter.await_parent().is_ok());
        drop(receiver);
        assert_eq!(reporter.parent_lives(), Err(Errno::SRCH));
    }

    #[test]
    fn what_a_child_sends_is_understood() {
        let failed = decode(&packet(FAILED, 7, 13), None);
        assert!(matches!(
            failed,
            Ok(Report::Failed {
                step: 7,
                errno: Errno::ACCESS
            })
        ));
        let cloned = decode(&packet(CLONED, 0, 4711), None);
        assert!(matches!(cloned, Ok(Report::Cloned(4711))));
        assert!(matches!(
            decode(&packet(READY, 0, 0), None),
            Ok(Report::Ready)
        ));
    }
}
