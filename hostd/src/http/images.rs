//! Handlers of `/v1/images`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dyno_api::error::ErrorKind;
use dyno_api::image::{Image, PullRequest};
use dyno_api::query::{ImportQuery, LoadQuery};
use dyno_images::Reference;
use tokio::sync::mpsc;

use super::answer::{Answer, lines};
use super::extract::{JsonBody, Nothing, Params};
use super::upload::Upload;
use crate::audit::Trail;
use crate::host::{Host, blocking};
use crate::images;

/// Lines of progress that a slow reader may leave unread.
const LINES: usize = 256;

type Shared = State<Arc<Host>>;

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Answer<Json<Vec<Image>>> {
    Ok(Json(blocking(move || images::list(&host)).await?))
}

pub(super) async fn pull(
    State(host): Shared,
    _: Params<Nothing>,
    trail: Trail,
    JsonBody(request): JsonBody<PullRequest>,
) -> Response {
    names(&trail, Some(&request.reference));
    let (to, from) = mpsc::channel(LINES);
    tokio::spawn(followed(trail, async move {
        images::pull(&host, request, to).await
    }));
    lines(from)
}

pub(super) async fn load(
    State(host): Shared,
    Params(query): Params<LoadQuery>,
    trail: Trail,
    body: Body,
) -> Response {
    names(&trail, query.reference.as_deref());
    let (to, from) = mpsc::channel(LINES);
    let archive = Upload::new(body);
    tokio::spawn(followed(trail, async move {
        images::load(&host, archive, query.reference, to).await
    }));
    lines(from)
}

pub(super) async fn import(
    State(host): Shared,
    Params(query): Params<ImportQuery>,
    trail: Trail,
    body: Body,
) -> Response {
    names(&trail, Some(&query.reference));
    let (to, from) = mpsc::channel(LINES);
    let tar = Upload::new(body);
    tokio::spawn(followed(trail, async move {
        images::import(&host, tar, query.reference, to).await
    }));
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

/// Says which image it is, where that is a reference.
fn names(trail: &Trail, reference: Option<&str>) {
    if let Some(Ok(reference)) = reference.map(str::parse::<Reference>) {
        trail.target(&reference.to_string());
    }
}

/// Work that goes on after its answer has begun, and how it ended.
async fn followed(trail: Trail, work: impl Future<Output = Result<(), ErrorKind>>) {
    if let Err(error) = work.await {
        trail.failed(error);
    }
}
