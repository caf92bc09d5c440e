//! Files of a dyno as tar streams, out of it and into it.
//!
//! hostd looks at none of them. A program that is in the dyno's namespaces does,
//! `dyno-unpack` by way of `dyno-runtime inside`: links lead where they lead for
//! the dyno, ids are the dyno's, and a file system that hangs holds up that
//! program alone. For a dyno that does not run, its supervisor makes a container
//! that is never started, and takes it down afterwards.

use std::fmt::Debug;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_runtime::monitor::protocol::State as MonitorState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::durable::{self, from_io, internal};
use crate::engine;
use crate::host::{Host, blocking};
use crate::room::Room;
use crate::supervisor::{Ask, Presence};

/// Bytes that are passed on at once.
const CHUNK: usize = 64 * 1024;
/// P15: what a helper may say of a failure.
const MAX_WORDS: u64 = 4096;
/// P15: how long a client may send nothing of its archive.
const SILENCE: Duration = Duration::from_secs(60);
/// The exit code of `dyno-unpack pack` where there is no such path.
const NO_SUCH_PATH: i32 = 3;

/// A path of a dyno on its way out.
#[derive(Debug)]
pub struct Packing {
    helper: Child,
    stdout: ChildStdout,
    first: Option<Bytes>,
    /// What the files need to be there.
    _kept: Box<dyn Debug + Send>,
}

/// Begins to pack a path of a dyno.
///
/// # Errors
/// NotFound where there is no such dyno or path, Conflict while it waits to be
/// started again, and why its files cannot be seen.
pub async fn pack(host: &Arc<Host>, wanted: &str, path: &str) -> Result<Packing, ApiError> {
    let (helper, present) = helper(host, wanted, "pack", path).await?;
    Packing::begin(helper, path, present).await
}

impl Packing {
    /// Waits for the first bytes of a program that writes an archive.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) async fn begin(
        mut helper: Child,
        path: &str,
        kept: impl Debug + Send + 'static,
    ) -> Result<Self, ApiError> {
        let Some(mut stdout) = helper.stdout.take() else {
            return Err(ApiError::new(
                ErrorKind::Internal,
                "the helper has no output",
            ));
        };
        // An empty archive is two blocks: nothing at all is a failure.
        match chunk(&mut stdout).await.map_err(broken)? {
            Some(first) => Ok(Self {
                helper,
                stdout,
                first: Some(first),
                _kept: Box::new(kept),
            }),
            None => Err(why(&mut helper, path).await),
        }
    }

    /// The next bytes of the archive; `None` at its end.
    ///
    /// # Errors
    /// When it broke off: what came is no whole archive then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if let Some(bytes) = chunk(&mut self.stdout).await.map_err(broken)? {
            return Ok(Some(bytes));
        }
        match self.helper.wait().await.map_err(broken)? {
            status if status.success() => Ok(None),
            status => Err(ended(status, "")),
        }
    }
}

/// Puts an archive at a path of a dyno.
///
/// # Errors
/// As [`pack`]; Invalid for what is no archive, or does not fit there.
pub async fn place(
    host: &Arc<Host>,
    wanted: &str,
    path: &str,
    archive: impl AsyncRead + Unpin,
) -> Result<(), ApiError> {
    let (helper, _present) = helper(host, wanted, "place", path).await?;
    fill(helper, path, archive).await
}

/// Feeds an archive to a program that takes it, and hears what became of it.
///
/// # Errors
/// Invalid for what is no archive, or does not fit there.
pub(crate) async fn fill(
    mut helper: Child,
    path: &str,
    archive: impl AsyncRead + Unpin,
) -> Result<(), ApiError> {
    filled(&mut helper, path, archive).await
}

/// [`fill`], as long as there is room.
///
/// # Errors
/// As [`fill`]; Exhausted where there is none. The program has ended then.
pub(crate) async fn fill_within(
    mut helper: Child,
    path: &str,
    archive: impl AsyncRead + Unpin,
    room: &Room,
) -> Result<(), ApiError> {
    let full = tokio::select! {
        filled = filled(&mut helper, path, archive) => return filled,
        full = room.is_taken() => full,
    };
    kill(&mut helper).await;
    Err(full)
}

async fn filled(
    helper: &mut Child,
    path: &str,
    archive: impl AsyncRead + Unpin,
) -> Result<(), ApiError> {
    let fed = feed(helper, archive).await;
    let mut report = String::new();
    if let Some(stdout) = helper.stdout.take() {
        let mut stdout = stdout.take(MAX_WORDS);
        stdout.read_to_string(&mut report).await.map_err(broken)?;
    }
    let status = helper.wait().await.map_err(broken)?;
    let said: serde_json::Value = serde_json::from_str(&report).unwrap_or_default();
    if let Some(reason) = said.get("failed").and_then(|reason| reason.as_str()) {
        return Err(ApiError::new(
            ErrorKind::Invalid,
            format!("the archive is not put at {path}: {reason}"),
        ));
    }
    fed?;
    match status.success() {
        true => Ok(()),
        false => Err(why(helper, path).await),
    }
}

/// Sends the archive as fast as it is taken. A helper that has heard enough
/// says so in its report.
async fn feed(helper: &mut Child, mut archive: impl AsyncRead + Unpin) -> Result<(), ApiError> {
    let Some(mut stdin) = helper.stdin.take() else {
        return Ok(());
    };
    loop {
        let read = timeout(SILENCE, chunk(&mut archive)).await;
        let read = read.map_err(|_elapsed| {
            let seconds = SILENCE.as_secs();
            ApiError::new(
                ErrorKind::Invalid,
                format!("nothing of the archive came for {seconds} s"),
            )
        });
        let sent = match read {
            Ok(Ok(Some(bytes))) => stdin.write_all(&bytes).await,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => {
                kill(helper).await;
                let message = format!("the archive broke off: {error}");
                return Err(ApiError::new(ErrorKind::Invalid, message));
            }
            Err(silent) => {
                kill(helper).await;
                return Err(silent);
            }
        };
        if sent.is_err() {
            return Ok(());
        }
    }
}

async fn kill(helper: &mut Child) {
    if let Err(error) = helper.kill().await {
        tracing::debug!(%error, "a helper had ended already");
    }
}

/// A program among the files of a dyno, and what keeps them there.
async fn helper(
    host: &Arc<Host>,
    wanted: &str,
    verb: &str,
    path: &str,
) -> Result<(Child, Presence), ApiError> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4000 {
        return Err(ApiError::new(
            ErrorKind::Invalid,
            format!("{path:?} is no absolute path of at most 4000 bytes"),
        ));
    }
    let handle = engine::find(host, wanted)?;
    let present = handle.be_present();
    handle.ask(Ask::Show).await?;
    let state = host.paths.dyno(&handle.dyno().id).monitor_state();
    let state = blocking(move || Ok(durable::read_json::<MonitorState>(&state)?)).await?;
    let Some(init) = state.and_then(|state| state.init) else {
        return Err(ApiError::new(
            ErrorKind::Conflict,
            format!("dyno {wanted} has ended and waits to be started again"),
        ));
    };
    let helper = Command::new(&host.binaries.runtime)
        .arg("inside")
        .arg("--pid")
        .arg(init.pid.to_string())
        .arg("--start-time")
        .arg(init.start_time.to_string())
        .arg("--")
        .arg(&host.binaries.unpack)
        .args([verb, path])
        .env_clear()
        .stdin(if verb == "place" {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let helper = helper.map_err(|error| from_io("cannot execute dyno-runtime", &error))?;
    Ok((helper, present))
}

/// Some bytes; `None` at the end.
async fn chunk(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let mut bytes = BytesMut::with_capacity(CHUNK);
    match from.read_buf(&mut bytes).await? {
        0 => Ok(None),
        _ => Ok(Some(bytes.freeze())),
    }
}

/// Why a helper has ended without what it was to do.
async fn why(helper: &mut Child, path: &str) -> ApiError {
    let mut words = Vec::new();
    if let Some(stderr) = helper.stderr.take()
        && let Err(error) = stderr.take(MAX_WORDS).read_to_end(&mut words).await
    {
        return broken(error);
    }
    match helper.wait().await {
        Ok(status) if status.code() == Some(NO_SUCH_PATH) => ApiError::new(
            ErrorKind::NotFound,
            format!("there is no {path} in the dyno"),
        ),
        Ok(status) => ended(status, String::from_utf8_lossy(&words).trim()),
        Err(error) => internal(&error),
    }
}

fn ended(status: ExitStatus, words: &str) -> ApiError {
    let message = format!("the dyno's files cannot be read or written ({status}): {words}");
    ApiError::new(ErrorKind::Internal, message.trim_end_matches([' ', ':']))
}

fn broken(error: io::Error) -> ApiError {
    from_io("cannot talk to a helper", &error)
}
