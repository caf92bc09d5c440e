//! Operations on dynos. `{dyno}` is an id or a name.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::dyno::{
    AttachRequest, Change, Dyno, DynoSpec, ExecRequest, ExitStatus, LimitRequest, LogLine, Stats,
};
use crate::error::ApiError;
use crate::query::{
    ArchiveQuery, CreateQuery, KillQuery, LogsQuery, RemoveQuery, StatsQuery, StopQuery, WaitQuery,
};
use crate::why::Why;

/// Create a dyno; start it as well if asked to. With an `Idempotency-Key`, the same
/// request again is answered with the dyno that it has made, as long as there is that
/// one; another request with the same key is a conflict.
#[utoipa::path(post, path = "/v1/dynos", tag = "dynos",
    params(CreateQuery,
        ("Idempotency-Key" = Option<String>, Header, max_length = 128,
            description = "Chosen by the client, of visible ASCII characters")),
    request_body = DynoSpec,
    responses(
        (status = 201, body = Dyno, description = "It exists, and will after a power cut"),
        (status = "default", body = ApiError, description = "Why not; nothing is left of it"),
    ))]
fn create() {}

/// Every dyno of this host.
#[utoipa::path(get, path = "/v1/dynos", tag = "dynos", responses(
    (status = 200, body = Vec<Dyno>, description = "In order of creation"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn list() {}

/// One dyno: what was asked for, and how it is.
#[utoipa::path(get, path = "/v1/dynos/{dyno}", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = Dyno, description = "The dyno"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn inspect() {}

/// Remove a dyno with its files and logs. Volumes stay.
#[utoipa::path(delete, path = "/v1/dynos/{dyno}", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), RemoveQuery),
    responses(
        (status = 204, description = "Gone"),
        (status = "default", body = ApiError, description = "Why not: `conflict` while it runs"),
    ))]
fn remove() {}

/// Start a dyno that does not run.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/start", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = Dyno, description = "Its command was executed"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn start() {}

/// Ask a dyno to end, kill it after its grace, and answer when it has ended.
/// It stays ended whatever its restart policy.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/stop", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), StopQuery),
    responses(
        (status = 200, body = Dyno, description = "It has ended"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn stop() {}

/// Stop and start.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/restart", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), StopQuery),
    responses(
        (status = 200, body = Dyno, description = "Its command was executed again"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn restart() {}

/// Send a signal to a dyno's first process.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/kill", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), KillQuery),
    responses(
        (status = 200, body = Dyno, description = "The signal was sent"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn kill() {}

/// Change a dyno's limits: at once where it runs, and for every later start.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/limit", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    request_body = LimitRequest,
    responses(
        (status = 200, body = Dyno, description = "They hold"),
        (status = "default", body = ApiError, description = "Why not; those of before hold"),
    ))]
fn limit() {}

/// Hold every process of a dyno still. It stays so until it is resumed or ends.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/pause", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = Dyno, description = "Nothing of it runs"),
        (status = "default", body = ApiError, description = "Why not; it runs on then"),
    ))]
fn pause() {}

/// Let a paused dyno go on.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/resume", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = Dyno, description = "It runs"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn resume() {}

/// Wait until a dyno has ended and will not be started again.
#[utoipa::path(get, path = "/v1/dynos/{dyno}/wait", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), WaitQuery),
    responses(
        (status = 200, body = ExitStatus, description = "How it ended"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn wait() {}

/// What a dyno wrote, as JSON lines of `LogLine`.
#[utoipa::path(get, path = "/v1/dynos/{dyno}/logs", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), LogsQuery),
    responses(
        (status = 200, body = LogLine, content_type = "application/jsonl", description = "One per line"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn logs() {}

/// What a dyno uses.
#[utoipa::path(get, path = "/v1/dynos/{dyno}/stats", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), StatsQuery),
    responses(
        (status = 200, content(
            (Stats = "application/json"),
            (Stats = "application/jsonl"),
        ), description = "Once, or one per line with `stream`"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn stats() {}

/// Why a dyno restarts, waits, is held back, or has ended.
#[utoipa::path(get, path = "/v1/dynos/{dyno}/why", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = Why, description = "Sentences for people, and what they are made of"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn why() {}

/// Join a dyno's standard streams. A dyno that is created and not started may
/// be attached to, and be started by the same request: nothing of its output is
/// missed. The connection becomes a stream of frames.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/attach", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    request_body = AttachRequest,
    responses(
        (status = 101, description = "`Upgrade: dyno-frames`"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn attach() {}

/// Run one more process in a dyno. The connection becomes a stream of frames.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/exec", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    request_body = ExecRequest,
    responses(
        (status = 101, description = "`Upgrade: dyno-frames`"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn exec() {}

/// A path of a dyno, running or not, as a tar stream whose names begin with the
/// path's last part. Devices and sockets are left out; ids are the dyno's.
#[utoipa::path(get, path = "/v1/dynos/{dyno}/archive", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), ArchiveQuery),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-tar", description = "The archive; one that breaks off is none"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn pack() {}

/// Put a tar stream, plain or compressed, into a folder of a dyno, running or
/// not. Where the path is no folder the archive has one top, which becomes the
/// path. Devices and extended attributes are left out; ids are the dyno's. What
/// was written before a failure stays.
#[utoipa::path(put, path = "/v1/dynos/{dyno}/archive", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name"), ArchiveQuery),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses(
        (status = 204, description = "All of it is there"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn place() {}

/// What a dyno has changed of its image's files, as JSON lines of `Change`, a
/// folder before what is in it.
#[utoipa::path(get, path = "/v1/dynos/{dyno}/changes", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = Change, content_type = "application/jsonl", description = "One per line"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn changes() {}
