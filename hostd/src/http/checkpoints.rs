//! Handlers of `/v1/dynos/{dyno}/checkpoints`, and of `restore`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dyno_api::checkpoint::{Checkpoint, CheckpointRequest, RestoreRequest};
use dyno_api::dyno::Dyno;

use super::answer::Answer;
use super::dynos::completed;
use super::extract::{JsonBody, Nothing, Params};
use crate::checkpoints;
use crate::host::Host;

type Shared = State<Arc<Host>>;

pub(super) async fn list(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Vec<Checkpoint>>> {
    Ok(Json(checkpoints::list(&host, &dyno).await?))
}

pub(super) async fn make(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
    JsonBody(request): JsonBody<CheckpointRequest>,
) -> Answer<(StatusCode, Json<Checkpoint>)> {
    let made = completed(checkpoints::take(host, dyno, request)).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(super) async fn remove(
    State(host): Shared,
    Path((dyno, checkpoint)): Path<(String, String)>,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    completed(checkpoints::remove(host, dyno, checkpoint)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restore(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
    JsonBody(request): JsonBody<RestoreRequest>,
) -> Answer<Json<Dyno>> {
    Ok(Json(
        completed(checkpoints::restore(host, dyno, request)).await?,
    ))
}
