//! Handlers of the host itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dyno_api::doctor::HostCheck;
use dyno_api::dyno::Phase;
use dyno_api::event::Event;
use dyno_api::host::{CgroupLayout, HostHealth, HostInfo, Version};
use dyno_api::query::{AuditQuery, EventsQuery};
use dyno_runtime::cgroup::Layout;
use tokio::sync::{broadcast, mpsc};

use super::answer::{Answer, Failure, lines};
use super::extract::{Nothing, Params};
use crate::audit::Trail;
use crate::host::{Host, blocking};
use crate::paths::text;
use crate::{audit, doctor, engine};

/// Events that a slow reader may leave unread.
const UNREAD: usize = 64;

type Shared = State<Arc<Host>>;

pub(super) async fn version(_: Params<Nothing>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
    })
}

pub(super) async fn document(_: Params<Nothing>) -> impl IntoResponse {
    Json(dyno_api::openapi::document())
}

pub(super) async fn health(State(host): Shared, _: Params<Nothing>) -> Json<HostHealth> {
    Json(HostHealth {
        ready: host.ready.load(Ordering::Relaxed),
        dns: host.dns.load(Ordering::Relaxed),
    })
}

pub(super) async fn info(State(host): Shared, _: Params<Nothing>) -> Json<HostInfo> {
    let dynos = engine::list(&host);
    let running = dynos
        .iter()
        .filter(|dyno| dyno.status.phase == Phase::Running)
        .count();
    let network = host.network.config();
    Json(HostInfo {
        id: host.identity.id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        kernel: host.facts.kernel.clone(),
        cgroups: match host.layout {
            Layout::Unified { .. } => CgroupLayout::Unified,
            Layout::Hybrid { .. } => CgroupLayout::Hybrid,
            Layout::Legacy { .. } => CgroupLayout::Legacy,
        },
        cpus: host.facts.cpus,
        memory_bytes: host.facts.memory_bytes,
        state_dir: text(&host.paths.state_dir),
        run_dir: text(&host.paths.run_dir),
        subnet: network.subnet4.to_string(),
        subnet6: network.subnet6.map(|subnet| subnet.to_string()),
        dynos: u32::try_from(dynos.len()).unwrap_or(u32::MAX),
        running: u32::try_from(running).unwrap_or(u32::MAX),
        warnings: warnings(&host).await,
    })
}

pub(super) async fn doctor(
    State(host): Shared,
    _: Params<Nothing>,
) -> Result<Json<Vec<HostCheck>>, Failure> {
    let options = host.options.clone();
    // It executes programs for their versions.
    let mut checks = blocking(move || Ok(doctor::examine(&options))).await?;
    checks.extend(doctor::running(&host).await);
    Ok(Json(checks))
}

async fn warnings(host: &Host) -> Vec<String> {
    let mut warnings = host.network.findings().await;
    if !host.dns.load(Ordering::Relaxed) {
        warnings.push("DNS for dynos does not answer; hostd's log says why".to_owned());
    }
    if host.resolvers().is_empty() {
        warnings.push(
            "/etc/resolv.conf names no resolver: dynos find each other and no outside name"
                .to_owned(),
        );
    }
    if !matches!(host.layout, Layout::Unified { .. }) {
        warnings.push(
            "cgroup v1 controllers enforce limits here; cgroup v2 alone is the better host"
                .to_owned(),
        );
    }
    warnings
}

pub(super) async fn events(State(host): Shared, Params(query): Params<EventsQuery>) -> Response {
    let (past, live) = host.events.subscribe(query.since);
    let (to, from) = mpsc::channel(UNREAD);
    tokio::spawn(forward(past, live, query.follow, to));
    lines(from)
}

pub(super) async fn audit(
    State(host): Shared,
    Params(query): Params<AuditQuery>,
    trail: Trail,
) -> Answer<Response> {
    let told = audit::stream(host.audit.clone(), query, trail).await?;
    Ok(lines(told))
}

async fn forward(
    past: Vec<Event>,
    mut live: broadcast::Receiver<Event>,
    follow: bool,
    to: mpsc::Sender<Event>,
) {
    for event in past {
        if to.send(event).await.is_err() {
            return;
        }
    }
    if !follow {
        return;
    }
    loop {
        let event = tokio::select! {
            event = live.recv() => event,
            () = to.closed() => return,
        };
        match event {
            Ok(event) => {
                if to.send(event).await.is_err() {
                    return;
                }
            }
            // The numbers tell the reader what it missed.
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "a listener was too slow for the events");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
