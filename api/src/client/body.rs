//! What travels to hostd: nothing, JSON, or the bytes of an archive.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, ReadBuf};

/// Bytes read from an archive at once.
const CHUNK: usize = 64 * 1024;

/// The body of a request.
pub(super) enum RequestBody {
    /// No bytes.
    Empty,
    /// JSON, whole.
    Json(Bytes),
    /// Bytes as they are, whole.
    Bytes(Bytes),
    /// An archive, read as hostd takes it, so that its size does not matter.
    Archive(Pin<Box<dyn AsyncRead + Send>>),
}

impl RequestBody {
    /// An archive whose first bytes are there: hostd waits for the next ones only for so
    /// long, and what makes an archive may be at it for a while before it writes any.
    pub(super) async fn archive(reader: impl AsyncRead + Send + 'static) -> io::Result<Self> {
        let mut reader = Box::pin(BufReader::with_capacity(CHUNK, reader));
        reader.as_mut().fill_buf().await?;
        Ok(Self::Archive(reader))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let bytes = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Json(bytes) | Self::Bytes(bytes) => std::mem::take(bytes),
            Self::Archive(reader) => match ready!(poll_chunk(reader.as_mut(), context)) {
                Ok(bytes) => bytes,
                Err(error) => return Poll::Ready(Some(Err(error))),
            },
        };
        if bytes.is_empty() {
            *self = Self::Empty;
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Json(bytes) | Self::Bytes(bytes) => bytes.is_empty(),
            Self::Archive(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Json(bytes) | Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Archive(_) => SizeHint::default(),
        }
    }
}

/// The next bytes of an archive; none at its end.
fn poll_chunk(
    reader: Pin<&mut (dyn AsyncRead + Send)>,
    context: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    let mut buffer = BytesMut::zeroed(CHUNK);
    let mut read = ReadBuf::new(&mut buffer);
    ready!(reader.poll_read(context, &mut read))?;
    let filled = read.filled().len();
    buffer.truncate(filled);
    Poll::Ready(Ok(buffer.freeze()))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn collect(body: RequestBody) -> Bytes {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async { body.collect().await.unwrap().to_bytes() })
    }

    #[test]
    fn an_archive_of_many_chunks_arrives_whole() {
        let archive: Vec<u8> = (0..251).cycle().take(3 * CHUNK + 17).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let body = RequestBody::archive(io::Cursor::new(archive.clone()));
        let body = runtime.block_on(body).unwrap();
        assert_eq!(collect(body), archive);
    }

    #[tokio::test]
    async fn an_archive_is_sent_once_it_has_begun() {
        let (mut maker, reader) = tokio::io::duplex(64);
        let body = RequestBody::archive(reader);
        tokio::pin!(body);
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, &mut body).await.is_err());
        maker.write_all(b"tar").await.unwrap();
        drop(maker);
        let body = body.await.unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "tar");
    }

    #[test]
    fn json_and_nothing_announce_their_length() {
        assert_eq!(RequestBody::Empty.size_hint().exact(), Some(0));
        let json = RequestBody::Json(Bytes::from_static(b"{}"));
        assert_eq!(json.size_hint().exact(), Some(2));
        assert_eq!(collect(json), "{}");
    }
}
