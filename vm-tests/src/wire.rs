//! Frames between the harness and the agent in the guest, over one byte stream.
//!
//! ```text
//! ┌─────────┬──────────────┬─────────────┬─────────────────┐
//! │ kind u8 │ channel u32  │ length u32  │ payload ≤ 64 KiB│   big endian
//! └─────────┴──────────────┴─────────────┴─────────────────┘
//! ```
//!
//! The harness picks a new channel for every command; all frames of that
//! command carry it. Channel 0 is the agent itself.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// The most that one frame carries.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What a frame means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Guest: the agent is ready. Payload: [`Hello`] as JSON.
    Hello = 1,
    /// Harness: start a command. Payload: [`Run`] as JSON.
    Run = 2,
    /// Harness: bytes for the command's standard input; empty closes it.
    Stdin = 3,
    /// Harness: kill the command with SIGKILL.
    Kill = 4,
    /// Guest: bytes of standard output.
    Stdout = 5,
    /// Guest: bytes of standard error.
    Stderr = 6,
    /// Guest: the command has ended. Payload: [`Exit`] as JSON; the last frame of its channel.
    Exit = 7,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        [
            Self::Hello,
            Self::Run,
            Self::Stdin,
            Self::Kill,
            Self::Stdout,
            Self::Stderr,
            Self::Exit,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == value)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it means.
    pub kind: Kind,
    /// The command it belongs to.
    pub channel: u32,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame whose payload is `value` as JSON.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON.
    pub fn json(kind: Kind, channel: u32, value: &impl Serialize) -> io::Result<Self> {
        Ok(Self {
            kind,
            channel,
            payload: serde_json::to_vec(value)?,
        })
    }

    /// Reads one frame; `None` at the end of the stream, between frames.
    ///
    /// # Errors
    /// When the stream fails, ends inside a frame, or does not speak this protocol.
    pub fn read_from(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0u8; 9];
        loop {
            match stream.read(&mut header[..1]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        stream.read_exact(&mut header[1..])?;
        let [kind, c0, c1, c2, c3, l0, l1, l2, l3] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let Some(kind) = Kind::from_u8(kind).filter(|_| length <= MAX_PAYLOAD) else {
            let message = format!("not a frame: kind {kind}, length {length}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        Ok(Some(Self {
            kind,
            channel: u32::from_be_bytes([c0, c1, c2, c3]),
            payload,
        }))
    }

    /// Writes the frame with one `write_all`, so that a lock around it keeps frames whole.
    ///
    /// # Errors
    /// When the stream fails or the payload is larger than [`MAX_PAYLOAD`].
    pub fn write_to(&self, stream: &mut impl Write) -> io::Result<()> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "frame payload too large");
        let length = u32::try_from(self.payload.len()).map_err(|_overflow| too_large())?;
        if self.payload.len() > MAX_PAYLOAD {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(9 + self.payload.len());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.channel.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        stream.write_all(&bytes)?;
        stream.flush()
    }
}

/// What the agent says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// `/proc/sys/kernel/random/boot_id`: differs at every boot.
    pub boot_id: String,
    /// Seconds since the kernel started, as `/proc/uptime` has them.
    pub uptime: String,
}

/// A command to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment variables over the agent's own.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub workdir: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be started.
    NotStarted(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_stream_and_its_end_is_seen() {
        let frames = [
            Frame {
                kind: Kind::Stdout,
                channel: 7,
                payload: vec![0, 255, 10],
            },
            Frame {
                kind: Kind::Stdin,
                channel: u32::MAX,
                payload: Vec::new(),
            },
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write_to(&mut bytes).unwrap();
        }
        let mut stream = bytes.as_slice();
        assert_eq!(
            Frame::read_from(&mut stream).unwrap().as_ref(),
            Some(&frames[0])
        );
        assert_eq!(
            Frame::read_from(&mut stream).unwrap().as_ref(),
            Some(&frames[1])
        );
        assert_eq!(Frame::read_from(&mut stream).unwrap(), None);
    }

    #[test]
    fn garbage_oversize_and_truncation_are_errors() {
        let garbage = b"\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        assert!(Frame::read_from(&mut garbage.as_slice()).is_err());
        let oversize = [5, 0, 0, 0, 1, 0xff, 0, 0, 0];
        assert!(Frame::read_from(&mut oversize.as_slice()).is_err());
        let truncated = [5, 0, 0, 0, 1, 0, 0, 0, 9, b'x'];
        assert!(Frame::read_from(&mut truncated.as_slice()).is_err());
        let large = Frame {
            kind: Kind::Stdin,
            channel: 1,
            payload: vec![0; MAX_PAYLOAD + 1],
        };
        assert!(large.write_to(&mut Vec::new()).is_err());
    }
}
