//! Lines of JSON with descriptors beside them, over a unix stream socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The longest request, without its end.
pub(super) const MAX_REQUEST_BYTES: usize = 4096;
/// The most descriptors that come with one line.
pub(super) const MAX_SOCKETS: usize = 8;

/// A line and the descriptors that came with it.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    pub(super) sockets: Vec<OwnedFd>,
}

/// Collects what recvmsg(2) brings until a line is whole.
#[derive(Debug)]
pub(super) struct Lines {
    partial: Line,
    max_bytes: usize,
}

impl Lines {
    /// Lines of at most `max_bytes` bytes.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            partial: Line::default(),
            max_bytes,
        }
    }

    /// One recvmsg(2): a whole line, or `None` for now.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the stream, `InvalidData` for more bytes or
    /// descriptors than one line may have, and those of recvmsg(2).
    pub(super) fn receive(&mut self, stream: impl AsFd) -> io::Result<Option<Line>> {
        let mut chunk = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut chunk)];
        let received = recvmsg(
            stream,
            &mut buffers,
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                self.partial.sockets.extend(sockets);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.partial.bytes.extend(chunk.iter().take(received.bytes));
        let whole = match self.partial.bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 < self.partial.bytes.len() => {
                return Err(invalid("a request before the answer to the last one"));
            }
            Some(end) => {
                self.partial.bytes.truncate(end);
                true
            }
            None => false,
        };
        if self.partial.bytes.len() > self.max_bytes {
            return Err(invalid("line too long"));
        }
        let too_many = self.partial.sockets.len() > MAX_SOCKETS;
        if too_many || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(invalid("more descriptors than a line may have"));
        }
        Ok(whole.then(|| std::mem::take(&mut self.partial)))
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// One sendmsg(2) of a part of `bytes`, with `sockets`; how much was sent. The
/// descriptors are sent with the first byte.
pub(super) fn send(
    stream: impl AsFd,
    bytes: &[u8],
    sockets: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(invalid("more descriptors than a line may have"));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(sent)
}
