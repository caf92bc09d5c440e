//! The bytes of a connection, until its token is over.
//!
//! Requests, streams of answers, and what attach and exec make of a connection all read
//! and write here: what ends here ends for each of them, whoever has it by then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Session;

/// A stream that breaks off once its session is over.
pub struct Cut<S> {
    stream: S,
    /// `None` once it is over.
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Cut<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut")
            .field("stream", &self.stream)
            .field("is_over", &self.over.is_none())
            .finish()
    }
}

impl<S> Cut<S> {
    /// The same bytes, as long as this session lasts.
    pub fn new(stream: S, session: Arc<Session>) -> Self {
        Self {
            stream,
            over: Some(Box::pin(session.over())),
        }
    }

    /// Has whoever reads or writes be woken at the end, too.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(over) = &mut self.over
            && over.as_mut().poll(context).is_pending()
        {
            return Ok(());
        }
        self.over = None;
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the token of this connection is over",
        ))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A farewell is said to nobody who does not take it.
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
