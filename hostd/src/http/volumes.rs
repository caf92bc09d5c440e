//! Handlers of `/v1/volumes`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dyno_api::query::{ExportQuery, ForceQuery, QuotaQuery};
use dyno_api::volume::{
    RollbackRequest, Snapshot, SnapshotRequest, Volume, VolumeChange, VolumeSpec,
};

use super::answer::Answer;
use super::caller::Caller;
use super::dynos::completed;
use super::extract::{JsonBody, Nothing, Params};
use super::files::tar;
use super::upload::Upload;
use crate::audit::Trail;
use crate::host::Host;
use crate::volumes;

type Shared = State<Arc<Host>>;

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Answer<Json<Vec<Volume>>> {
    Ok(Json(volumes::list(host).await?))
}

pub(super) async fn create(
    State(host): Shared,
    _: Params<Nothing>,
    (caller, trail): (Caller, Trail),
    JsonBody(spec): JsonBody<VolumeSpec>,
) -> Answer<(StatusCode, Json<Volume>)> {
    trail.target(spec.name.as_str());
    if !spec.backup.is_unset() {
        caller.may_have_run()?;
    }
    let volume = completed(volumes::create(host, spec)).await?;
    Ok((StatusCode::CREATED, Json(volume)))
}

pub(super) async fn inspect(
    State(host): Shared,
    Path(volume): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Volume>> {
    Ok(Json(volumes::inspect(host, &volume).await?))
}

pub(super) async fn set(
    State(host): Shared,
    Path(volume): Path<String>,
    _: Params<Nothing>,
    caller: Caller,
    JsonBody(change): JsonBody<VolumeChange>,
) -> Answer<Json<Volume>> {
    if !change.backup.is_unset() {
        caller.may_have_run()?;
    }
    let changed = async move { volumes::set(host, &volume, change).await };
    completed(changed).await.map(Json)
}

pub(super) async fn remove(
    State(host): Shared,
    Path(volume): Path<String>,
    Params(query): Params<ForceQuery>,
) -> Answer<StatusCode> {
    completed(async move { volumes::remove(host, &volume, query.force).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn snapshots(
    State(host): Shared,
    Path(volume): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Vec<Snapshot>>> {
    Ok(Json(volumes::snapshots(host, &volume).await?))
}

pub(super) async fn snapshot(
    State(host): Shared,
    Path(volume): Path<String>,
    _: Params<Nothing>,
    JsonBody(request): JsonBody<SnapshotRequest>,
) -> Answer<(StatusCode, Json<Snapshot>)> {
    let taken = async move { volumes::snapshot(host, &volume, request).await };
    Ok((StatusCode::CREATED, Json(completed(taken).await?)))
}

pub(super) async fn remove_snapshot(
    State(host): Shared,
    Path((volume, snapshot)): Path<(String, String)>,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    completed(async move { volumes::remove_snapshot(host, &volume, &snapshot).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn roll_back(
    State(host): Shared,
    Path(volume): Path<String>,
    _: Params<Nothing>,
    JsonBody(request): JsonBody<RollbackRequest>,
) -> Answer<Json<Volume>> {
    let rolled = async move { volumes::roll_back(host, &volume, request.snapshot).await };
    completed(rolled).await.map(Json)
}

/// Once it is begun, the copy that is packed goes with the client.
pub(super) async fn export(
    State(host): Shared,
    Path(volume): Path<String>,
    Params(query): Params<ExportQuery>,
    trail: Trail,
) -> Answer<Response> {
    let packing = completed(async move { volumes::export(&host, &volume, query).await }).await?;
    Ok(tar(packing, trail))
}

pub(super) async fn import(
    State(host): Shared,
    Path(volume): Path<String>,
    Params(query): Params<QuotaQuery>,
    body: Body,
) -> Answer<Json<Volume>> {
    let archive = Upload::new(body);
    Ok(Json(volumes::import(host, &volume, query, archive).await?))
}
