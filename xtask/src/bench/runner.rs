//! A process that executes command lines and times them.
//!
//! Two of it serve for the whole bench, one in each mount namespace, so that
//! entering a namespace is in nobody's time, and everybody is spawned and
//! waited for by the same code from a process of the same size.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Command lines that make one sample, executed one after the other.
pub(super) type Commands = Vec<Vec<String>>;

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    nanoseconds: u64,
    /// What went wrong, by command, exit status and stderr.
    failure: Option<String>,
}

/// The bench's end of a runner.
pub(super) struct Runner {
    child: Child,
    requests: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

impl Runner {
    /// Starts `command`, which must become a [`serve`].
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start a runner: {command:?}"))?;
        let requests = child.stdin.take();
        let reports = BufReader::new(child.stdout.take().context("the runner has no stdout")?);
        Ok(Self {
            child,
            requests,
            reports,
        })
    }

    /// How long `commands` take.
    pub(super) fn time(&mut self, commands: &Commands) -> Result<Duration> {
        let requests = self.requests.as_mut().context("the runner has no stdin")?;
        serde_json::to_writer(&mut *requests, commands)?;
        requests.write_all(b"\n")?;
        let mut line = String::new();
        self.reports.read_line(&mut line)?;
        let report: Report =
            serde_json::from_str(&line).with_context(|| format!("the runner said {line:?}"))?;
        match report.failure {
            None => Ok(Duration::from_nanos(report.nanoseconds)),
            Some(failure) => anyhow::bail!("{failure}"),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Err(error) = self.child.wait() {
            eprintln!("bench: a runner cannot be waited for: {error}");
        }
    }
}

/// Serves requests on stdin until its end.
pub(super) fn serve() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let commands: Commands = serde_json::from_str(&line?)?;
        let started = Instant::now();
        let outcome = commands.iter().try_for_each(|command| execute(command));
        let nanoseconds = u64::try_from(started.elapsed().as_nanos())?;
        let failure = outcome.err().map(|error| format!("{error:#}"));
        let mut stdout = std::io::stdout().lock();
        serde_json::to_writer(
            &mut stdout,
            &Report {
                nanoseconds,
                failure,
            },
        )?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    Ok(())
}

fn execute(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    // A file rather than a pipe for stderr: nobody has to read it while waiting.
    let errors = tempfile()?;
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors.try_clone()?)
        .status()
        .with_context(|| format!("cannot execute {program}"))?;
    ensure!(
        status.success(),
        "{}: {status}: {}",
        command.join(" "),
        tail(errors)?
    );
    Ok(())
}

/// A file without a name, in memory.
fn tempfile() -> Result<std::fs::File> {
    let file = rustix::fs::memfd_create("stderr", rustix::fs::MemfdFlags::CLOEXEC);
    Ok(file.context("cannot make a temporary file")?.into())
}

fn tail(mut errors: std::fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    errors.rewind()?;
    let mut text = Vec::new();
    errors.take(4096).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}
