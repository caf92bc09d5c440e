//! A connection to systemd or to a message bus, over a unix socket.
//!
//! The D-Bus specification, "Authentication Protocol" (EXTERNAL: the kernel tells the
//! other side who we are) and "Message Bus Specification". One call at a time, each
//! with a time limit; signals that come meanwhile are kept.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::wire::{ERROR, METHOD_CALL, METHOD_RETURN, Message, SIGNAL, Value};
use super::{Error, Result};

/// systemd's answers take milliseconds; runc waits as long for a job.
const PATIENCE: Duration = Duration::from_secs(30);
/// Signals that nobody has asked for are forgotten beyond so many (P15).
const MAX_SIGNALS: usize = 1024;

const BUS: &str = "org.freedesktop.DBus";

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
    deadline: Instant,
    where_to: PathBuf,
}

impl Bus {
    /// Connects to a socket and logs in. Behind that of a message bus there are others
    /// beside systemd, and we need a name.
    pub(super) fn connect(socket: &Path, is_message_bus: bool) -> Result<Self> {
        let failed = |source| Error::Connection {
            socket: socket.to_owned(),
            source,
        };
        let stream = UnixStream::connect(socket).map_err(failed)?;
        let mut bus = Self {
            stream,
            serial: 0,
            signals: VecDeque::new(),
            deadline: Instant::now() + PATIENCE,
            where_to: socket.to_owned(),
        };
        bus.log_in().map_err(failed)?;
        if is_message_bus {
            bus.call(BUS, "/org/freedesktop/DBus", BUS, "Hello", Vec::new())?;
        }
        Ok(bus)
    }

    fn log_in(&mut self) -> io::Result<()> {
        // Without an identity in the words: it is the one that the kernel attests, even
        // if we are in a user namespace and cannot know our name outside.
        self.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
        self.expect_line("DATA")?;
        self.stream.write_all(b"DATA\r\n")?;
        self.expect_line("OK ")?;
        self.stream.write_all(b"BEGIN\r\n")
    }

    fn expect_line(&mut self, begin: &str) -> io::Result<()> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 512 {
                break;
            }
        }
        if line.starts_with(begin.as_bytes()) {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        Err(io::Error::new(io::ErrorKind::PermissionDenied, line))
    }

    /// Calls a method and returns what it returns.
    pub(super) fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>> {
        self.deadline = Instant::now() + PATIENCE;
        self.send(Message {
            kind: METHOD_CALL,
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            destination: destination.to_owned(),
            body,
            ..Message::default()
        })?;
        loop {
            let answer = self.receive()?;
            if answer.reply_serial != self.serial {
                continue;
            }
            match answer.kind {
                METHOD_RETURN => return Ok(answer.body),
                ERROR => {
                    let text = answer.body.first().and_then(Value::as_str);
                    return Err(Error::Answer {
                        method: member.to_owned(),
                        name: answer.error_name,
                        text: text.unwrap_or_default().to_owned(),
                    });
                }
                _ => {}
            }
        }
    }

    /// Sends a message with the next serial number.
    pub(super) fn send(&mut self, mut message: Message) -> Result<()> {
        self.serial += 1;
        message.serial = self.serial;
        let sent = self.stream.write_all(&message.encode());
        sent.map_err(|source| self.failed(source))
    }

    /// Asks a message bus for signals.
    pub(super) fn add_match(&mut self, rule: &str) -> Result<()> {
        let rule = vec![Value::str(rule)];
        self.call(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", rule)?;
        Ok(())
    }

    /// Waits for a signal that `wanted` accepts, as long as for a call.
    pub(super) fn signal(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        self.deadline = Instant::now() + PATIENCE;
        loop {
            let mut signals = std::mem::take(&mut self.signals).into_iter();
            if let Some(signal) = signals.find(|signal| wanted(signal)) {
                self.signals = signals.collect();
                return Ok(signal);
            }
            while self.signals.is_empty() {
                self.receive()?;
            }
        }
    }

    /// The next message; a signal is kept as well.
    pub(super) fn receive(&mut self) -> Result<Message> {
        let mut head = [0; 16];
        self.read_exact(&mut head)
            .map_err(|source| self.failed(source))?;
        let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
        let length = Message::length(&head).ok_or_else(|| self.failed(nonsense()))?;
        let mut bytes = head.to_vec();
        bytes.resize(length, 0);
        self.read_exact(&mut bytes[16..])
            .map_err(|source| self.failed(source))?;
        let message = Message::decode(&bytes).ok_or_else(|| self.failed(nonsense()))?;
        if message.kind == SIGNAL && self.signals.len() < MAX_SIGNALS {
            self.signals.push_back(message.clone());
        }
        Ok(message)
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Connection {
            socket: self.where_to.clone(),
            source,
        }
    }
}
