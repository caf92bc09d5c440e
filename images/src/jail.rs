//! Running the unpack helper in `dyno-runtime jail` and listening to what it reports.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::limits::Limits;
use crate::unpack::{Report, Summary};

/// P15: a report line is at most this long, however broken into the helper is.
const MAX_LINE_BYTES: u64 = 16 << 10;
/// How much of the helper's stderr goes into an error.
const MAX_STDERR_BYTES: u64 = 4 << 10;
/// The helper reports every few MiB; one that is silent for so long is stuck.
const SILENCE: Duration = Duration::from_secs(300);

/// How layers are unpacked. P8: by a helper program, in its own namespaces, with nothing in view
/// but the layer's folder, so that neither a parser bug nor a hostile path reaches the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    /// The `dyno-runtime` binary, whose `jail` command confines the helper.
    pub runtime: PathBuf,
    /// The `dyno-unpack` binary.
    pub unpack: PathBuf,
    /// First of the 65,536 host uids (and gids) that the helper runs as.
    pub uid_base: u32,
}

/// Why unpacking in the jail failed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The runtime could not be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The helper found the layer bad, beyond bounds, or could not write it.
    #[error("the layer was refused: {0}")]
    Refused(String),
    /// The helper ended without a summary: killed, crashed, or the jail could not be set up.
    #[error("the unpack helper ended with {status}: {stderr}")]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it wrote on stderr.
        stderr: String,
    },
    /// What it wrote is not its protocol.
    #[error("the unpack helper wrote something that is no report: {0}")]
    Protocol(String),
    /// It has said nothing for five minutes.
    #[error("the unpack helper is stuck: no progress for {} s", SILENCE.as_secs())]
    Stuck,
    /// Reading its reports failed.
    #[error("cannot read from the unpack helper")]
    Read(#[source] io::Error),
}

impl Jail {
    /// Unpacks `layer` into the folder `tree`, calling `progress` with the decompressed bytes so
    /// far. The helper is killed if the future is dropped.
    pub(crate) async fn unpack(
        &self,
        layer: File,
        tree: &Path,
        limits: &Limits,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Summary, UnpackError> {
        let mut child = self.spawn(layer, tree, limits)?;
        // Both pipes exist: they were asked for.
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("the pipes were requested")
        };
        let (outcome, stderr) = tokio::join!(listen(stdout, progress), first_words(stderr));
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // Dropping the child kills it, too; waiting here means that it no longer writes
                // to the folder that the caller is about to remove.
                child.kill().await.map_err(UnpackError::Read)?;
                return Err(error);
            }
        };
        let status = child.wait().await.map_err(UnpackError::Read)?;
        match outcome {
            Some(Report::Done(summary)) if status.success() => Ok(summary),
            Some(Report::Failed(reason)) => Err(UnpackError::Refused(reason)),
            _ => Err(UnpackError::Died { status, stderr }),
        }
    }

    /// Takes the standard input, an archive, for all files of the folder `tree`, which is empty.
    /// Its standard output says how it went: one JSON line, with `failed` where it did.
    #[must_use]
    pub fn fill(&self, tree: &Path, limits: &Limits) -> Command {
        let mut command = self.command(tree);
        command.arg("fill").args(limits.words());
        command
    }

    /// Writes all files of the folder `tree` to the standard output, an archive.
    #[must_use]
    pub fn dump(&self, tree: &Path) -> Command {
        let mut command = self.command(tree);
        command.arg("dump");
        command
    }

    /// `dyno-unpack` in the jail, its arguments to come.
    fn command(&self, tree: &Path) -> Command {
        let mut command = Command::new(&self.runtime);
        command
            .arg("jail")
            .arg("--root")
            .arg(tree)
            .arg("--uid-base")
            .arg(self.uid_base.to_string())
            .arg("--")
            .arg(&self.unpack)
            .env_clear();
        command
    }

    fn spawn(&self, layer: File, tree: &Path, limits: &Limits) -> Result<Child, UnpackError> {
        self.command(tree)
            .args(limits.words())
            .stdin(Stdio::from(layer))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| UnpackError::Spawn {
                program: self.runtime.clone(),
                source,
            })
    }
}

/// Reads reports up to the end of stdout; the last word is `Done`, `Failed` or nothing.
async fn listen(
    stdout: impl AsyncRead + Unpin,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Option<Report>, UnpackError> {
    let mut lines = BufReader::new(stdout).take(MAX_LINE_BYTES);
    let mut outcome = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.set_limit(MAX_LINE_BYTES);
        match timeout(SILENCE, lines.read_until(b'\n', &mut line)).await {
            Err(_elapsed) => return Err(UnpackError::Stuck),
            Ok(Err(error)) => return Err(UnpackError::Read(error)),
            Ok(Ok(0)) => return Ok(outcome),
            Ok(Ok(_)) => {}
        }
        match serde_json::from_slice(&line) {
            Ok(Report::Progress { bytes }) => progress(bytes),
            Ok(last) => outcome = Some(last),
            Err(_not_json) => {
                let start = String::from_utf8_lossy(&line).chars().take(200).collect();
                return Err(UnpackError::Protocol(start));
            }
        }
    }
}

async fn first_words(stderr: impl AsyncRead + Unpin) -> String {
    let mut stderr = stderr;
    let mut text = Vec::new();
    if let Err(error) = (&mut stderr)
        .take(MAX_STDERR_BYTES)
        .read_to_end(&mut text)
        .await
    {
        return format!("(unreadable: {error})");
    }
    // Keep the pipe open and empty, so that a talkative helper neither blocks nor dies of it.
    if let Err(error) = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await {
        return format!("(unreadable: {error})");
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}
