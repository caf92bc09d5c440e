//! What leaves a trace in the audit log, and the id of each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::RequestExt;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dyno_api::audit::AuditCaller;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_images::Reference;

use super::answer::Failure;
use super::caller::Caller;
use super::scope::Operation;
use crate::audit::{Asked, Trail};
use crate::durable::internal;
use crate::engine;
use crate::host::Host;

/// What a request is called, by who sends it or by us.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// P15: characters of it, and of a name in a path.
const MAX_ID: usize = 64;
const MAX_NAME: usize = 63;

static MADE: AtomicU64 = AtomicU64::new(0);

/// The id of a request. It is in the answer and, of a change, in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's, where it has one that is short and plain.
    fn of(headers: &HeaderMap, host: &Host) -> Self {
        let mut given = headers.get_all(HEADER).iter();
        match (given.next(), given.next()) {
            (Some(id), None) if is_plain(id.as_bytes(), MAX_ID) => Self(id.clone()),
            _ => {
                let number = MADE.fetch_add(1, Ordering::Relaxed);
                let made = format!("{:x}-{number:x}", host.started.as_millisecond());
                // Nothing but digits is in it.
                let value = HeaderValue::try_from(made);
                Self(value.unwrap_or(HeaderValue::from_static("-")))
            }
        }
    }

    fn text(&self) -> String {
        self.0.to_str().unwrap_or_default().to_owned()
    }
}

fn is_plain(text: &[u8], most: usize) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=most).contains(&text.len()) && text.iter().all(plain)
}

/// Gives each request its id, and each answer that of its request.
pub(super) async fn identified(
    State(host): State<Arc<Host>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::of(request.headers(), &host);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(HEADER, id.0);
    response
}

/// Does what leaves a trace, and answers once it has. It is done to its end, whoever goes
/// away meanwhile: how it ended is known, and nobody hides it by hanging up.
pub(super) async fn followed(
    host: Arc<Host>,
    (caller, operation): (&Caller, &Operation),
    mut request: Request,
    next: Next,
) -> Response {
    let asked = asked(&host, (caller, operation), &mut request).await;
    let place = host.audit.place(&asked.caller).await;
    let trail = match host.audit.begin(asked, operation.is_urgent()) {
        Ok(trail) => trail,
        Err(trouble) => return Failure(trouble.into()).into_response(),
    };
    if operation.is_stream() {
        trail.goes_on();
    }
    request.extensions_mut().insert(trail.clone());
    let work = tokio::spawn(async move {
        let _place = place;
        let response = next.run(request).await;
        let error = response.extensions().get::<ErrorKind>().copied();
        trail.answered(response.status().as_u16(), error).await;
        response
    });
    match work.await {
        Ok(response) => response,
        Err(error) => Failure(internal(&error)).into_response(),
    }
}

/// Writes down that somebody may not.
pub(super) async fn refused(
    host: &Host,
    who_and_what: (&Caller, &Operation),
    request: &mut Request,
    error: &ApiError,
) {
    let asked = asked(host, who_and_what, request).await;
    host.audit.refused(asked, error.kind);
}

async fn asked(
    host: &Host,
    (caller, operation): (&Caller, &Operation),
    request: &mut Request,
) -> Asked {
    let id = request.extensions().get::<RequestId>();
    let id = id.map(RequestId::text).unwrap_or_default();
    let params = request.extract_parts::<RawPathParams>().await;
    let params = params.iter().flatten();
    let (mut names, mut dyno) = (Vec::new(), None);
    for (param, value) in params {
        if param == "dyno" {
            let found = engine::find(host, value).ok();
            dyno = found.map(|found| found.look(|dyno| dyno.id.clone()));
        }
        names.extend(name(param, value));
    }
    Asked {
        request: id,
        caller: caller.into(),
        operation: operation.name,
        target: (!names.is_empty()).then(|| names.join("/")),
        dyno,
    }
}

/// What a part of a path names, where it can be a name at all: what a client puts there by
/// mistake is nobody's to keep.
fn name(param: &str, value: &str) -> Option<String> {
    match param {
        "reference" => value.parse().ok().map(|name: Reference| name.to_string()),
        _ => is_plain(value.as_bytes(), MAX_NAME).then(|| value.to_owned()),
    }
}

impl From<&Caller> for AuditCaller {
    fn from(caller: &Caller) -> Self {
        match caller {
            Caller::Local { uid, pid } => Self::User {
                uid: *uid,
                pid: *pid,
            },
            Caller::Remote { token, address } => Self::Token {
                token: token.id().clone(),
                name: token.name().clone(),
                address: *address,
            },
        }
    }
}

/// For handlers that know more than the path of a request says, or work on after its answer.
impl<S: Sync> FromRequestParts<S> for Trail {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let message = "what is asked for leaves no trace";
        let missing = || Failure(ApiError::new(ErrorKind::Internal, message)).into_response();
        parts.extensions.get().cloned().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        for good in ["a", "0aZ-_.", &"x".repeat(MAX_ID)] {
            assert!(is_plain(good.as_bytes(), MAX_ID), "{good}");
        }
        for bad in ["", "a b", "a\"", "\u{e9}", "a,b", &"x".repeat(MAX_ID + 1)] {
            assert!(!is_plain(bad.as_bytes(), MAX_ID), "{bad}");
        }
    }

    #[test]
    fn what_is_no_name_is_kept_nowhere() {
        assert_eq!(name("dyno", "web-1").as_deref(), Some("web-1"));
        assert_eq!(name("dyno", "pass word"), None);
        assert_eq!(name("reference", "https://ann:pw@r.example/x"), None);
        let full = name("reference", "busybox").unwrap();
        assert!(full.ends_with("busybox:latest"), "{full}");
    }
}
