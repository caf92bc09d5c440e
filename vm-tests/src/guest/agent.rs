//! Runs commands for the harness and streams what they print.
//!
//! One thread reads frames; each command has two threads that pump its
//! output and one that waits for it. `Exit` is sent only after both pumps
//! have seen the end, or a moment after the exit where a background child
//! still holds the streams open.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::wire::{Exit, Frame, Hello, Kind, Run};

/// Name of the virtio-serial port that leads to the harness.
pub(crate) const PORT: &str = "dyno.agent";

/// How long the exit waits for streams that a background child keeps open.
const DRAIN: Duration = Duration::from_millis(500);

type Port = Arc<Mutex<File>>;

/// Obeys the harness until it hangs up.
///
/// # Errors
/// When the port is missing or fails.
pub(super) fn serve() -> Result<()> {
    // A machine for a person has a console and no harness.
    let Some(path) = find_port()? else {
        super::idle()
    };
    let mut reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let port: Port = Arc::new(Mutex::new(
        reader.try_clone().context("duplicating the port")?,
    ));
    let hello = Hello {
        boot_id: read_trimmed("/proc/sys/kernel/random/boot_id")?,
        uptime: read_trimmed("/proc/uptime")?,
    };
    send(&port, &Frame::json(Kind::Hello, 0, &hello)?);
    let mut commands = HashMap::new();
    while let Some(frame) = Frame::read_from(&mut reader).context("reading a frame")? {
        obey(&port, &mut commands, frame)?;
    }
    bail!("the harness hung up")
}

/// One running command, as the reading thread knows it.
struct Running {
    group: Pid,
    stdin: Option<ChildStdin>,
}

fn obey(port: &Port, commands: &mut HashMap<u32, Running>, frame: Frame) -> Result<()> {
    let channel = frame.channel;
    match frame.kind {
        Kind::Run => {
            let run: Run = serde_json::from_slice(&frame.payload).context("reading a command")?;
            match start(&run) {
                Ok(mut child) => {
                    let group = Pid::from_child(&child);
                    let stdin = child.stdin.take();
                    commands.insert(channel, Running { group, stdin });
                    attend(port, channel, child);
                }
                Err(error) => {
                    let exit = Exit::NotStarted(format!("{error:#}"));
                    send(port, &Frame::json(Kind::Exit, channel, &exit)?);
                }
            }
        }
        Kind::Stdin => {
            if let Some(running) = commands.get_mut(&channel) {
                let written = match running.stdin.as_mut() {
                    Some(stdin) if !frame.payload.is_empty() => stdin.write_all(&frame.payload),
                    _ => Ok(()),
                };
                // A command that no longer reads has closed its end: so do we.
                if frame.payload.is_empty() || written.is_err() {
                    running.stdin = None;
                }
            }
        }
        Kind::Kill => {
            if let Some(running) = commands.remove(&channel)
                && let Err(error) = kill_process_group(running.group, Signal::KILL)
                && error != rustix::io::Errno::SRCH
            {
                return Err(error).context("killing a command");
            }
        }
        other => bail!("the harness sent {other:?}"),
    }
    Ok(())
}

fn start(run: &Run) -> Result<Child> {
    let (program, arguments) = run.argv.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .envs(&run.env)
        .current_dir(run.workdir.as_deref().unwrap_or("/root"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
        .spawn()
        .with_context(|| format!("executing {program}"))
}

/// Starts the threads that pump and wait.
fn attend(port: &Port, channel: u32, mut child: Child) {
    let (done, finished) = std::sync::mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        pump(port, channel, Kind::Stdout, stdout, done.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        pump(port, channel, Kind::Stderr, stderr, done.clone());
    }
    drop(done);
    let port = Arc::clone(port);
    thread::spawn(move || {
        let exit = match child.wait() {
            Ok(status) => exit_of(status),
            Err(error) => Exit::NotStarted(format!("waiting: {error}")),
        };
        drain(&finished);
        if let Ok(frame) = Frame::json(Kind::Exit, channel, &exit) {
            send(&port, &frame);
        }
    });
}

/// Waits until both pumps have ended, at most [`DRAIN`].
fn drain(finished: &Receiver<()>) {
    let deadline = Instant::now() + DRAIN;
    while finished
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .is_ok()
    {}
}

fn pump(
    port: &Port,
    channel: u32,
    kind: Kind,
    mut stream: impl Read + Send + 'static,
    done: Sender<()>,
) {
    let port = Arc::clone(port);
    thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            send(
                &port,
                &Frame {
                    kind,
                    channel,
                    payload: buffer[..count].to_vec(),
                },
            );
        }
        drop(done);
    });
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::NotStarted(status.to_string()),
    }
}

/// Sends a frame. A port that fails has lost its harness, and with it all
/// reason to go on; init starts the agent anew.
fn send(port: &Port, frame: &Frame) {
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = frame.write_to(&mut *port) {
        eprintln!("dyno-vm-guest: writing to the harness: {error}");
        std::process::abort();
    }
}

/// The device of our port, by the name that the kernel shows.
fn find_port() -> Result<Option<PathBuf>> {
    let class = "/sys/class/virtio-ports";
    for entry in fs::read_dir(class).with_context(|| format!("reading {class}"))? {
        let entry = entry.with_context(|| format!("reading {class}"))?;
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT) {
            return Ok(Some(PathBuf::from("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

fn read_trimmed(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path)
        .with_context(|| format!("reading {path}"))?
        .trim()
        .to_owned())
}
