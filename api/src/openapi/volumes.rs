//! Operations on volumes.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::error::ApiError;
use crate::query::{ExportQuery, ForceQuery, QuotaQuery};
use crate::volume::{RollbackRequest, Snapshot, SnapshotRequest, Volume, VolumeChange, VolumeSpec};

/// Every volume.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", responses(
    (status = 200, body = Vec<Volume>, description = "In order of their names"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn list() {}

/// Make a volume, empty or a copy of another one or of a snapshot.
#[utoipa::path(post, path = "/v1/volumes", tag = "volumes", request_body = VolumeSpec, responses(
    (status = 201, body = Volume, description = "The volume"),
    (status = "default", body = ApiError, description = "Why not: `unsupported` where a quota cannot be enforced"),
))]
fn create() {}

/// One volume, with what it takes up.
#[utoipa::path(get, path = "/v1/volumes/{volume}", tag = "volumes",
    params(("volume" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Volume, description = "The volume"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn inspect() {}

/// Change a volume while it is used.
#[utoipa::path(patch, path = "/v1/volumes/{volume}", tag = "volumes",
    params(("volume" = String, Path, description = "Its name")),
    request_body = VolumeChange,
    responses(
        (status = 200, body = Volume, description = "The volume"),
        (status = "default", body = ApiError, description = "Why not: `unsupported` where a quota cannot be enforced"),
    ))]
fn set() {}

/// Remove a volume with its data.
#[utoipa::path(delete, path = "/v1/volumes/{volume}", tag = "volumes",
    params(("volume" = String, Path, description = "Its name"), ForceQuery),
    responses(
        (status = 204, description = "Gone"),
        (status = "default", body = ApiError,
            description = "Why not: `conflict` while a dyno mounts it, and while it has snapshots and that is not forced"),
    ))]
fn remove() {}

/// The snapshots of a volume.
#[utoipa::path(get, path = "/v1/volumes/{volume}/snapshots", tag = "volumes",
    params(("volume" = String, Path, description = "The volume's name")),
    responses(
        (status = 200, body = Vec<Snapshot>, description = "The oldest first"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn snapshots() {}

/// Keep a volume's files as they are now.
#[utoipa::path(post, path = "/v1/volumes/{volume}/snapshots", tag = "volumes",
    params(("volume" = String, Path, description = "The volume's name")),
    request_body = SnapshotRequest,
    responses(
        (status = 201, body = Snapshot, description = "The snapshot"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn snapshot() {}

/// Remove a snapshot.
#[utoipa::path(delete, path = "/v1/volumes/{volume}/snapshots/{snapshot}", tag = "volumes",
    params(
        ("volume" = String, Path, description = "The volume's name"),
        ("snapshot" = String, Path, description = "The snapshot's name"),
    ),
    responses(
        (status = 204, description = "Gone"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn remove_snapshot() {}

/// Give a volume the files of one of its snapshots again.
#[utoipa::path(post, path = "/v1/volumes/{volume}/rollback", tag = "volumes",
    params(("volume" = String, Path, description = "The volume's name")),
    request_body = RollbackRequest,
    responses(
        (status = 200, body = Volume, description = "The volume"),
        (status = "default", body = ApiError, description = "Why not: `conflict` while a dyno that mounts it runs"),
    ))]
fn rollback() {}

/// A volume's files, or a snapshot's, as a tar stream.
#[utoipa::path(get, path = "/v1/volumes/{volume}/archive", tag = "volumes",
    params(("volume" = String, Path, description = "Its name"), ExportQuery),
    responses(
        (status = 200, content_type = "application/x-tar",
            description = "The archive; one that breaks off is none"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn export() {}

/// Make a volume of a tar stream, plain or compressed.
#[utoipa::path(put, path = "/v1/volumes/{volume}/archive", tag = "volumes",
    params(("volume" = String, Path, description = "Its name; there must be none of it"), QuotaQuery),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses(
        (status = 200, body = Volume, description = "The volume"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn import() {}
