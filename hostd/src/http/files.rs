//! Handlers of a dyno's files: `/v1/dynos/{dyno}/archive` and `/changes`.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dyno_api::error::ErrorKind;
use dyno_api::openapi::TAR;
use dyno_api::query::ArchiveQuery;
use futures_util::stream;
use tokio::sync::mpsc;

use super::answer::{Answer, lines};
use super::caller::Caller;
use super::extract::{Nothing, Params};
use super::upload::Upload;
use crate::audit::Trail;
use crate::host::Host;
use crate::{changes, engine, files};

/// Changes that a slow reader may leave unread.
const LINES: usize = 256;

type Shared = State<Arc<Host>>;

pub(super) async fn pack(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<ArchiveQuery>,
    (caller, trail): (Caller, Trail),
) -> Answer<Response> {
    let dyno = caller.may_enter(&host, &dyno)?;
    Ok(tar(files::pack(&host, &dyno, &query.path).await?, trail))
}

/// An answer that is an archive.
pub(super) fn tar(packing: files::Packing, trail: Trail) -> Response {
    let taken = Taken {
        trail,
        has_ended: false,
    };
    let chunks = stream::unfold(Some((packing, taken)), |going| async move {
        let (mut packing, mut taken) = going?;
        match packing.next().await {
            Ok(None) => {
                taken.has_ended = true;
                None
            }
            Ok(Some(bytes)) => Some((Ok(bytes), Some((packing, taken)))),
            // The client sees a body that has no end.
            Err(error) => {
                taken.trail.failed(ErrorKind::Internal);
                taken.has_ended = true;
                Some((Err(io::Error::other(error)), None))
            }
        }
    });
    let body = Body::from_stream(chunks);
    ([(header::CONTENT_TYPE, TAR)], body).into_response()
}

/// An archive on its way to a client, who may take it or not.
struct Taken {
    trail: Trail,
    /// Whole, or it is known why not.
    has_ended: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.has_ended {
            let audit = self.trail.id();
            tracing::warn!(
                audit,
                "an archive broke off: its client went, or did not take it"
            );
            self.trail.failed(ErrorKind::Upstream);
        }
    }
}

pub(super) async fn place(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<ArchiveQuery>,
    caller: Caller,
    body: Body,
) -> Answer<StatusCode> {
    let dyno = caller.may_enter(&host, &dyno)?;
    files::place(&host, &dyno, &query.path, Upload::new(body)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn changes(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
) -> Answer<Response> {
    let id = engine::find(&host, &dyno)?.dyno().id;
    let found = changes::Changes::open(&host, &id).await?;
    let (to, from) = mpsc::channel(LINES);
    tokio::task::spawn_blocking(move || found.tell(&to));
    Ok(lines(from))
}
