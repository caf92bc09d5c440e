//! Operations on the host itself.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::audit::AuditEntry;
use crate::doctor::HostCheck;
use crate::error::ApiError;
use crate::event::Event;
use crate::host::{HostHealth, HostInfo, Readiness, Version};
use crate::query::{AuditQuery, EventsQuery};

/// Versions of hostd and of its API.
#[utoipa::path(get, path = "/v1/version", tag = "host", responses(
    (status = 200, body = Version, description = "Versions"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn version() {}

/// The host: its limits, folders, networks, and what is amiss.
#[utoipa::path(get, path = "/v1/info", tag = "host", responses(
    (status = 200, body = HostInfo, description = "The host"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn info() {}

/// Whether hostd has taken up all its work.
#[utoipa::path(get, path = "/v1/health", tag = "host", responses(
    (status = 200, body = HostHealth, description = "Its health"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn health() {}

/// What this machine has of what dynos need, and what to do about the rest.
#[utoipa::path(get, path = "/v1/doctor", tag = "host", responses(
    (status = 200, body = Vec<HostCheck>, description = "One thing each"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn doctor() {}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "host", responses(
    (status = 200, description = "OpenAPI document", content_type = "application/json"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn document() {}

/// What happens on this host, as JSON lines of `Event`.
#[utoipa::path(get, path = "/v1/events", tag = "host", params(EventsQuery), responses(
    (status = 200, body = Event, content_type = "application/jsonl", description = "One per line"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn events() {}

/// Who changed what on this host, as JSON lines of `AuditEntry` in the order in which operations
/// ended; those that run still come last.
#[utoipa::path(get, path = "/v1/audit", tag = "host", params(AuditQuery), responses(
    (status = 200, body = AuditEntry, content_type = "application/jsonl", description = "One per line"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn audit() {}

/// Metrics for a scraper, in the text format 0.0.4 of Prometheus or, where `Accept` asks for
/// it, in that of OpenMetrics 1.0.
#[utoipa::path(get, path = "/metrics", tag = "host", responses(
    (status = 200, body = String, content_type = "text/plain", description = "The metrics"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn metrics() {}

/// Whether hostd lives: it answers.
#[utoipa::path(get, path = "/healthz", tag = "host", responses(
    (status = 200, body = String, content_type = "text/plain", description = "`ok`"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn healthz() {}

/// Whether hostd can be given work: its dynos are taken up, their supervisors answer, its
/// disk can be written.
#[utoipa::path(get, path = "/readyz", tag = "host", responses(
    (status = 200, body = Readiness, description = "It can"),
    (status = 503, body = Readiness, description = "It cannot, and why"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn readyz() {}
