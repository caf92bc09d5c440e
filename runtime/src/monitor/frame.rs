//! The framing of attach and exec connections.
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
    /// Dyno → client, last: JSON of [`super::protocol::ExitStatus`].
    Exit = 4,
    /// Client → dyno: one byte, the number of a signal to send.
    Signal = 5,
    /// Dyno → client, last: JSON of [`super::protocol::Failure`].
    Error = 6,
}

/// What a client asks for in a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Bytes for standard input.
    Stdin(&'a [u8]),
    /// Close standard input.
    StdinEnd,
    /// The terminal has this size now.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// Send this signal.
    Signal(u8),
}

/// Why a client's bytes are not a frame that it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte names no kind that clients send.
    #[error("a client may not send frames of kind {0}")]
    Kind(u8),
    /// The length exceeds [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes exceeds the limit of {MAX_PAYLOAD}")]
    TooLong(u32),
    /// The payload does not have the size that its kind has.
    #[error("frame of kind {kind} with {length} bytes of payload")]
    Payload {
        /// Its kind.
        kind: u8,
        /// Bytes of its payload.
        length: usize,
    },
}

/// Appends frames that carry `bytes`, as many as needed, to `out`.
pub fn encode(out: &mut Vec<u8>, kind: Kind, bytes: &[u8]) {
    for payload in bytes.chunks(MAX_PAYLOAD) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        out.reserve(HEADER + payload.len());
        out.push(kind as u8);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
    }
}

/// The first frame in `bytes` and how many bytes it takes, or `None` while it
/// is incomplete.
///
/// A wrong header is refused before its payload has come, so a caller never
/// holds more than [`HEADER`] + [`MAX_PAYLOAD`] bytes for an incomplete frame.
///
/// # Errors
/// [`FrameError`] for anything a client may not send.
pub fn decode(bytes: &[u8]) -> Result<Option<(Input<'_>, usize)>, FrameError> {
    let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let wire = u32::from_be_bytes([a, b, c, d]);
    let length = wire as usize;
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(wire));
    }
    let expected = match kind {
        k if k == Kind::Stdin as u8 => length,
        k if k == Kind::Resize as u8 => 4,
        k if k == Kind::Signal as u8 => 1,
        other => return Err(FrameError::Kind(other)),
    };
    if length != expected {
        return Err(FrameError::Payload { kind, length });
    }
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    let input = match *payload {
        [] => Input::StdinEnd,
        _ if kind == Kind::Stdin as u8 => Input::Stdin(payload),
        [a, b, c, d] => Input::Resize {
            rows: u16::from_be_bytes([a, b]),
            columns: u16::from_be_bytes([c, d]),
        },
        [signal, ..] => Input::Signal(signal),
    };
    Ok(Some((input, HEADER + length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_is_read_as_documented() {
        let table: [(&[u8], Input<'_>); 6] = [
            (&[0, 0, 0, 0, 2, b'h', b'i'], Input::Stdin(b"hi")),
            (&[0, 0, 0, 0, 1, 9], Input::Stdin(&[9])),
            (&[0, 0, 0, 0, 4, 1, 2, 3, 4], Input::Stdin(&[1, 2, 3, 4])),
            (&[0, 0, 0, 0, 0], Input::StdinEnd),
            (
                &[3, 0, 0, 0, 4, 0, 24, 1, 0],
                Input::Resize {
                    rows: 24,
                    columns: 256,
                },
            ),
            (&[5, 0, 0, 0, 1, 15], Input::Signal(15)),
        ];
        for (bytes, input) in table {
            assert_eq!(decode(bytes), Ok(Some((input, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn wrong_headers_are_refused_without_waiting_for_a_payload() {
        assert_eq!(decode(&[1, 0, 0, 0, 1]), Err(FrameError::Kind(1)));
        assert_eq!(decode(&[200, 0, 0, 0, 0]), Err(FrameError::Kind(200)));
        assert_eq!(decode(&[0, 0, 1, 0, 1]), Err(FrameError::TooLong(65_537)));
        assert_eq!(
            decode(&[3, 0, 0, 0, 5]),
            Err(FrameError::Payload { kind: 3, length: 5 })
        );
        assert_eq!(
            decode(&[5, 0, 0, 0, 0]),
            Err(FrameError::Payload { kind: 5, length: 0 })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_there_are(bytes: Vec<u8>) {
            if let Ok(Some((_, taken))) = decode(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }

        #[test]
        fn what_is_encoded_arrives(length in 0_usize..200_000, step in 1_u8..) {
            let bytes: Vec<u8> = (0..length).map(|i| i.to_le_bytes()[0].wrapping_mul(step)).collect();
            let mut wire = Vec::new();
            encode(&mut wire, Kind::Stdin, &bytes);
            let (mut rest, mut got) = (wire.as_slice(), Vec::new());
            while let Some((Input::Stdin(piece), taken)) = decode(rest).unwrap() {
                got.extend_from_slice(piece);
                rest = &rest[taken..];
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(got, bytes);
        }
    }
}
