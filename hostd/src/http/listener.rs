//! The unix socket: who may connect, and how connections are served.

use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dyno_api::error::ApiError;
use dyno_api::openapi::{JSON_LINES, TAR};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::{Failure, close};
use super::caller::Peer;
use super::linger::Lingering;
use super::pace::{Mode, Paced, Reading};
use super::places::{Full, Guest, Place, Places, Worked};

/// P15: connections at a time; attach, exec and followed logs hold one each.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take to send a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long one that has no place may take to be told so, and how many are at a time.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
const MAX_REFUSALS: usize = 64;

/// Who may talk to hostd besides root and hostd's own user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// Members of this group.
    pub group: Option<u32>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the socket {path}")]
pub struct ListenError {
    pub(super) operation: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Listens on this path, replacing what an earlier hostd left there. The
/// socket appears with its final permissions (P14): 0660, and its group.
///
/// # Errors
/// [`ListenError`].
pub fn bind(path: &Path, access: Access) -> Result<UnixListener, ListenError> {
    let failed = |operation| {
        move |source| ListenError {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed("bind"))?;
    if access.group.is_some() {
        chown(&new, None, access.group).map_err(failed("give a group to"))?;
    }
    fs::set_permissions(&new, fs::Permissions::from_mode(0o660)).map_err(failed("protect"))?;
    fs::rename(&new, path).map_err(failed("put in place"))?;
    Ok(listener)
}

/// Takes a socket that somebody else listens with on this path, and gives it the same
/// permissions (P14). Whoever has connected already is asked who they are all the same.
///
/// # Errors
/// [`ListenError`], where it is another socket.
pub fn adopt(socket: OwnedFd, path: &Path, access: Access) -> Result<UnixListener, ListenError> {
    let failed = |operation| {
        move |source| ListenError {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let socket = std::os::unix::net::UnixListener::from(socket);
    let listens = sockopt::socket_acceptconn(&socket).map_err(io::Error::from);
    let address = socket.local_addr();
    let (true, Ok(address)) = (listens.map_err(failed("take"))?, address) else {
        let source = io::Error::other("what was passed on is no unix socket that listens");
        return Err(failed("take")(source));
    };
    if address.as_pathname() != Some(path) {
        let source = io::Error::other(format!("what was passed on is {address:?}"));
        return Err(failed("take")(source));
    }
    if access.group.is_some() {
        chown(path, None, access.group).map_err(failed("give a group to"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed("protect"))?;
    socket.set_nonblocking(true).map_err(failed("take"))?;
    UnixListener::from_std(socket).map_err(failed("take"))
}

/// Serves until the process ends.
pub async fn serve(listener: UnixListener, router: Router, access: Access) {
    let places = Places::new(MAX_CONNECTIONS);
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match allowed(&stream, access) {
                Ok(Some(peer)) => match places.take(guest(&peer)).await {
                    Ok(place) => {
                        tokio::spawn(visit(stream, peer, router.clone(), place));
                    }
                    Err(full) => refuse(stream, full, &refusals),
                },
                Ok(None) => tracing::warn!("a connection of a user who may not was closed"),
                Err(error) => tracing::warn!(%error, "a connection without credentials was closed"),
            },
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn guest(peer: &Peer) -> Guest {
    match peer {
        Peer::Local { uid, .. } if is_owner(*uid) => Guest::Owner,
        _ => Guest::Other,
    }
}

fn is_owner(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::getuid().as_raw()
}

/// Says why, instead of an answer, to as many at a time as may be told.
fn refuse(stream: UnixStream, full: Full, refusals: &Arc<Semaphore>) {
    tracing::warn!(%full, "a connection was refused");
    let Ok(permit) = refusals.clone().try_acquire_owned() else {
        return;
    };
    let api = service_fn(move |_: Request<Incoming>| async move {
        let mut response = Failure::from(ApiError::from(full)).into_response();
        close(&mut response);
        Ok(response)
    });
    tokio::spawn(async move {
        let told = connection(Paced::new(stream, Mode::default()), api);
        // Who does not ask in time is not told.
        timeout(REFUSAL_TIME, told).await.unwrap_or_default();
        drop(permit);
    });
}

/// One connection, as long as it has a place.
pub(super) async fn visit<S>(stream: S, peer: Peer, router: Router, place: Arc<Place>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mode = Mode::default();
    let stream = Paced::new(stream, mode.clone());
    let api = of(peer, router, place.clone(), mode);
    tokio::select! {
        () = connection(stream, api) => {}
        () = place.leave() => tracing::debug!("a connection that rested made room"),
    }
}

/// The API, for one who is known: every request says who sent it.
fn of(peer: Peer, router: Router, place: Arc<Place>, mode: Mode) -> impl Api {
    let service = TowerToHyperService::new(router);
    service_fn(move |mut request: Request<Incoming>| {
        let (work, mode) = (place.work().map(Arc::new), mode.clone());
        request.extensions_mut().insert(peer.clone());
        if let Some(work) = &work {
            request.extensions_mut().insert(work.clone());
        }
        let is_get = request.method() == Method::GET;
        let answer = service.call(request.map(Lingering::new));
        async move {
            let Some(work) = work else {
                // Nothing is begun on a connection that is about to be closed.
                return pending().await;
            };
            let response = answer.await?;
            mode.set(reading(is_get, &response));
            Ok(response.map(|body| Worked::of(body, work)))
        }
    })
}

fn reading(is_get: bool, response: &Response) -> Reading {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Reading::Terminal;
    }
    match response.headers().get(header::CONTENT_TYPE) {
        // What tells how an upload or a download gets on is for a program.
        Some(kind) if is_get && kind == JSON_LINES => Reading::Stream,
        Some(kind) if is_get && kind == TAR => Reading::Archive,
        _ => Reading::Answer,
    }
}

/// What answers the requests of one connection.
pub(super) trait Api:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
    + Send
    + 'static
{
}

impl<S> Api for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
        + Send
        + 'static
{
}

/// Serves one connection to its end, or until it is attach's or exec's.
pub(super) async fn connection<S>(stream: Paced<S>, api: impl Api)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), api)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// P14: the kernel's word for who is there, besides the socket's permissions; `None` where
/// they may not.
fn allowed(stream: &UnixStream, access: Access) -> io::Result<Option<Peer>> {
    let peer = stream.peer_cred()?;
    let (uid, pid) = (peer.uid(), peer.pid());
    let known = Some(Peer::Local { uid, pid });
    if is_owner(uid) {
        return Ok(known);
    }
    let Some(group) = access.group else {
        return Ok(None);
    };
    if peer.gid() == group {
        return Ok(known);
    }
    let Some(pid) = pid else {
        return Ok(None);
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let is_member = supplementary_groups(&status).any(|member| member == group);
    Ok(known.filter(|_| is_member))
}

fn supplementary_groups(status: &str) -> impl Iterator<Item = u32> {
    let groups = status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap_or_default();
    groups
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_never_open_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hostd.sock");
        let _listener = bind(&path, Access::default()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        // A second one takes its place: the first was a dead hostd's.
        let _again = bind(&path, Access::default()).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
    }

    #[tokio::test]
    async fn a_socket_that_was_passed_on_is_taken_where_it_is_the_right_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hostd.sock");
        let passed = || std::os::unix::net::UnixListener::bind(&path).unwrap();
        let other = folder.path().join("other.sock");
        assert!(adopt(passed().into(), &other, Access::default()).is_err());
        fs::remove_file(&path).unwrap();
        let wild = fs::Permissions::from_mode(0o777);
        let socket = passed();
        fs::set_permissions(&path, wild).unwrap();
        let listener = adopt(socket.into(), &path, Access::default()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let client = tokio::spawn(UnixStream::connect(path.clone()));
        listener.accept().await.unwrap();
        client.await.unwrap().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(adopt(tcp.into(), &path, Access::default()).is_err());
        let (connected, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(adopt(connected.into(), &path, Access::default()).is_err());
    }

    #[test]
    fn groups_are_those_of_the_status_file() {
        let status = "Name:\tx\nGroups:\t4 24 1000 \nNStgid:\t1\n";
        assert_eq!(
            supplementary_groups(status).collect::<Vec<_>>(),
            [4, 24, 1000]
        );
    }
}
