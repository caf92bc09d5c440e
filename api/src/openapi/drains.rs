//! Operations on log drains.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::drain::{Drain, DrainSpec};
use crate::error::ApiError;

/// Every drain, and how it is.
#[utoipa::path(get, path = "/v1/drains", tag = "drains", responses(
    (status = 200, body = Vec<Drain>, description = "In order of their names"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn list() {}

/// Send the output of one dyno or of all somewhere, from now on. It is connected to
/// afterwards: an address that does not answer is no failure of this.
#[utoipa::path(post, path = "/v1/drains", tag = "drains", request_body = DrainSpec, responses(
    (status = 201, body = Drain, description = "It is on the disk"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn add() {}

/// Send nothing more there.
#[utoipa::path(delete, path = "/v1/drains/{drain}", tag = "drains",
    params(("drain" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "Gone"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn remove() {}
