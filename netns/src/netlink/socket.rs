//! A synchronous netlink socket. The kernel answers a request inside
//! `sendto(2)`, so a batch is one call to send and one loop to read.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::Message;
use crate::error::{Error, Result};

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
/// The kernel fills at most 32 KiB of a dump at once.
const BUFFER: usize = 64 << 10;
/// A dump that changed under our hands is read again, this often.
const DUMP_ATTEMPTS: usize = 8;

/// One message of an answer: its type and what follows the header.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// A message as it stands in a datagram.
#[derive(Debug, PartialEq, Eq)]
struct Raw {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// The port id of whoever caused it.
    port: u32,
    body: Vec<u8>,
}

/// A socket bound to the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace. `protocol`
    /// is `None` for rtnetlink.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        Self::subscribe(protocol, 0)
    }

    /// Opens a socket that hears of the changes of these multicast groups.
    pub(crate) fn subscribe(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        // A replaced ruleset is one message to the kernel, and its errors must
        // all find room. Both limits are lifted for CAP_NET_ADMIN only; without
        // it the defaults hold.
        for set in [
            rustix::net::sockopt::set_socket_send_buffer_size_force,
            rustix::net::sockopt::set_socket_recv_buffer_size_force,
        ] {
            match set(&fd, 4 << 20) {
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends requests in one system call and reads the answers to all. Each
    /// request must ask for an acknowledgement ([`Message::acknowledged`]).
    pub(crate) fn request(
        &mut self,
        operation: &str,
        requests: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<Reply>> {
        let (first, count) =
            self.send(operation, requests.into_iter().map(Message::acknowledged))?;
        self.answers(operation, first, count)
    }

    /// Sends an nftables transaction: as [`request`](Self::request), but only
    /// the messages of `batch` that ask for it are acknowledged.
    pub(crate) fn transaction(&mut self, operation: &str, batch: Vec<Message>) -> Result<()> {
        let (first, count) = self.send(operation, batch)?;
        self.pending(operation, first, count)
    }

    /// Reads a whole table of the kernel, again if it changed meanwhile.
    pub(crate) fn dump(&mut self, operation: &str, request: &Message) -> Result<Vec<Reply>> {
        for _ in 0..DUMP_ATTEMPTS {
            let (first, _) = self.send(operation, [request.clone()])?;
            let (replies, interrupted) = self.dumped(operation, first)?;
            if !interrupted {
                return Ok(replies);
            }
        }
        Err(failed(operation, rustix::io::Errno::INTR.into()))
    }

    /// The port id by which the kernel knows the socket.
    pub(crate) fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        Ok(SocketAddrNetlink::try_from(address)?.pid())
    }

    /// Reads the notifications that are there: whether any, of a type and from
    /// a port id, is of interest. Lost notifications are.
    pub(crate) fn heard(&mut self, interesting: impl Fn(u16, u32) -> bool) -> Result<bool> {
        const OPERATION: &str = "read notifications";
        let mut heard = false;
        loop {
            match self.receive(OPERATION, RecvFlags::DONTWAIT) {
                Ok(messages) => {
                    heard |= messages.iter().any(|raw| interesting(raw.kind, raw.port));
                }
                Err(Error::Netlink { source, .. }) if is_empty(&source) => return Ok(heard),
                Err(Error::Netlink { source, .. }) if is_overrun(&source) => heard = true,
                Err(error) => return Err(error),
            }
        }
    }

    fn send(
        &mut self,
        operation: &str,
        requests: impl IntoIterator<Item = Message>,
    ) -> Result<(u32, usize)> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(4096);
        let mut count = 0;
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.finish(self.sequence, &mut bytes);
            count += 1;
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())
            .map_err(|errno| failed(operation, errno.into()))?;
        Ok((first, count))
    }

    /// Reads until every request is acknowledged; the first error wins.
    fn answers(&mut self, operation: &str, first: u32, count: usize) -> Result<Vec<Reply>> {
        let mut replies = Vec::new();
        let mut outcome = HashMap::new();
        while outcome.len() < count {
            for Raw {
                kind,
                sequence,
                body,
                ..
            } in self.receive(operation, RecvFlags::empty())?
            {
                let request = sequence.wrapping_sub(first) as usize;
                if request >= count {
                    continue; // an answer to a call that failed half-way
                }
                if kind == ERROR {
                    outcome.insert(request, error_number(&body));
                } else {
                    replies.push(Reply { kind, body });
                }
            }
        }
        let mut failures: Vec<_> = outcome
            .into_iter()
            .filter(|(_, errno)| *errno != 0)
            .collect();
        failures.sort_unstable();
        match failures.first() {
            Some((_, errno)) => Err(failed(operation, io::Error::from_raw_os_error(*errno))),
            None => Ok(replies),
        }
    }

    /// Reads the answers that are queued already.
    fn pending(&mut self, operation: &str, first: u32, count: usize) -> Result<()> {
        let mut failure = None;
        loop {
            let messages = match self.receive(operation, RecvFlags::DONTWAIT) {
                Err(Error::Netlink { source, .. }) if is_empty(&source) => {
                    break;
                }
                other => other?,
            };
            for Raw {
                kind,
                sequence,
                body,
                ..
            } in messages
            {
                let ours = (sequence.wrapping_sub(first) as usize) < count;
                let errno = error_number(&body);
                if ours && kind == ERROR && errno != 0 {
                    failure.get_or_insert(errno);
                }
            }
        }
        match failure {
            Some(errno) => Err(failed(operation, io::Error::from_raw_os_error(errno))),
            None => Ok(()),
        }
    }

    fn dumped(&mut self, operation: &str, first: u32) -> Result<(Vec<Reply>, bool)> {
        let mut replies = Vec::new();
        let mut interrupted = false;
        loop {
            for Raw {
                kind,
                flags,
                sequence,
                body,
                ..
            } in self.receive(operation, RecvFlags::empty())?
            {
                if sequence != first {
                    continue;
                }
                interrupted |= flags & DUMP_INTERRUPTED != 0;
                match kind {
                    DONE => match error_number(&body) {
                        0 => return Ok((replies, interrupted)),
                        errno => {
                            return Err(failed(operation, io::Error::from_raw_os_error(errno)));
                        }
                    },
                    ERROR => {
                        let errno = error_number(&body);
                        return Err(failed(operation, io::Error::from_raw_os_error(errno)));
                    }
                    _ => replies.push(Reply { kind, body }),
                }
            }
        }
    }

    fn receive(&self, operation: &str, flags: RecvFlags) -> Result<Vec<Raw>> {
        let mut buffer = vec![0; BUFFER];
        let (length, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, buffer.as_mut_slice(), flags))
                .map_err(|errno| failed(operation, errno.into()))?;
        split(&buffer[..length]).ok_or_else(|| Error::Reply {
            operation: operation.to_owned(),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_empty(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The kernel had more to say than the socket could hold.
fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

fn failed(operation: &str, source: io::Error) -> Error {
    Error::Netlink {
        operation: operation.to_owned(),
        source,
    }
}

/// The errno at the front of an `NLMSG_ERROR` or `NLMSG_DONE` body.
fn error_number(body: &[u8]) -> i32 {
    body.first_chunk::<4>()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes).wrapping_neg())
}

/// Cuts a datagram into messages; `None` if a length is impossible.
fn split(mut bytes: &[u8]) -> Option<Vec<Raw>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let header = bytes.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = bytes.get(HEADER..length)?;
        messages.push(Raw {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            port: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
            body: body.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    #[test]
    fn datagram_is_cut_at_message_boundaries() {
        let mut bytes = Vec::new();
        Message::new(20, 0, &[1, 2, 3, 4]).finish(5, &mut bytes);
        Message::new(21, flags::ACK, &[9]).finish(6, &mut bytes);
        let messages = split(&bytes).unwrap();
        let raw = |kind, flags, sequence, body: &[u8]| Raw {
            kind,
            flags,
            sequence,
            port: 0,
            body: body.to_vec(),
        };
        assert_eq!(messages[0], raw(20, 1, 5, &[1, 2, 3, 4]));
        assert_eq!(messages[1], raw(21, 5, 6, &[9, 0, 0, 0]));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let mut bytes = Vec::new();
        Message::new(20, 0, &[1, 2, 3, 4]).finish(5, &mut bytes);
        assert!(split(&bytes[..18]).is_none(), "cut short");
        bytes[0] = 3;
        assert!(split(&bytes).is_none(), "shorter than its header");
    }

    #[test]
    fn kernel_answers_and_its_errors_name_the_operation() {
        let mut socket = Socket::open(None).unwrap();
        let links = Message::new(18, flags::DUMP, &[0; 16]);
        assert!(!socket.dump("list links", &links).unwrap().is_empty());
        let nonsense = Message::new(18, 0, &[0; 16]);
        let error = socket.request("read no link", [nonsense]).unwrap_err();
        assert_eq!(error.to_string(), "cannot read no link");
    }
}
