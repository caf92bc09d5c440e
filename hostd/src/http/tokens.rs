//! Handlers of `/v1/tokens` and `/v1/certificates`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use dyno_api::token::{CertificateSpec, Token, TokenSpec};
use jiff::Timestamp;

use super::answer::Answer;
use super::caller::Caller;
use super::dynos::completed;
use super::extract::{JsonBody, Nothing, Params};
use crate::audit::Trail;
use crate::host::Host;
use crate::tokens;

type Shared = State<Arc<Host>>;

pub(super) async fn list(State(host): Shared, _: Params<Nothing>) -> Json<Vec<Token>> {
    Json(tokens::list(&host))
}

pub(super) async fn create(
    State(host): Shared,
    _: Params<Nothing>,
    (caller, trail): (Caller, Trail),
    JsonBody(spec): JsonBody<TokenSpec>,
) -> Answer<impl IntoResponse> {
    trail.target(spec.name.as_str());
    let expires = tokens::check(&spec, Timestamp::now())?;
    caller.may_grant(&spec.scopes, expires)?;
    let new = completed(tokens::create(host, spec, expires)).await?;
    // Its secret is nobody's to keep on the way.
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, Json(new)))
}

pub(super) async fn certify(
    State(host): Shared,
    _: Params<Nothing>,
    (caller, trail): (Caller, Trail),
    JsonBody(spec): JsonBody<CertificateSpec>,
) -> Answer<impl IntoResponse> {
    trail.target(spec.token.name.as_str());
    let expires = tokens::check(&spec.token, Timestamp::now())?;
    caller.may_grant(&spec.token.scopes, expires)?;
    let new = completed(tokens::certify(host, spec, expires)).await?;
    Ok((StatusCode::CREATED, Json(new)))
}

pub(super) async fn remove(
    State(host): Shared,
    Path(token): Path<String>,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    completed(tokens::remove(host, token)).await?;
    Ok(StatusCode::NO_CONTENT)
}
