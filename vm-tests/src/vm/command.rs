//! Commands in the guest, from outside.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::channel::Channel;
use crate::wire::{Exit, Frame, Kind, MAX_PAYLOAD, Run};

/// How long a command may take unless the request says otherwise.
const DEADLINE: Duration = Duration::from_secs(90);

/// A command to be run.
#[derive(Debug, Clone)]
pub struct Request {
    run: Run,
    stdin: Vec<u8>,
    deadline: Duration,
    diagnosis: Option<&'static str>,
}

impl Request {
    /// A command with an empty standard input.
    #[must_use]
    pub fn new(argv: &[&str]) -> Self {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        Self {
            run: Run {
                argv,
                ..Run::default()
            },
            stdin: Vec::new(),
            deadline: DEADLINE,
            diagnosis: None,
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.run.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets what it reads from its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn workdir(mut self, path: &str) -> Self {
        self.run.workdir = Some(path.to_owned());
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets a shell script that looks at the guest when the deadline has
    /// passed, before the command is killed: what it prints is told, too.
    #[must_use]
    pub fn diagnosis(mut self, script: &'static str) -> Self {
        self.diagnosis = Some(script);
        self
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    argv: Vec<String>,
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// How long it took, as seen from the harness.
    pub took: Duration,
}

impl Output {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// Standard output of a command that succeeded, as text without the last newline.
    ///
    /// # Errors
    /// With everything known about the command when it failed.
    pub fn text(&self) -> Result<String> {
        if !self.success() {
            bail!("{self}");
        }
        Ok(String::from_utf8_lossy(&self.stdout)
            .trim_end_matches('\n')
            .to_owned())
    }

    /// Standard output of a command that succeeded, read as JSON.
    ///
    /// # Errors
    /// When it failed or printed something else.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let text = self.text()?;
        serde_json::from_str(&text).with_context(|| format!("reading the JSON of {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {:?} after {:.1?}",
            self.argv.join(" "),
            self.exit,
            self.took
        )?;
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !bytes.is_empty() {
                writeln!(
                    f,
                    "--- {name}\n{}",
                    String::from_utf8_lossy(bytes).trim_end()
                )?;
            }
        }
        Ok(())
    }
}

/// What a running command has printed so far.
#[derive(Debug, Clone)]
pub struct Printed {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A command that was started; dropped, it runs on unobserved.
#[derive(Debug)]
pub struct Running<'vm> {
    channel: &'vm Channel,
    number: u32,
    frames: Receiver<Frame>,
    started: Instant,
    request: Request,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Starts a command.
pub(super) fn start(channel: &Channel, request: Request) -> Result<Running<'_>> {
    let (number, frames) = channel.open_route()?;
    channel.send(&Frame::json(Kind::Run, number, &request.run)?)?;
    for chunk in request.stdin.chunks(MAX_PAYLOAD) {
        channel.send(&Frame {
            kind: Kind::Stdin,
            channel: number,
            payload: chunk.to_vec(),
        })?;
    }
    channel.send(&Frame {
        kind: Kind::Stdin,
        channel: number,
        payload: Vec::new(),
    })?;
    let started = Instant::now();
    Ok(Running {
        channel,
        number,
        frames,
        started,
        request,
        stdout: Vec::new(),
        stderr: Vec::new(),
    })
}

impl Running<'_> {
    /// Waits for its end.
    ///
    /// # Errors
    /// When the deadline passes (the command and its process group are killed)
    /// or the machine ends, with what was printed until then.
    pub fn wait(mut self) -> Result<Output> {
        let deadline = self.started + self.request.deadline;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let trouble = match self.frames.recv_timeout(left) {
                Ok(Frame {
                    kind: Kind::Stdout,
                    payload,
                    ..
                }) => {
                    self.stdout.extend(payload);
                    continue;
                }
                Ok(Frame {
                    kind: Kind::Stderr,
                    payload,
                    ..
                }) => {
                    self.stderr.extend(payload);
                    continue;
                }
                Ok(Frame {
                    kind: Kind::Exit,
                    payload,
                    ..
                }) => {
                    let exit = serde_json::from_slice(&payload).context("reading an exit")?;
                    return Ok(self.output(exit));
                }
                Ok(frame) => format!("an unexpected {:?} frame", frame.kind),
                Err(RecvTimeoutError::Timeout) => {
                    let diagnosis = self.diagnose();
                    self.kill()?;
                    format!("not finished within {:?}{diagnosis}", self.request.deadline)
                }
                Err(RecvTimeoutError::Disconnected) => "the machine is gone".to_owned(),
            };
            let output = self.output(Exit::NotStarted("see above".to_owned()));
            bail!("{trouble}\n{output}");
        }
    }

    /// What the script for that says about the guest, as lines of their own.
    fn diagnose(&self) -> String {
        let Some(script) = self.request.diagnosis else {
            return String::new();
        };
        let request = Request::new(&["/bin/sh", "-c", script]);
        match start(self.channel, request).and_then(Running::wait) {
            Ok(output) => format!("\n{}", String::from_utf8_lossy(&output.stdout)),
            Err(silence) => format!("\nand no diagnosis: {silence:#}"),
        }
    }

    /// What it has printed once standard output has so many lines, and for
    /// `more` after that; it must not end before.
    ///
    /// # Errors
    /// When its deadline passes before, or it ends, or the machine does.
    pub fn collect(&mut self, lines: usize, more: Duration) -> Result<Printed> {
        let mut until = self.started + self.request.deadline;
        let mut enough = false;
        loop {
            let printed = self.stdout.iter().filter(|&&byte| byte == b'\n').count();
            if !enough && printed >= lines {
                enough = true;
                until = Instant::now() + more;
            }
            let left = until.saturating_duration_since(Instant::now());
            let trouble = match self.frames.recv_timeout(left) {
                Ok(Frame {
                    kind: Kind::Stdout,
                    payload,
                    ..
                }) => {
                    self.stdout.extend(payload);
                    continue;
                }
                Ok(Frame {
                    kind: Kind::Stderr,
                    payload,
                    ..
                }) => {
                    self.stderr.extend(payload);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) if enough => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    return Ok(Printed {
                        stdout: text(&self.stdout),
                        stderr: text(&self.stderr),
                    });
                }
                Err(RecvTimeoutError::Timeout) => "fewer lines than awaited",
                Ok(_) | Err(RecvTimeoutError::Disconnected) => "it ended early",
            };
            let output = self.output(Exit::NotStarted(trouble.to_owned()));
            bail!("{trouble}: {output}");
        }
    }

    /// Kills it and its process group.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn kill(&self) -> Result<()> {
        self.channel.send(&Frame {
            kind: Kind::Kill,
            channel: self.number,
            payload: Vec::new(),
        })
    }

    fn output(&mut self, exit: Exit) -> Output {
        Output {
            argv: self.request.run.argv.clone(),
            exit,
            stdout: std::mem::take(&mut self.stdout),
            stderr: std::mem::take(&mut self.stderr),
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.channel.close_route(self.number);
    }
}
