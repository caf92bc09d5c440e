//! Operations on images.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::error::ApiError;
use crate::image::{Image, Progress, PullRequest};
use crate::query::{ImportQuery, LoadQuery};

/// Every image that is ready.
#[utoipa::path(get, path = "/v1/images", tag = "images", responses(
    (status = 200, body = Vec<Image>, description = "In order of their references"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn list() {}

/// Fetch an image from its registry. The answer is 200 as soon as the work
/// begins; the last line says whether it succeeded.
#[utoipa::path(post, path = "/v1/images/pull", tag = "images", request_body = PullRequest,
    responses(
        (status = 200, body = Progress, content_type = "application/jsonl",
            description = "One per line; the last is `done` or `failed`"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn pull() {}

/// Load images from an archive: docker-archive or oci-archive, plain or compressed.
#[utoipa::path(post, path = "/v1/images/load", tag = "images", params(LoadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Progress, content_type = "application/jsonl",
            description = "One per line; `done` for each image, or `failed`"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn load() {}

/// Make an image of one layer from a tar of a root file system.
#[utoipa::path(post, path = "/v1/images/import", tag = "images", params(ImportQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Progress, content_type = "application/jsonl",
            description = "One per line; the last is `done` or `failed`"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn import() {}

/// Forget a reference, and the content that no other reference or dyno needs.
#[utoipa::path(delete, path = "/v1/images/{reference}", tag = "images",
    params(("reference" = String, Path, description = "As listed; its slashes may stand as they are")),
    responses(
        (status = 204, description = "Gone"),
        (status = "default", body = ApiError, description = "Why not: `conflict` while a dyno uses it"),
    ))]
fn remove() {}
