//! The HTTP API: a thin layer that parses, asks the engine, and answers.
//!
//! ```text
//! listener  the unix socket: permissions, peer credentials, connections
//! remote    the TCP listener: TLS, and whoever has a token
//! guard     who asks, and whether they may: caller, and scope, the table of operations
//! trace     what leaves a trace in the audit log
//! extract   query and body, bounded and strict
//! answer    errors and streams
//! checkpoints, dynos, drains, files, images, secrets, tokens, volumes, host   one handler per operation of the OpenAPI document
//! observe   metrics and health, on a TCP port, too, where that is asked for
//! places    how many connections there may be, and who makes room
//! pace      how slow a client may be
//! linger    a body that nobody reads to its end
//! upload    a body as a stream of bytes
//! upgrade   attach and exec: bytes between client and monitor
//! ```

mod answer;
mod caller;
mod checkpoints;
mod drains;
mod dynos;
mod extract;
mod files;
mod guard;
mod host;
mod images;
mod linger;
mod listener;
mod observe;
mod pace;
mod places;
pub mod remote;
mod scope;
mod secrets;
mod tokens;
mod trace;
mod upgrade;
mod upload;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use dyno_api::error::{ApiError, ErrorKind};

pub use listener::{Access, ListenError, adopt, bind, serve};
pub use observe::{bind as bind_metrics, serve as serve_metrics};

use crate::host::Host;
use answer::Failure;

type Routes = Vec<(&'static str, MethodRouter<Arc<Host>>)>;

/// Every route. The OpenAPI document names the same, which a test compares.
fn routes() -> Routes {
    [of_the_host(), of_dynos(), of_what_they_use()].concat()
}

fn of_the_host() -> Routes {
    vec![
        ("/v1/version", get(host::version)),
        ("/v1/info", get(host::info)),
        ("/v1/health", get(host::health)),
        ("/v1/doctor", get(host::doctor)),
        ("/v1/openapi.json", get(host::document)),
        ("/v1/events", get(host::events)),
        ("/v1/audit", get(host::audit)),
        ("/metrics", get(observe::metrics)),
        ("/healthz", get(observe::healthz)),
        ("/readyz", get(observe::readyz)),
    ]
}

fn of_dynos() -> Routes {
    vec![
        ("/v1/dynos", get(dynos::list).post(dynos::create)),
        (
            "/v1/dynos/{dyno}",
            get(dynos::inspect).delete(dynos::remove),
        ),
        ("/v1/dynos/{dyno}/start", post(dynos::start)),
        ("/v1/dynos/{dyno}/stop", post(dynos::stop)),
        ("/v1/dynos/{dyno}/restart", post(dynos::restart)),
        ("/v1/dynos/{dyno}/kill", post(dynos::kill)),
        ("/v1/dynos/{dyno}/limit", post(dynos::limit)),
        ("/v1/dynos/{dyno}/pause", post(dynos::pause)),
        ("/v1/dynos/{dyno}/resume", post(dynos::resume)),
        (
            "/v1/dynos/{dyno}/checkpoints",
            get(checkpoints::list).post(checkpoints::make),
        ),
        (
            "/v1/dynos/{dyno}/checkpoints/{checkpoint}",
            delete(checkpoints::remove),
        ),
        ("/v1/dynos/{dyno}/restore", post(checkpoints::restore)),
        ("/v1/dynos/{dyno}/wait", get(dynos::wait)),
        ("/v1/dynos/{dyno}/logs", get(dynos::logs)),
        ("/v1/dynos/{dyno}/stats", get(dynos::stats)),
        ("/v1/dynos/{dyno}/why", get(dynos::why)),
        ("/v1/dynos/{dyno}/attach", post(dynos::attach)),
        ("/v1/dynos/{dyno}/exec", post(dynos::exec)),
        (
            "/v1/dynos/{dyno}/archive",
            get(files::pack).put(files::place),
        ),
        ("/v1/dynos/{dyno}/changes", get(files::changes)),
    ]
}

fn of_what_they_use() -> Routes {
    vec![
        ("/v1/drains", get(drains::list).post(drains::add)),
        ("/v1/drains/{drain}", delete(drains::remove)),
        ("/v1/images", get(images::list)),
        ("/v1/images/pull", post(images::pull)),
        ("/v1/images/load", post(images::load)),
        ("/v1/images/import", post(images::import)),
        ("/v1/secrets", get(secrets::list)),
        (
            "/v1/secrets/{secret}",
            get(secrets::inspect)
                .put(secrets::set)
                .delete(secrets::remove),
        ),
        ("/v1/secret-key/rotate", post(secrets::rotate)),
        ("/v1/tokens", get(tokens::list).post(tokens::create)),
        ("/v1/tokens/{token}", delete(tokens::remove)),
        ("/v1/certificates", post(tokens::certify)),
        ("/v1/volumes", get(volumes::list).post(volumes::create)),
        (
            "/v1/volumes/{volume}",
            get(volumes::inspect)
                .patch(volumes::set)
                .delete(volumes::remove),
        ),
        (
            "/v1/volumes/{volume}/snapshots",
            get(volumes::snapshots).post(volumes::snapshot),
        ),
        (
            "/v1/volumes/{volume}/snapshots/{snapshot}",
            delete(volumes::remove_snapshot),
        ),
        ("/v1/volumes/{volume}/rollback", post(volumes::roll_back)),
        (
            "/v1/volumes/{volume}/archive",
            get(volumes::export).put(volumes::import),
        ),
        // A reference has slashes, and may be one of the three words above.
        ("/v1/images/{*reference}", delete(images::remove)),
    ]
}

/// The whole API over this host.
pub fn router(host: Arc<Host>) -> Router {
    let router = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, methods)
        });
    router
        .fallback(nothing_there)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(host.clone(), guard::guard))
        .layer(from_fn_with_state(host.clone(), counted))
        .layer(from_fn_with_state(host.clone(), trace::identified))
        .with_state(host)
}

/// Counts a request. What is no route of ours is one for the count, whatever it is (P15).
async fn counted(State(host): State<Arc<Host>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str);
    let counting = host.metrics.requests.begin(route, request.method());
    let response = next.run(request).await;
    counting.answered(response.status());
    response
}

async fn nothing_there(uri: Uri) -> Failure {
    unknown(&uri)
}

async fn no_such_method(route: MatchedPath, method: Method, uri: Uri) -> Response {
    not_allowed(&method, &uri, route.as_str())
}

fn unknown(uri: &Uri) -> Failure {
    not_in_the_api(uri.path())
}

/// A method that a path of the API does not have, with those that it has (RFC 9110 section
/// 15.5.6).
fn not_allowed(method: &Method, uri: &Uri, route: &str) -> Response {
    let mut response = not_in_the_api(&format!("{method} {}", uri.path())).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(methods) = HeaderValue::try_from(scope::methods(route).join(", ")) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

fn not_in_the_api(what: &str) -> Failure {
    let message = format!("there is no {what} in this API");
    Failure(
        ApiError::new(ErrorKind::NotFound, message)
            .hint("GET /v1/openapi.json describes what there is"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn routes_and_document_name_the_same_paths() {
        let served: BTreeSet<String> = routes()
            .iter()
            .map(|(path, _)| path.replace("{*", "{"))
            .collect();
        let documented: BTreeSet<String> = dyno_api::openapi::operations()
            .into_iter()
            .map(|(_, path)| path)
            .collect();
        assert_eq!(served, documented);
    }

    #[test]
    fn routes_and_document_name_the_same_methods() {
        for (path, methods) in routes() {
            // MethodRouter tells its methods in its Debug form only.
            let text = format!("{methods:?}");
            let documented: BTreeSet<&str> = dyno_api::openapi::operations()
                .into_iter()
                .filter(|(_, documented)| *documented == path.replace("{*", "{"))
                .map(|(method, _)| method)
                .collect();
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
                let field = format!("{}: None", method.to_lowercase());
                let served = !text.contains(&field);
                assert_eq!(
                    served,
                    documented.contains(method),
                    "{method} {path}: {text}"
                );
            }
        }
    }
}
