//! Lets a request through to its handler, or not.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Answer;
use super::caller::{self, Caller, Peer};
use super::{not_allowed, scope, unknown};

/// Passes on what whoever asks may ask for, and says who that is.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    match admit(request) {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn admit(mut request: Request) -> Answer<Request> {
    let peer = request.extensions().get::<Peer>().cloned();
    let caller = Caller::local(peer.ok_or_else(caller::unknown)?);
    let Some(route) = request.extensions().get::<MatchedPath>() else {
        return Err(unknown(request.uri()));
    };
    let Some(operation) = scope::operation(request.method(), route.as_str()) else {
        return Err(not_allowed(request.method(), request.uri()));
    };
    caller.may(operation)?;
    request.extensions_mut().insert(caller);
    Ok(request)
}
