//! Handlers of `/v1/dynos`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dyno_api::dyno::{
    AttachRequest, Dyno, DynoSpec, ExecRequest, ExitStatus, LimitRequest, Phase, RestartPolicy,
};
use dyno_api::error::ApiError;
use dyno_api::query::{
    CreateQuery, KillQuery, LogsQuery, RemoveQuery, StatsQuery, StopQuery, WaitQuery,
};
use dyno_api::why::Why;
use tokio::sync::mpsc;

use super::answer::{Answer, Failure, bytes_stream, lines};
use super::caller::Caller;
use super::extract::{JsonBody, Nothing, Params};
use super::upgrade::{self, Upgrade};
use crate::audit::Trail;
use crate::durable::internal;
use crate::host::{Host, blocking};
use crate::once::Once;
use crate::supervisor::{Ask, is_over};
use crate::{engine, logs, stats, why};

/// Chunks that a slow reader may leave unread.
const CHUNKS: usize = 4;
/// Between two measurements.
const MEASURE: Duration = Duration::from_secs(1);

/// How long a lost dyno is lost until it is started again, at the most: what is
/// left of it is taken down first.
const FOLLOWED: Duration = Duration::from_secs(10);

type Shared = State<Arc<Host>>;

/// Work that goes on to its end when the client goes away.
pub(super) async fn completed<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(Failure),
        Err(error) => Err(Failure(internal(&error))),
    }
}

pub(super) async fn create(
    State(host): Shared,
    Params(query): Params<CreateQuery>,
    (caller, trail): (Caller, Trail),
    headers: HeaderMap,
    JsonBody(spec): JsonBody<DynoSpec>,
) -> Answer<(StatusCode, Json<Dyno>)> {
    if let Some(name) = &spec.name {
        trail.target(name.as_str());
    }
    caller.may_choose(&spec)?;
    let once = Once::asked(&headers, &spec, query.start)?;
    let dyno = completed(engine::create(host, spec, query.start, once)).await?;
    trail.target(dyno.name.as_str());
    trail.dyno(dyno.id.clone());
    Ok((StatusCode::CREATED, Json(dyno)))
}

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Json<Vec<Dyno>> {
    Json(engine::list(&host))
}

pub(super) async fn inspect(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Dyno>> {
    let mut dyno = engine::find(&host, &dyno)?.dyno();
    let log = host.paths.dyno(&dyno.id).log();
    dyno.status.log_dropped = Some(blocking(move || Ok(logs::dropped(&log))).await?);
    Ok(Json(dyno))
}

pub(super) async fn remove(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<RemoveQuery>,
) -> Answer<StatusCode> {
    engine::remove(&host, &dyno, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Dyno>> {
    Ok(Json(engine::start(&host, &dyno).await?))
}

pub(super) async fn stop(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<StopQuery>,
) -> Answer<Json<Dyno>> {
    Ok(Json(engine::stop(&host, &dyno, &query).await?))
}

pub(super) async fn restart(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<StopQuery>,
) -> Answer<Json<Dyno>> {
    Ok(Json(
        completed(async move { engine::restart(&host, &dyno, &query).await }).await?,
    ))
}

pub(super) async fn kill(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<KillQuery>,
) -> Answer<Json<Dyno>> {
    Ok(Json(
        engine::kill(&host, &dyno, query.signal.as_deref()).await?,
    ))
}

pub(super) async fn limit(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
    JsonBody(request): JsonBody<LimitRequest>,
) -> Answer<Json<Dyno>> {
    Ok(Json(engine::tell(&host, &dyno, Ask::Limit(request)).await?))
}

pub(super) async fn pause(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Dyno>> {
    Ok(Json(engine::pause(&host, &dyno).await?))
}

pub(super) async fn resume(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Dyno>> {
    Ok(Json(engine::tell(&host, &dyno, Ask::Resume).await?))
}

pub(super) async fn wait(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<WaitQuery>,
) -> Answer<Json<ExitStatus>> {
    Ok(Json(engine::wait(&host, &dyno, query.removed).await?))
}

pub(super) async fn logs(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<LogsQuery>,
) -> Answer<Response> {
    let handle = engine::find(&host, &dyno)?;
    let path = host.paths.dyno(&handle.dyno().id).log();
    let mut rest = Rest::default();
    let ended = move || !handle.is_open() || handle.look(|dyno| rest.is_for_good(dyno));
    let (to, from) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    tokio::spawn(logs::stream(path, query, ended, to));
    Ok(bytes_stream(from))
}

/// Whether a dyno rests for good: one that was lost and has a policy to be
/// started again is about to be, unless its stop was asked for.
#[derive(Debug, Default)]
struct Rest {
    lost: Option<Instant>,
}

impl Rest {
    fn is_for_good(&mut self, dyno: &Dyno) -> bool {
        let phase = dyno.status.phase;
        if phase != Phase::Lost || dyno.spec.restart == RestartPolicy::No {
            self.lost = None;
            return is_over(phase);
        }
        self.lost.get_or_insert_with(Instant::now).elapsed() > FOLLOWED
    }
}

pub(super) async fn stats(
    State(host): Shared,
    Path(dyno): Path<String>,
    Params(query): Params<StatsQuery>,
) -> Answer<Response> {
    let handle = engine::find(&host, &dyno)?;
    let id = handle.dyno().id;
    let first = stats::measure(&host, &id).await?;
    if !query.stream {
        return Ok(Json(first).into_response());
    }
    let (to, from) = mpsc::channel(CHUNKS);
    tokio::spawn(async move {
        let mut measured = Some(first);
        while let Some(stats) = measured {
            if to.send(stats).await.is_err() || is_over(handle.dyno().status.phase) {
                return;
            }
            tokio::time::sleep(MEASURE).await;
            measured = stats::measure(&host, &id).await.ok();
        }
    });
    Ok(lines(from))
}

pub(super) async fn why(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
) -> Answer<Json<Why>> {
    Ok(Json(why::why(&host, &dyno).await?))
}

pub(super) async fn attach(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
    (caller, trail): (Caller, Trail),
    upgrade: Upgrade,
    JsonBody(request): JsonBody<AttachRequest>,
) -> Answer<Response> {
    let dyno = caller.may_enter(&host, &dyno)?;
    let (connection, presence) = engine::attach(&host, &dyno, request).await?;
    Ok(upgrade::frames(upgrade, connection, (presence, trail)))
}

pub(super) async fn exec(
    State(host): Shared,
    Path(dyno): Path<String>,
    _: Params<Nothing>,
    (caller, trail): (Caller, Trail),
    upgrade: Upgrade,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Answer<Response> {
    let dyno = caller.may_enter(&host, &dyno)?;
    let connection = engine::exec(&host, &dyno, request).await?;
    Ok(upgrade::frames(upgrade, connection, trail))
}
