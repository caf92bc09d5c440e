//! One connection to the monitor's socket: lines first, then perhaps frames.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde::Serialize;

use super::frame::{self, FrameError, Input, Kind};
use super::outbox::{Outbox, Patience};
use super::protocol::{ExitStatus, Failure, FailureKind, MAX_REQUEST, Reply, Request};

/// How long a connection may take until its next request is complete (P15).
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long anybody may take for what was still to be sent at the end; who has
/// more patience otherwise has it here, too.
const LINGER: Duration = Duration::from_secs(10);

/// How long a client that is dropped may take to read why.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a connection is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It may send a request.
    Asking,
    /// It is told every status.
    Watching,
    /// It waits for the end of the dyno.
    AwaitingEnd,
    /// It takes part in the dyno's streams.
    Attached {
        /// Its standard input is the dyno's.
        stdin: bool,
    },
    /// It is the streams of an executed process.
    Executing {
        /// Its standard input is the process'.
        stdin: bool,
    },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) role: Role,
    socket: OwnedFd,
    inbox: Vec<u8>,
    outbox: Outbox,
    /// When it connected, or was answered last.
    asked_at: Instant,
    /// It sends nothing more.
    half_closed: bool,
    /// Nothing more is produced for it; it is closed once its outbox is empty.
    closing: bool,
    gone: bool,
    /// When a client that does not even take its last word is dropped.
    leave_by: Option<Instant>,
}

impl Client {
    pub(super) fn new(id: u64, socket: OwnedFd, now: Instant) -> Self {
        Self {
            id,
            role: Role::Asking,
            socket,
            inbox: Vec::new(),
            outbox: Outbox::default(),
            asked_at: now,
            half_closed: false,
            closing: false,
            gone: false,
            leave_by: None,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to poll its socket for; `has_room` tells whether its input can be
    /// passed on.
    pub(super) fn interest(&self, has_room: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        let listens = !self.half_closed && !self.closing;
        if listens && (has_room || !self.feeds()) {
            flags |= PollFlags::IN;
        }
        if !self.outbox.is_empty() {
            flags |= PollFlags::OUT;
        }
        flags
    }

    /// Whether its input goes to a process.
    pub(super) fn feeds(&self) -> bool {
        matches!(
            self.role,
            Role::Attached { stdin: true } | Role::Executing { stdin: true }
        )
    }

    /// Whether what it sends is frames that still count.
    pub(super) fn speaks_frames(&self) -> bool {
        let frames = matches!(self.role, Role::Attached { .. } | Role::Executing { .. });
        frames && !self.closing && !self.gone
    }

    /// Whether it receives the dyno's output.
    pub(super) fn is_attached(&self) -> bool {
        matches!(self.role, Role::Attached { .. }) && !self.closing && !self.gone
    }

    /// Whether output must wait for it.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.is_full() && !self.closing && !self.gone
    }

    /// Whether nothing is left to do with it.
    pub(super) fn is_over(&self) -> bool {
        self.gone || (self.closing && self.outbox.is_empty())
    }

    /// Reads once.
    pub(super) fn receive(&mut self, buffer: &mut [u8], now: Instant) {
        match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.end_of_input(now),
            // They have nothing more to say; it must not pile up (P15).
            Ok(_) if matches!(self.role, Role::Watching | Role::AwaitingEnd) => {}
            Ok((count, _)) => self
                .inbox
                .extend_from_slice(buffer.get(..count).unwrap_or(buffer)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
    }

    /// An asker may close its half and read on; who takes part in streams leaves so.
    fn end_of_input(&mut self, now: Instant) {
        self.half_closed = true;
        match self.role {
            Role::Asking => self.close(now),
            Role::Watching | Role::AwaitingEnd => {}
            Role::Attached { .. } | Role::Executing { .. } => self.gone = true,
        }
    }

    /// The other side hung up.
    pub(super) fn hung_up(&mut self) {
        self.gone = true;
    }

    /// The next complete request.
    pub(super) fn next_request(&mut self) -> Option<Result<Request, Failure>> {
        if self.role != Role::Asking || self.gone || self.closing {
            return None;
        }
        let Some(end) = memchr::memchr(b'\n', &self.inbox) else {
            return (self.inbox.len() >= MAX_REQUEST).then(|| {
                let message = format!("a request has at most {MAX_REQUEST} bytes");
                Err(Failure::new(FailureKind::Invalid, message))
            });
        };
        let line: Vec<u8> = self.inbox.drain(..=end).collect();
        Some(
            serde_json::from_slice(&line).map_err(|error| {
                Failure::new(FailureKind::Invalid, format!("not a request: {error}"))
            }),
        )
    }

    /// The next complete frame is handed to `take`; whether there was one.
    ///
    /// # Errors
    /// [`FrameError`], after which the connection makes no sense any more.
    pub(super) fn next_input(&mut self, take: impl FnOnce(Input<'_>)) -> Result<bool, FrameError> {
        let Some((input, taken)) = frame::decode(&self.inbox)? else {
            return Ok(false);
        };
        take(input);
        self.inbox.drain(..taken);
        if self.inbox.is_empty() {
            self.inbox = Vec::new();
        }
        Ok(true)
    }

    /// Gives the role its patience, after the request for it was granted.
    pub(super) fn become_part(&mut self, role: Role, patience: Patience) {
        self.role = role;
        self.outbox.set_patience(patience);
    }

    pub(super) fn reply(&mut self, reply: &Reply, now: Instant) {
        self.asked_at = now;
        self.outbox.push_line(&json(reply), now);
    }

    pub(super) fn output(&mut self, kind: Kind, bytes: &[u8], now: Instant) {
        self.outbox.push_frames(kind, bytes, now);
    }

    /// Its last frame: how the process ended.
    pub(super) fn exit(&mut self, exit: &ExitStatus, now: Instant) {
        if self.closing {
            return;
        }
        self.outbox.push_frames(Kind::Exit, &json(exit), now);
        self.close(now);
    }

    /// Its last frame, or its last line: what went wrong.
    pub(super) fn fail(&mut self, failure: Failure, now: Instant) {
        if self.closing {
            return;
        }
        match self.role {
            Role::Attached { .. } | Role::Executing { .. } => {
                self.outbox.push_frames(Kind::Error, &json(&failure), now);
            }
            Role::Asking | Role::Watching | Role::AwaitingEnd => {
                self.reply(&Reply::Err(failure), now);
            }
        }
        self.close(now);
    }

    /// Nothing more comes; what waits is still sent, while it is being taken.
    pub(super) fn close(&mut self, now: Instant) {
        self.closing = true;
        self.leave_by = Some(now + self.outbox.patience().limit().max(LINGER));
    }

    /// Sends what its socket takes.
    pub(super) fn flush(&mut self, now: Instant) {
        if !self.gone && self.outbox.flush(self.socket.as_fd(), now).is_err() {
            self.gone = true;
        }
    }

    /// When it is due to be dropped.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let request =
            (self.role == Role::Asking && !self.closing).then(|| self.asked_at + REQUEST_LIMIT);
        let others = self.outbox.deadline().into_iter().chain(self.leave_by);
        request.into_iter().chain(others).min()
    }

    /// Drops it where it is due.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.outbox.deadline().is_some_and(|at| at <= now) {
            self.outbox.cut();
            let failure = Failure::new(
                FailureKind::Exhausted,
                "too slow: output was not taken in time",
            )
            .hint("read it from the log");
            self.fail(failure, now);
            self.leave_by = Some(now + FAREWELL);
        } else if self.leave_by.is_some_and(|at| at <= now) {
            self.gone = true;
        } else if self.deadline().is_some_and(|at| at <= now) {
            let message = format!("no request within {} s", REQUEST_LIMIT.as_secs());
            self.fail(Failure::new(FailureKind::Invalid, message), now);
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of numbers and strings: serialising cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn connected(now: Instant) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(1, ours.into(), now), theirs)
    }

    fn told(mut client: Client, mut theirs: UnixStream, now: Instant) -> String {
        client.flush(now);
        assert!(client.is_over());
        drop(client);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_request_that_does_not_come_in_time_is_refused() {
        let begin = Instant::now();
        let (mut client, mut theirs) = connected(begin);
        theirs.write_all(b"{\"op\":").unwrap();
        // Bytes that trickle in do not prolong it.
        client.receive(&mut [0; 64], begin + Duration::from_secs(20));
        let due = client.deadline().unwrap();
        assert_eq!(due, begin + REQUEST_LIMIT);
        client.tick(due - Duration::from_millis(1));
        assert!(!client.is_over() && client.next_request().is_none());
        client.tick(due);
        assert!(told(client, theirs, due).contains("no request within 30 s"));
    }

    #[test]
    fn a_watcher_may_be_silent_for_ever() {
        let (mut client, _theirs) = connected(Instant::now());
        client.become_part(Role::Watching, Patience::Observer);
        assert_eq!(client.deadline(), None);
    }

    #[test]
    fn who_never_takes_the_last_word_does_not_hold_up_the_end() {
        let now = Instant::now();
        let (mut client, _theirs) = connected(now);
        client.become_part(Role::Attached { stdin: false }, Patience::Observer);
        while client.outbox.is_empty() {
            client.output(Kind::Stdout, &[0; 60_000], now);
            client.flush(now);
        }
        client.close(now);
        assert!(!client.is_over() && !client.is_full());
        client.tick(client.deadline().unwrap());
        assert!(client.is_over());
    }

    #[test]
    fn what_a_watcher_sends_does_not_pile_up() {
        let now = Instant::now();
        let (mut client, mut theirs) = connected(now);
        client.become_part(Role::Watching, Patience::Observer);
        theirs.write_all(&[b'x'; 10_000]).unwrap();
        client.receive(&mut [0; 64 * 1024], now);
        assert!(client.inbox.is_empty());
    }

    #[test]
    fn the_last_word_is_said_once() {
        let now = Instant::now();
        let (mut client, theirs) = connected(now);
        client.become_part(Role::Attached { stdin: false }, Patience::Observer);
        client.fail(Failure::new(FailureKind::Exhausted, "slow"), now);
        let at = jiff::Timestamp::UNIX_EPOCH;
        client.exit(
            &ExitStatus {
                code: 0,
                signal: None,
                oom: false,
                memory_peak_bytes: None,
                at,
            },
            now,
        );
        let text = told(client, theirs, now);
        assert!(text.contains("slow") && !text.contains("code"), "{text:?}");
    }

    #[test]
    fn a_request_longer_than_allowed_is_refused_before_it_ends() {
        let now = Instant::now();
        let (mut client, mut theirs) = connected(now);
        let mut buffer = [0; 64 * 1024];
        let refused = (0..10).find_map(|_| {
            theirs.write_all(&[b'x'; 40_000]).unwrap();
            client.receive(&mut buffer, now);
            client.next_request()
        });
        assert_eq!(refused.unwrap().unwrap_err().kind, FailureKind::Invalid);
        assert!(client.inbox.len() < MAX_REQUEST + buffer.len());
    }

    #[test]
    fn what_follows_a_request_on_its_line_is_kept_for_the_next() {
        let now = Instant::now();
        let (mut client, mut theirs) = connected(now);
        theirs
            .write_all(b"{\"op\":\"status\"}\n{\"op\":\"sta")
            .unwrap();
        client.receive(&mut [0; 64], now);
        assert_eq!(client.next_request(), Some(Ok(Request::Status {})));
        assert_eq!(client.next_request(), None);
        theirs.write_all(b"rt\"}\n").unwrap();
        client.receive(&mut [0; 64], now);
        assert_eq!(client.next_request(), Some(Ok(Request::Start {})));
    }
}
