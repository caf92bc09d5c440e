//! Handlers of `/v1/images`.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Buf, Bytes};
use dyno_api::image::{Image, PullRequest};
use dyno_api::query::{ImportQuery, LoadQuery};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use super::answer::{Answer, lines};
use super::extract::{JsonBody, Nothing, Params};
use crate::host::{Host, blocking};
use crate::images;

/// Lines of progress that a slow reader may leave unread.
const LINES: usize = 256;
/// Chunks of an upload that wait for the unpacker.
const CHUNKS: usize = 16;

type Shared = State<Arc<Host>>;

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Answer<Json<Vec<Image>>> {
    Ok(Json(blocking(move || images::list(&host)).await?))
}

pub(super) async fn pull(
    State(host): Shared,
    _: Params<Nothing>,
    JsonBody(request): JsonBody<PullRequest>,
) -> Response {
    let (to, from) = mpsc::channel(LINES);
    tokio::spawn(async move { images::pull(&host, request, to).await });
    lines(from)
}

pub(super) async fn load(
    State(host): Shared,
    Params(query): Params<LoadQuery>,
    body: Body,
) -> Response {
    let (to, from) = mpsc::channel(LINES);
    let archive = Upload::new(body);
    tokio::spawn(async move { images::load(&host, archive, query.reference, to).await });
    lines(from)
}

pub(super) async fn import(
    State(host): Shared,
    Params(query): Params<ImportQuery>,
    body: Body,
) -> Response {
    let (to, from) = mpsc::channel(LINES);
    let tar = Upload::new(body);
    tokio::spawn(async move { images::import(&host, tar, query.reference, to).await });
    lines(from)
}

pub(super) async fn remove(
    State(host): Shared,
    Path(reference): Path<String>,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    images::remove(&host, &reference).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A request's body as a stream of bytes. A body that breaks off is an
/// error and never an end: half an archive is no archive.
struct Upload {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Upload {
    fn new(mut body: Body) -> Self {
        let (to, chunks) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let chunk = match frame {
                    Ok(frame) => frame.into_data().map_or_else(|_| Ok(Bytes::new()), Ok),
                    Err(error) => Err(io::Error::other(error)),
                };
                if to.send(chunk).await.is_err() {
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

impl AsyncRead for Upload {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        while self.current.is_empty() {
            match std::task::ready!(self.chunks.poll_recv(context)) {
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => return std::task::Poll::Ready(Err(error)),
                None => return std::task::Poll::Ready(Ok(())),
            }
        }
        let length = self.current.len().min(into.remaining());
        into.put_slice(&self.current[..length]);
        self.current.advance(length);
        std::task::Poll::Ready(Ok(()))
    }
}
