//! hostd's side of a monitor: starting one, asking it, listening to it.
//!
//! The protocol is `dyno_runtime::monitor::protocol`: one JSON line per
//! request, one per answer.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::protocol::{Announcement, Failure, FailureKind, Reply, Request, Status};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::durable::from_io;
use crate::spare::Spares;

/// Between two tries to reach a monitor that does not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a monitor may take to create its container.
const CREATE: Duration = Duration::from_secs(30);
/// How long a monitor may take to answer anything but a stop.
const ANSWER: Duration = Duration::from_secs(20);
/// P15: no line of a monitor is longer.
const MAX_LINE: u64 = 64 * 1024;
/// The longest path that a socket address holds.
const MAX_SOCKET_PATH: usize = 107;

/// A monitor that was just started, its container created.
#[derive(Debug)]
pub struct Spawned {
    /// Host pid of the container's init.
    pub init: u32,
    /// The monitor; hostd is its parent and must wait for it.
    pub monitor: Child,
}

/// Has a monitor begin in this run folder, an absolute path, and waits until its
/// container exists.
///
/// # Errors
/// Why there is no container; nothing runs then.
pub async fn spawn(spares: &Arc<Spares>, run: &Path) -> Result<Spawned, ApiError> {
    let complaints = run.join("monitor.log");
    let taken = spares.take(run).await;
    let mut monitor = taken.map_err(|error| from_io("cannot execute dyno-runtime", &error))?;
    failpoint("start.begun");
    let announced = match monitor.stdout.take() {
        Some(stdout) => timeout(CREATE, read_line(BufReader::new(stdout))).await,
        None => Ok(Ok(String::new())),
    };
    let failure = match announced {
        Ok(Ok(line)) => match serde_json::from_str(&line) {
            Ok(Announcement::Created { pid }) => return Ok(Spawned { init: pid, monitor }),
            Ok(Announcement::Failed(failure)) => api_error(failure),
            Err(_) => ApiError::new(
                ErrorKind::Internal,
                format!(
                    "the monitor ended before it had a container: {}",
                    last_words(&complaints)
                ),
            ),
        },
        Ok(Err(error)) => from_io("cannot read from the monitor", &error),
        Err(_) => ApiError::new(
            ErrorKind::Internal,
            format!(
                "the monitor did not create its container within {} s",
                CREATE.as_secs()
            ),
        ),
    };
    if let Err(error) = monitor.kill().await {
        tracing::debug!(%error, "the monitor had ended already");
    }
    Err(failure)
}

async fn read_line(reader: impl tokio::io::AsyncBufRead + Unpin) -> io::Result<String> {
    let mut line = String::new();
    reader.take(MAX_LINE).read_line(&mut line).await?;
    Ok(line)
}

fn last_words(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(1024)))?;
        let mut bytes = Vec::new();
        file.take(1024).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().replace('\n', "; "))
    };
    match read() {
        Ok(text) if !text.is_empty() => text,
        _ => "it said nothing".to_owned(),
    }
}

/// Asks the monitor at this socket for one thing.
///
/// # Errors
/// The monitor's refusal, or Internal when it cannot be asked.
pub async fn ask(socket: &Path, request: &Request) -> Result<Status, ApiError> {
    ask_within(socket, request, ANSWER).await
}

/// [`ask`] for what may take longer.
///
/// # Errors
/// As [`ask`].
pub async fn ask_within(
    socket: &Path,
    request: &Request,
    limit: Duration,
) -> Result<Status, ApiError> {
    let opened = open_within(socket, request, limit).await;
    opened.map(|(status, _)| status)
}

/// A connection whose first answer was read; more follows on it.
pub type Connection = BufReader<UnixStream>;

/// Sends a request and reads the answer's first line; the connection goes on
/// where the request is a watch, an attach or an exec.
///
/// # Errors
/// As [`ask`].
pub async fn open(socket: &Path, request: &Request) -> Result<(Status, Connection), ApiError> {
    open_within(socket, request, ANSWER).await
}

/// P15: a monitor that hangs holds nobody up for ever. What follows the first
/// answer takes as long as it takes.
async fn open_within(
    socket: &Path,
    request: &Request,
    limit: Duration,
) -> Result<(Status, Connection), ApiError> {
    match timeout(limit, begin(socket, request)).await {
        Ok(opened) => opened,
        Err(_) => Err(ApiError::new(
            ErrorKind::Internal,
            format!("the monitor did not answer within {} s", limit.as_secs()),
        )
        .hint("it is stopped or hangs; removing its dyno by force kills it: `dyno rm -f`")),
    }
}

async fn begin(socket: &Path, request: &Request) -> Result<(Status, Connection), ApiError> {
    let failed = |error: io::Error| from_io("cannot talk to the monitor", &error);
    let mut line = serde_json::to_vec(request)
        .map_err(io::Error::from)
        .map_err(failed)?;
    line.push(b'\n');
    let mut stream = connect(socket).await.map_err(failed)?;
    stream.write_all(&line).await.map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    (&mut reader)
        .take(MAX_LINE)
        .read_line(&mut answer)
        .await
        .map_err(failed)?;
    if answer.is_empty() {
        let message = "the monitor ended before it answered";
        return Err(ApiError::new(ErrorKind::Internal, message)
            .hint("its dyno was killed with it: `dyno why` tells what follows"));
    }
    let reply = serde_json::from_str(&answer)
        .map_err(io::Error::from)
        .map_err(failed)?;
    match reply {
        Reply::Ok(status) => Ok((status, reader)),
        Reply::Err(failure) => Err(api_error(failure)),
    }
}

/// Connects also where the path is too long for a socket address, by way of
/// its folder's descriptor.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return UnixStream::connect(socket).await;
    }
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    UnixStream::connect(path).await
}

/// A monitor's stream of statuses.
#[derive(Debug)]
pub struct Watch {
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Open(Lines<Connection>),
    /// A monitor that has not answered yet; `None` once it has ended.
    Opening(JoinHandle<Option<(Status, Watch)>>),
}

impl Watch {
    /// Listens to the monitor at this socket: its status now, and the stream.
    ///
    /// # Errors
    /// As [`ask`].
    pub async fn open(socket: &Path) -> Result<(Status, Self), ApiError> {
        let (status, connection) = open(socket, &Request::Watch {}).await?;
        let stream = Stream::Open(connection.lines());
        Ok((status, Self { stream }))
    }

    /// Listens to a monitor that does not answer, as soon as it does: its first
    /// status is the one that it has then. It is asked as long as `lives` says so.
    pub fn once_it_answers(socket: PathBuf, lives: impl Fn() -> bool + Send + 'static) -> Self {
        let opening = tokio::spawn(async move {
            while lives() {
                match Self::open(&socket).await {
                    Ok(opened) => return Some(opened),
                    Err(_) => sleep(AGAIN).await,
                }
            }
            None
        });
        let stream = Stream::Opening(opening);
        Self { stream }
    }

    /// Whether the monitor has answered.
    pub fn is_open(&self) -> bool {
        matches!(self.stream, Stream::Open(_))
    }

    /// The next status; `None` once the monitor is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Status> {
        let lines = match &mut self.stream {
            Stream::Open(lines) => lines,
            Stream::Opening(opening) => {
                let (status, opened) = opening.await.ok().flatten()?;
                *self = opened;
                return Some(status);
            }
        };
        match lines.next_line().await {
            Ok(Some(line)) => match serde_json::from_str(&line) {
                Ok(Reply::Ok(status)) => Some(status),
                other => {
                    tracing::warn!(?other, "the monitor says something that is no status");
                    None
                }
            },
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%error, "the monitor's stream broke");
                None
            }
        }
    }
}

/// A monitor's refusal in the words of the API.
pub fn api_error(failure: Failure) -> ApiError {
    let kind = match failure.kind {
        FailureKind::Invalid => ErrorKind::Invalid,
        FailureKind::Forbidden => ErrorKind::Forbidden,
        FailureKind::NotFound => ErrorKind::NotFound,
        FailureKind::Conflict => ErrorKind::Conflict,
        FailureKind::Exhausted => ErrorKind::Exhausted,
        FailureKind::Unsupported => ErrorKind::Unsupported,
        FailureKind::Internal => ErrorKind::Internal,
    };
    ApiError {
        kind,
        message: failure.message,
        hint: failure.hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel accepts connections and requests for a monitor that is stopped.
    #[tokio::test]
    async fn a_monitor_that_does_not_answer_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("monitor.sock");
        let _deaf = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let request = Request::Attach {
            stdin: true,
            size: None,
        };
        let opened = open_within(&socket, &request, Duration::from_millis(20)).await;
        let error = opened.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
        assert!(error.message.contains("did not answer"), "{error}");
    }
}
