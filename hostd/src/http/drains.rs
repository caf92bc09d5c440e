//! Handlers of `/v1/drains`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dyno_api::drain::{Drain, DrainSpec};

use super::answer::Answer;
use super::extract::{JsonBody, Nothing, Params};
use crate::audit::Trail;
use crate::drains;
use crate::host::Host;

type Shared = State<Arc<Host>>;

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Json<Vec<Drain>> {
    Json(drains::list(&host))
}

pub(super) async fn add(
    State(host): Shared,
    _: Params<Nothing>,
    trail: Trail,
    JsonBody(spec): JsonBody<DrainSpec>,
) -> Answer<(StatusCode, Json<Drain>)> {
    if let Some(name) = &spec.name {
        trail.target(name.as_str());
    }
    let drain = drains::add(&host, spec).await?;
    trail.target(drain.name.as_str());
    Ok((StatusCode::CREATED, Json(drain)))
}

pub(super) async fn remove(
    State(host): Shared,
    Path(drain): Path<String>,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    drains::remove(&host, &drain).await?;
    Ok(StatusCode::NO_CONTENT)
}
