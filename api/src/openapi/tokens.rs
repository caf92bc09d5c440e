//! Operations on tokens.
#![expect(
    dead_code,
    reason = "only the document that utoipa makes of these is used"
)]

use crate::error::ApiError;
use crate::token::{CertificateSpec, NewCertificate, NewToken, Token, TokenSpec};

/// Every token, those that have expired among them; of none its secret.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses(
    (status = 200, body = Vec<Token>, description = "In order of their names"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn list() {}

/// Make a token. Whoever asks with a token gets one with no more scopes than that has, and
/// that ends no later.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenSpec, responses(
    (status = 201, body = NewToken, description = "It is on the disk, but for its secret"),
    (status = "default", body = ApiError, description = "Why not"),
))]
fn create() {}

/// Make a token that is shown by a certificate, in TLS, instead of a secret. Whoever asks with
/// a token gets one with no more scopes than that has, and that ends no later.
#[utoipa::path(post, path = "/v1/certificates", tag = "tokens", request_body = CertificateSpec,
    responses(
        (status = 201, body = NewCertificate, description = "It is on the disk"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn certify() {}

/// Take a token away. What is connected with it is cut off.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens",
    params(("token" = String, Path, description = "Its id or name")),
    responses(
        (status = 204, description = "It is good for nothing any more"),
        (status = "default", body = ApiError, description = "Why not"),
    ))]
fn remove() {}
