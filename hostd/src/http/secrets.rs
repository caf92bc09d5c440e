//! Handlers of `/v1/secrets`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use dyno_api::query::ForceQuery;
use dyno_api::secret::{Rotation, SECRET_MAX_BYTES, Secret};

use super::answer::Answer;
use super::dynos::completed;
use super::extract::{self, Nothing, Params};
use crate::host::Host;
use crate::secrets;

type Shared = State<Arc<Host>>;

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Answer<Json<Vec<Secret>>> {
    Ok(Json(secrets::list(host).await?))
}

pub(super) async fn inspect(
    State(host): Shared,
    Path(secret): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Secret>> {
    Ok(Json(secrets::inspect(host, &secret).await?))
}

/// The body is the value: nothing parses it, so that no message repeats a part of it.
pub(super) async fn set(
    State(host): Shared,
    Path(secret): Path<String>,
    _: Params<Nothing>,
    request: Request,
) -> Answer<Json<Secret>> {
    let value = extract::read(request, SECRET_MAX_BYTES).await?;
    completed(async move { secrets::set(host, &secret, value).await })
        .await
        .map(Json)
}

pub(super) async fn remove(
    State(host): Shared,
    Path(secret): Path<String>,
    Params(query): Params<ForceQuery>,
) -> Answer<StatusCode> {
    completed(async move { secrets::remove(host, &secret, query.force).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn rotate(State(host): Shared, _: Params<Nothing>) -> Answer<Json<Rotation>> {
    completed(secrets::rotate(host)).await.map(Json)
}
