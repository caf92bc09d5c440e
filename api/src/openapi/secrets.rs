//! Operations on secrets.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::error::ApiError;
use crate::query::ForceQuery;
use crate::secret::{Rotation, Secret};

/// Every secret, without values.
#[utoipa::path(get, path = "/v1/secrets", tag = "secrets", responses(
    (status = 200, body = Vec<Secret>, description = "In order of their names"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn list() {}

/// One secret, without its value.
#[utoipa::path(get, path = "/v1/secrets/{secret}", tag = "secrets",
    params(("secret" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Secret, description = "The secret"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn inspect() {}

/// Set a secret's value: the bytes of the body, at most 256 KiB. Dynos that have
/// it get the new value at their next start by request.
#[utoipa::path(put, path = "/v1/secrets/{secret}", tag = "secrets",
    params(("secret" = String, Path, description = "Its name")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Secret, description = "The secret"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn set() {}

/// Remove a secret.
#[utoipa::path(delete, path = "/v1/secrets/{secret}", tag = "secrets",
    params(("secret" = String, Path, description = "Its name"), ForceQuery),
    responses(
        (status = 204, description = "Gone"),
        (status = "default", body = ApiError, description = "Why not: `conflict` while a dyno is given it"),
    ))]
fn remove() {}

/// Make a new key and encrypt every secret under it.
#[utoipa::path(post, path = "/v1/secret-key/rotate", tag = "secrets", responses(
    (status = 200, body = Rotation, description = "The old key is not needed any more"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn rotate() {}
