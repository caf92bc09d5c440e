//! The framing of attach and exec streams.
//!
//! After the HTTP upgrade both sides exchange frames: one byte of kind, four
//! bytes of payload length (big endian), the payload. The monitor of a dyno
//! speaks the same frames on its own socket, so that hostd only copies bytes.
//!
//! ```text
//!  0        1                 5
//!  +--------+-----------------+---------------
//!  | kind   | length (u32 BE) | payload …
//!  +--------+-----------------+---------------
//! ```

/// The largest payload that either side accepts, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Bytes before the payload.
pub const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client → dyno: bytes for its standard input; an empty payload closes it.
    Stdin = 0,
    /// Dyno → client: bytes of standard output, or of the terminal.
    Stdout = 1,
    /// Dyno → client: bytes of standard error; never with a terminal.
    Stderr = 2,
    /// Client → dyno: terminal size, rows then columns, each u16 big endian.
    Resize = 3,
    /// Dyno → client, last: JSON of [`crate::dyno::ExitStatus`].
    Exit = 4,
    /// Client → dyno: one byte, the number of a signal to send.
    Signal = 5,
    /// Dyno → client, last: JSON of [`crate::error::ApiError`].
    Error = 6,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte names no kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// The length exceeds [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes exceeds the limit of {MAX_PAYLOAD}")]
    TooLong(u32),
}

impl TryFrom<u8> for Kind {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Resize,
            4 => Self::Exit,
            5 => Self::Signal,
            6 => Self::Error,
            other => return Err(FrameError::Kind(other)),
        })
    }
}

/// The header of a frame whose payload has `length` bytes.
///
/// # Errors
/// [`FrameError::TooLong`] above [`MAX_PAYLOAD`].
pub fn header(kind: Kind, length: usize) -> Result<[u8; HEADER], FrameError> {
    let wire = u32::try_from(length).unwrap_or(u32::MAX);
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(wire));
    }
    let [a, b, c, d] = wire.to_be_bytes();
    Ok([kind as u8, a, b, c, d])
}

/// Kind and payload length that a header announces.
///
/// # Errors
/// [`FrameError`] for an unknown kind or a length above [`MAX_PAYLOAD`].
pub fn parse_header(header: [u8; HEADER]) -> Result<(Kind, usize), FrameError> {
    let [kind, a, b, c, d] = header;
    let length = u32::from_be_bytes([a, b, c, d]);
    let payload = length as usize;
    if payload > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    Ok((Kind::try_from(kind)?, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_header_parses_or_is_refused(bytes: [u8; HEADER]) {
            if let Ok((kind, length)) = parse_header(bytes) {
                prop_assert_eq!(header(kind, length), Ok(bytes));
            }
        }
    }
}
