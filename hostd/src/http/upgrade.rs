//! Attach and exec: after `101 Switching Protocols` the connection carries
//! frames, which hostd copies between client and monitor without a look.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::openapi::FRAMES;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::answer::Failure;
use super::places::Work;
use crate::monitor::Connection;

/// A request whose connection can become a stream of frames.
#[derive(Debug)]
pub(super) struct Upgrade {
    on: OnUpgrade,
    /// The connection keeps its place.
    work: Option<Arc<Work>>,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let refused = || {
            Failure(
                ApiError::new(
                    ErrorKind::Invalid,
                    "this request needs an upgrade of its connection",
                )
                .hint(format!(
                    "send `Connection: upgrade` and `Upgrade: {FRAMES}`"
                )),
            )
        };
        if !names(&parts.headers, header::CONNECTION, "upgrade")
            || !names(&parts.headers, header::UPGRADE, FRAMES)
        {
            return Err(refused());
        }
        let on = parts.extensions.remove().ok_or_else(refused)?;
        let work = parts.extensions.get().cloned();
        Ok(Self { on, work })
    }
}

fn names(headers: &HeaderMap, header: header::HeaderName, wanted: &str) -> bool {
    let values = headers
        .get_all(header)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

/// Switches protocols, then copies both ways until both have ended; so long
/// something is kept.
pub(super) fn frames(
    upgrade: Upgrade,
    mut monitor: Connection,
    kept: impl Send + 'static,
) -> Response {
    tokio::spawn(async move {
        let _kept = (kept, upgrade.work);
        let client = match upgrade.on.await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, "the client went away before the upgrade");
                return;
            }
        };
        if let Err(error) = copy_bidirectional(&mut TokioIo::new(client), &mut monitor).await {
            tracing::debug!(%error, "a stream of frames broke off");
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, FRAMES)];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}
