//! Frames after an upgrade: the streams of a dyno or of a process in it.

use bytes::{Bytes, BytesMut};
use hyper_util::rt::TokioIo;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::connection::Answer;
use super::stream::Stream;
use super::{Client, Error};
use crate::dyno::{AttachRequest, ExecRequest, ExitStatus};
use crate::error::{ApiError, ErrorKind};
use crate::frame::{self, HEADER, Kind, MAX_PAYLOAD};

/// What a dyno sends to an attached client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes of standard output, or of the terminal.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// It has ended; nothing follows.
    Exit(ExitStatus),
    /// The stream failed; nothing follows.
    Failed(ApiError),
}

/// An attached stream, both directions.
#[derive(Debug)]
pub struct Attached {
    /// What the dyno sends.
    pub reader: FrameReader,
    /// What the client sends.
    pub writer: FrameWriter,
}

/// The direction from the dyno.
#[derive(Debug)]
pub struct FrameReader {
    stream: ReadHalf<Stream>,
    buffer: BytesMut,
}

/// The direction to the dyno.
#[derive(Debug)]
pub struct FrameWriter {
    stream: WriteHalf<Stream>,
}

impl Client {
    /// Attaches to a dyno's standard streams. Output from before is in its log;
    /// of a dyno that is not started yet, nothing is missed.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno or it has ended.
    pub async fn attach(&self, dyno: &str, request: &AttachRequest) -> Result<Attached, Error> {
        let call = Self::dyno_call(http::Method::POST, dyno, "/attach")
            .json(request)?
            .upgrade();
        self.send(call).await?.into_attached().await
    }

    /// Starts a process in a running dyno and attaches to it.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such dyno, it does not run, or the
    /// process cannot be started.
    pub async fn exec(&self, dyno: &str, request: &ExecRequest) -> Result<Attached, Error> {
        let call = Self::dyno_call(http::Method::POST, dyno, "/exec")
            .json(request)?
            .upgrade();
        self.send(call).await?.into_attached().await
    }
}

impl Answer {
    async fn into_attached(self) -> Result<Attached, Error> {
        let Self {
            operation,
            response,
        } = self;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status().as_u16();
            return Err(Error::Status {
                operation,
                status,
                body: String::new(),
            });
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|source| Error::Http { operation, source })?;
        let parts = upgraded
            .downcast::<TokioIo<Stream>>()
            .map_err(|_upgraded| {
                ApiError::new(
                    ErrorKind::Internal,
                    "the upgraded connection is not the one that was made",
                )
            })?;
        let (read, write) = io::split(parts.io.into_inner());
        let reader = FrameReader {
            stream: read,
            buffer: BytesMut::from(&parts.read_buf[..]),
        };
        Ok(Attached {
            reader,
            writer: FrameWriter { stream: write },
        })
    }
}

impl FrameReader {
    /// What the dyno sends next; `None` where the other side went away
    /// without a last word. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Frame`] for bytes that are no frame or one a client must not
    /// get, [`Error::Decode`] for a last word that cannot be read.
    pub async fn next(&mut self) -> Result<Option<Output>, Error> {
        loop {
            if let Some((kind, payload)) = take_frame(&mut self.buffer)? {
                return decode(kind, payload).map(Some);
            }
            self.buffer.reserve(HEADER + MAX_PAYLOAD);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

impl FrameWriter {
    /// Sends bytes to the standard input; none closes nothing.
    ///
    /// # Errors
    /// [`Error::Stream`] where the other side is gone.
    pub async fn stdin(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for chunk in bytes.chunks(MAX_PAYLOAD) {
            self.frame(Kind::Stdin, chunk).await?;
        }
        Ok(())
    }

    /// Closes the standard input.
    ///
    /// # Errors
    /// [`Error::Stream`] where the other side is gone.
    pub async fn close_stdin(&mut self) -> Result<(), Error> {
        self.frame(Kind::Stdin, &[]).await
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// [`Error::Stream`] where the other side is gone.
    pub async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), Error> {
        let ([a, b], [c, d]) = (rows.to_be_bytes(), columns.to_be_bytes());
        self.frame(Kind::Resize, &[a, b, c, d]).await
    }

    /// Sends a signal, by number.
    ///
    /// # Errors
    /// [`Error::Stream`] where the other side is gone.
    pub async fn signal(&mut self, signal: u8) -> Result<(), Error> {
        self.frame(Kind::Signal, &[signal]).await
    }

    async fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let mut bytes = BytesMut::with_capacity(HEADER + payload.len());
        bytes.extend_from_slice(&frame::header(kind, payload.len())?);
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).await?;
        // TLS keeps what the network does not take at once.
        Ok(self.stream.flush().await?)
    }
}

/// The first whole frame of the buffer.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<(Kind, Bytes)>, Error> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let (kind, length) = frame::parse_header(*header)?;
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    let frame = buffer.split_to(HEADER + length).freeze();
    Ok(Some((kind, frame.slice(HEADER..))))
}

fn decode(kind: Kind, payload: Bytes) -> Result<Output, Error> {
    let unreadable = |source| Error::Decode {
        operation: format!("{kind:?} frame"),
        source,
    };
    match kind {
        Kind::Stdout => Ok(Output::Stdout(payload)),
        Kind::Stderr => Ok(Output::Stderr(payload)),
        Kind::Exit => serde_json::from_slice(&payload)
            .map(Output::Exit)
            .map_err(unreadable),
        Kind::Error => serde_json::from_slice(&payload)
            .map(Output::Failed)
            .map_err(unreadable),
        Kind::Stdin | Kind::Resize | Kind::Signal => {
            Err(Error::Frame(frame::FrameError::Kind(kind as u8)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the stream is cut, the same frames come out.
        #[test]
        fn frames_do_not_depend_on_how_bytes_arrive(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 1_usize..11,
        ) {
            let mut stream = Vec::new();
            for payload in &payloads {
                stream.extend(frame::header(Kind::Stdout, payload.len()).unwrap());
                stream.extend(payload);
            }
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for chunk in stream.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some((kind, payload)) = take_frame(&mut buffer).unwrap() {
                    prop_assert_eq!(kind, Kind::Stdout);
                    seen.push(payload.to_vec());
                }
            }
            prop_assert_eq!(seen, payloads);
        }

        #[test]
        fn bytes_that_are_no_frame_never_panic(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some((kind, payload))) = take_frame(&mut buffer) {
                drop(decode(kind, payload));
            }
        }
    }

    #[test]
    fn a_client_refuses_frames_that_only_clients_send() {
        for kind in [Kind::Stdin, Kind::Resize, Kind::Signal] {
            assert!(
                matches!(decode(kind, Bytes::new()), Err(Error::Frame(_))),
                "{kind:?}"
            );
        }
    }
}
