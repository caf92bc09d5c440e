//! JSON lines that hostd streams: one value per line.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::Error;

/// The longest line that a client reads (P15).
const LINE_MAX: usize = 1 << 20;

/// A stream of values. Dropping it ends the call.
#[derive(Debug)]
pub struct Lines<T> {
    operation: String,
    body: Incoming,
    buffer: LineBuffer,
    values: PhantomData<fn() -> T>,
}

impl<T> Lines<T> {
    pub(super) fn new(operation: String, body: Incoming) -> Self {
        Self {
            operation,
            body,
            buffer: LineBuffer::default(),
            values: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next value; `None` once hostd has ended the stream. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Http`] where the connection broke, [`Error::Decode`] for a
    /// line that is no `T`, [`Error::TooLong`] for one above 1 MiB.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(line) = self.buffer.take_line() {
                return self.decode(&line).map(Some);
            }
            if self.buffer.bytes.len() > LINE_MAX {
                let operation = self.operation.clone();
                return Err(Error::TooLong {
                    operation,
                    limit: LINE_MAX,
                });
            }
            let Some(frame) = self.body.frame().await else {
                let last = self.buffer.take_rest();
                return last.map(|line| self.decode(&line)).transpose();
            };
            let frame = frame.map_err(|source| Error::Http {
                operation: self.operation.clone(),
                source,
            })?;
            if let Ok(data) = frame.into_data() {
                self.buffer.bytes.extend_from_slice(&data);
            }
        }
    }

    fn decode(&self, line: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(line).map_err(|source| Error::Decode {
            operation: self.operation.clone(),
            source,
        })
    }
}

/// Bytes that arrived and are not taken yet.
#[derive(Debug, Default)]
struct LineBuffer {
    bytes: BytesMut,
    /// So many bytes at the front are known to hold no newline.
    searched: usize,
}

impl LineBuffer {
    /// The first whole line that is not blank, without its newline.
    fn take_line(&mut self) -> Option<BytesMut> {
        loop {
            let rest = &self.bytes[self.searched..];
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return None;
            };
            let line = self.bytes.split_to(self.searched + length);
            self.bytes.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    /// What is left at the end of the stream, unless it is blank.
    fn take_rest(&mut self) -> Option<BytesMut> {
        self.searched = 0;
        let rest = self.bytes.split();
        (!rest.trim_ascii().is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the network cuts the stream, the same lines come out.
        #[test]
        fn lines_do_not_depend_on_how_bytes_arrive(
            lines in prop::collection::vec("[a-z]{1,9}", 0..9),
            cut in 1_usize..7,
        ) {
            let stream = lines.iter().map(|line| format!("{line}\n\n")).collect::<String>();
            let mut buffer = LineBuffer::default();
            let mut seen = Vec::new();
            for chunk in stream.as_bytes().chunks(cut) {
                buffer.bytes.extend_from_slice(chunk);
                while let Some(line) = buffer.take_line() {
                    seen.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(seen, lines);
            prop_assert!(buffer.take_rest().is_none());
        }
    }

    #[test]
    fn a_last_line_needs_no_newline() {
        let mut buffer = LineBuffer::default();
        buffer.bytes.extend_from_slice(b"one\ntwo");
        assert_eq!(buffer.take_line().unwrap(), "one");
        assert!(buffer.take_line().is_none());
        assert_eq!(buffer.take_rest().unwrap(), "two");
    }
}
