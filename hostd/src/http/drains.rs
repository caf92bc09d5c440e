//! Handlers of `/v1/drains`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dyno_api::drain::{Drain, DrainSpec};

use super::answer::Answer;
use super::extract::{JsonBody, Nothing, Params};
use crate::drains;
use crate::host::Host;

type Shared = State<Arc<Host>>;

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Json<Vec<Drain>> {
    Json(drains::list(&host))
}

pub(super) async fn add(
    State(host): Shared,
    _: Params<Nothing>,
    JsonBody(spec): JsonBody<DrainSpec>,
) -> Answer<(StatusCode, Json<Drain>)> {
    Ok((StatusCode::CREATED, Json(drains::add(&host, spec).await?)))
}

pub(super) async fn remove(
    State(host): Shared,
    Path(drain): Path<String>,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    drains::remove(&host, &drain).await?;
    Ok(StatusCode::NO_CONTENT)
}
