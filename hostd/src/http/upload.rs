//! A request's body as a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::pace::{BYTES_A_SECOND, Credit, PATIENCE};

/// Chunks of an upload that wait for whoever takes it.
const CHUNKS: usize = 16;

/// A request's body as a stream of bytes. A body that breaks off is an
/// error and never an end: half an archive is no archive.
#[derive(Debug)]
pub(super) struct Upload {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Upload {
    pub(super) fn new(mut body: Body) -> Self {
        let (to, chunks) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            let mut credit = Credit::new();
            loop {
                let begin = Instant::now();
                let chunk = match timeout(credit.left(), body.frame()).await {
                    Ok(None) => return,
                    Ok(Some(Ok(frame))) => frame.into_data().map_or_else(|_| Ok(Bytes::new()), Ok),
                    Ok(Some(Err(error))) => Err(io::Error::other(error)),
                    Err(_) => Err(too_slow()),
                };
                let bytes = chunk.as_ref().map_or(0, Bytes::len);
                credit.spend(begin.elapsed(), bytes);
                let ended = chunk.is_err();
                if to.send(chunk).await.is_err() || ended {
                    return;
                }
            }
        });
        Self {
            chunks,
            current: Bytes::new(),
        }
    }
}

fn too_slow() -> io::Error {
    let seconds = PATIENCE.as_secs();
    let message = format!(
        "the archive does not arrive: fewer than {BYTES_A_SECOND} bytes a second for {seconds} s"
    );
    io::Error::new(io::ErrorKind::TimedOut, message)
}

impl AsyncRead for Upload {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.chunks.poll_recv(context)) {
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.current.len().min(into.remaining());
        into.put_slice(&self.current[..length]);
        self.current.advance(length);
        Poll::Ready(Ok(()))
    }
}
