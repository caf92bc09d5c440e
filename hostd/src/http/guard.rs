//! Lets a request through to its handler, or not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dyno_api::error::{ApiError, ErrorKind};
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::answer::{Answer, Failure};
use super::caller::{self, Caller, Peer};
use super::scope::{self, Operation};
use super::{not_allowed, trace, unknown};
use crate::host::Host;
use crate::remote::{Refused, Session};
use crate::tokens::{Live, MAX_CONNECTIONS};

/// Passes on what whoever asks may ask for, and says who that is.
pub(super) async fn guard(State(host): State<Arc<Host>>, request: Request, next: Next) -> Response {
    let (request, caller, operation) = match admit(&host, request).await {
        Ok(admitted) => admitted,
        Err(NotAdmitted::Why(failure)) => return failure.into_response(),
        Err(NotAdmitted::Method(response)) => return *response,
    };
    match operation.leaves_a_trace() {
        true => trace::followed(host, (&caller, operation), request, next).await,
        false => next.run(request).await,
    }
}

type Admitted = (Request, Caller, &'static Operation);

enum NotAdmitted {
    Why(Failure),
    /// There is such a path, but not with this method.
    Method(Box<Response>),
}

impl<T: Into<Failure>> From<T> for NotAdmitted {
    fn from(failure: T) -> Self {
        Self::Why(failure.into())
    }
}

async fn admit(host: &Arc<Host>, mut request: Request) -> Result<Admitted, NotAdmitted> {
    let peer = request.extensions().get::<Peer>().cloned();
    let caller = match peer.ok_or_else(caller::unknown)? {
        Peer::Local { uid, pid } => Caller::Local { uid, pid },
        Peer::Remote(session) => {
            let token = recognise(host, &session, request.headers())?;
            // Nobody further in has to know it.
            request.headers_mut().remove(header::AUTHORIZATION);
            Caller::Remote {
                token,
                address: session.address(),
            }
        }
    };
    let Some(route) = request.extensions().get::<MatchedPath>() else {
        return Err(unknown(request.uri()).into());
    };
    let Some(operation) = scope::operation(request.method(), route.as_str()) else {
        let refused = not_allowed(request.method(), request.uri(), route.as_str());
        return Err(NotAdmitted::Method(Box::new(refused)));
    };
    if let Err(error) = caller.may(operation) {
        trace::refused(host, (&caller, operation), &mut request, &error).await;
        return Err(error.into());
    }
    request.extensions_mut().insert(caller.clone());
    Ok((request, caller, operation))
}

/// The token of a request, which is that of its connection: by its secret (RFC 6750
/// section 2.1), else by the certificate that the connection was made with.
fn recognise(host: &Arc<Host>, session: &Session, headers: &HeaderMap) -> Answer<Arc<Live>> {
    let now = Timestamp::now();
    let certificate = session.certificate();
    let found = match (headers.contains_key(header::AUTHORIZATION), certificate) {
        (false, Some(certificate)) => host.tokens.of_certificate(certificate, now),
        _ => bearer(headers).and_then(|secret| host.tokens.authenticate(secret, now)),
    };
    let why = match found {
        Some(token) => match session.belong_to(&token) {
            Ok(()) => {
                if token.used(now) {
                    let (host, used) = (host.clone(), token.clone());
                    // The disk is nobody's to wait for here.
                    drop(spawn_blocking(move || host.tokens.note_use(&used)));
                }
                return Ok(token);
            }
            Err(Refused::Crowded) => return Err(crowded(&token)),
            Err(Refused::Belongs) => "this connection belongs to another token",
        },
        None if headers.contains_key(header::AUTHORIZATION) && bearer(headers).is_none() => {
            "what stands behind `Authorization` is no token"
        }
        None if bearer(headers).is_none() && certificate.is_some() => {
            "the token of this certificate was taken away, or it has expired"
        }
        None if bearer(headers).is_none() => "a request from elsewhere needs a token",
        None => "there is no such token, or it was taken away, or it has expired",
    };
    host.metrics.unauthorized.fetch_add(1, Ordering::Relaxed);
    host.remote
        .gate
        .failed(session.address().ip(), Instant::now());
    tracing::warn!(address = %session.address(), why, "a request was refused");
    Err(Failure(ApiError::new(ErrorKind::Unauthorized, why).hint(
        "on the host, `dyno token create` makes one: `Authorization: Bearer SECRET`",
    )))
}

fn crowded(token: &Live) -> Failure {
    let message = format!(
        "the token {} has {MAX_CONNECTIONS} connections already",
        token.name()
    );
    Failure(
        ApiError::new(ErrorKind::Exhausted, message)
            .hint("end one of those that follow logs or events, attach or execute"),
    )
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else {
        return None;
    };
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_stands_behind_bearer_and_once() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer x"]).as_deref(), Some("x"));
        assert_eq!(of(&["bearer  x "]).as_deref(), Some("x"));
        for wrong in [&[][..], &["x"], &["Basic x"], &["Bearer x", "Bearer y"]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
