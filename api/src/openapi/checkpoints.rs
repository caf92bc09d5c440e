//! Operations on checkpoints of dynos.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::checkpoint::{Checkpoint, CheckpointRequest, RestoreRequest};
use crate::dyno::Dyno;
use crate::error::ApiError;

/// The checkpoints of a dyno.
#[utoipa::path(get, path = "/v1/dynos/{dyno}/checkpoints", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = Vec<Checkpoint>, description = "The oldest first"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn list() {}

/// Save the processes of a dyno that runs, by CRIU. Unless it is left running it ends then,
/// and can be brought back.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/checkpoints", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    request_body = CheckpointRequest,
    responses(
        (status = 201, body = Checkpoint, description = "It is on the disk, and the dyno has ended unless it was to run on"),
        (status = "default", body = ApiError,
            description = "Why not: `unsupported` where there is no CRIU or it does not know the kernel. The dyno runs on then"),
    ))]
fn make() {}

/// Remove a checkpoint.
#[utoipa::path(delete, path = "/v1/dynos/{dyno}/checkpoints/{checkpoint}", tag = "dynos",
    params(
        ("dyno" = String, Path, description = "Id or name"),
        ("checkpoint" = String, Path, description = "The checkpoint's name"),
    ),
    responses(
        (status = 204, description = "Gone"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn remove() {}

/// Bring a dyno that does not run back from a checkpoint: its processes go on where they
/// were, with the dyno's files as they are now. The checkpoint stays.
#[utoipa::path(post, path = "/v1/dynos/{dyno}/restore", tag = "dynos",
    params(("dyno" = String, Path, description = "Id or name")),
    request_body = RestoreRequest,
    responses(
        (status = 200, body = Dyno, description = "It runs"),
        (status = "default", body = ApiError, description = "Why not; it rests then"),
    ))]
fn restore() {}
