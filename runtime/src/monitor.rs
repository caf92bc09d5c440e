//! One process per dyno: parent of its init, owner of its streams, log, exit
//! status and restarts.
//!
//! ```text
//!  hostd ── spawns ──▶ monitor DIR ── creates ──▶ init, waiting ── start ──▶ payload
//!    ▲   one line: created, failed │
//!    └─── monitor.sock ────────────┤◀── clients: start stop signal status watch attach exec
//!                                  ├──▶ log, log.1 …
//!                                  └──▶ state.json
//!
//!  protocol  what is said            machine  the dyno's life, decided (pure)
//!  frame     attached streams        policy   whether and when to restart (pure)
//!  log       lines, rotation         driver   the loop     listener, client, outbox
//!  dyno      what is decided, done   serve    requests     exec, streams
//!  ending    after init's end        status   what is told
//!  record    state.json              failure  errors as answers
//! ```
//!
//! A monitor is single-threaded, knows neither network nor images, and needs
//! hostd for nothing but the beginning. It dies with nobody: its dyno ends, or
//! SIGTERM asks it to end its dyno. Killed, it takes the dyno with it.

pub mod frame;
pub mod log;
pub mod machine;
pub mod outbox;
pub mod policy;
pub mod protocol;

mod client;
mod driver;
mod dyno;
mod ending;
mod exec;
mod failure;
mod listener;
mod notify;
mod record;
mod restoring;
mod saving;
mod serve;
pub mod spare;
mod status;
mod streams;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use dyno_failpoint::failpoint;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::process::{getpid, setsid};

use self::driver::Monitor;
use self::dyno::{Dyno, Init};
use self::failure::words;
use self::listener::Listener;
use self::log::Log;
use self::machine::{Machine, Settings};
use self::notify::Notify;
use self::protocol::{Announcement, Config, Failure, FailureKind, Phase, Status, VERSION, file};
use self::record::Recorder;
use self::streams::Streams;
use crate::cgroup;
use crate::container::Container;
use crate::spec::Bundle;
use crate::sys;

/// No configuration is longer, in bytes.
const MAX_CONFIG: u64 = 64 * 1024;

/// Is the monitor of the dyno whose run folder this is, until the dyno has
/// ended for good.
///
/// Prints one [`Announcement`] on standard output and closes it. Exit code 0
/// after a dyno that was created, however it ended; 1 where none was.
pub fn run(dir: &Path) -> u8 {
    failpoint("monitor_create.begun");
    let monitor = prepare(dir);
    let announcement = match &monitor {
        Ok((_, pid)) => Announcement::Created { pid: *pid },
        Err(failure) => Announcement::Failed(failure.clone()),
    };
    if let Err(error) = announce(&announcement) {
        // hostd is gone; the next one finds the socket and state.json.
        complain(&format_args!("announce the container: {error}"));
    }
    let Ok((monitor, _)) = monitor else {
        return 1;
    };
    failpoint("monitor_create.announced");
    let served = monitor.serve();
    failpoint("monitor_end.over");
    match served {
        Ok(()) => 0,
        Err(error) => {
            complain(&format_args!("wait for events: {error}"));
            1
        }
    }
}

/// Everything up to a created container; what fails leaves nothing behind.
fn prepare(dir: &Path) -> Result<(Box<Monitor>, u32), Failure> {
    let config = read_config(dir)?;
    let bundle = Bundle::load(dir).map_err(|error| invalid(words(&error)))?;
    let layout =
        cgroup::detect().map_err(|error| Failure::new(FailureKind::Unsupported, words(&error)))?;
    let signals = detach().map_err(|error| internal(format!("detach from hostd: {error}")))?;
    if let Some(path) = &config.monitors_cgroup {
        cgroup::join(&layout, path, getpid()).map_err(|error| internal(words(&error)))?;
    }
    failpoint("monitor_create.detached");
    let log = config.log.clone().map(Log::open).transpose();
    let log = log.map_err(|error| internal(format!("open the log: {error}")))?;
    failpoint("monitor_create.logging");
    // Before the container, which mounts it.
    let notify = config.notify.map(|config| Notify::bind(dir, config));
    let notify = notify
        .transpose()
        .map_err(|error| internal(format!("make {}: {error}", file::NOTIFY)))?;
    failpoint("monitor_create.listens_to_dyno");
    let container = match config.restore {
        None => Container::new(bundle, &layout),
        Some(_) => Container::new_restricted(bundle, &layout),
    };
    let container = container.map_err(|error| Failure::from(&error))?;
    failpoint("monitor_create.grouped");
    let mut container = container.named(&config.id);
    if config.init {
        container.give_init();
    }
    let record = container.cgroup().record().clone();
    let made = Recorder::new(dir, &config.id, record, untold())
        .map_err(|error| internal(format!("read /proc: {error}")))
        .and_then(|recorder| Ok((recorder, begin(&mut container, &config, dir)?)));
    let (recorder, (init, streams)) = match made {
        Ok(made) => made,
        Err(failure) => {
            remove(&container);
            return Err(failure);
        }
    };
    failpoint("monitor_create.created");
    let dyno = Dyno::new(init, streams);
    let pid = dyno.pid();
    let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned());
    let mut monitor = Box::new(Monitor {
        machine: Machine::new(settings(&config)),
        config,
        state_file: dir.join(file::STATE),
        container,
        recorder,
        log,
        signals,
        listener: None,
        oom: None,
        notify,
        dyno,
        clients: Vec::new(),
        execs: Vec::new(),
        saving: None,
        next_client: 0,
        start_failure: None,
        relimited: Vec::new(),
        buffer: Vec::new(),
    });
    match open_to_clients(&mut monitor, dir) {
        Ok(()) => Ok((monitor, pid)),
        Err(failure) => {
            monitor.abandon();
            Err(failure)
        }
    }
}

/// The dyno's first init: from the bundle, or from a checkpoint.
fn begin(
    container: &mut Container,
    config: &Config,
    dir: &Path,
) -> Result<(Init, Streams), Failure> {
    match &config.restore {
        None => {
            let (created, streams) = dyno::create(container, config)?;
            Ok((Init::Waiting(Box::new(created)), streams))
        }
        Some(restore) => {
            let (restoring, streams) = restoring::begin(container, config, restore, dir)?;
            Ok((Init::Restoring(Box::new(restoring)), streams))
        }
    }
}

/// The last steps, after which hostd may be told.
fn open_to_clients(monitor: &mut Monitor, dir: &Path) -> Result<(), Failure> {
    let cgroup = monitor.container.cgroup();
    monitor.oom = match cgroup.oom_watch() {
        Ok(watch) => Some(watch),
        // P18: a group kill that was asked for needs the watch.
        Err(error) if cgroup.monitor_kills_on_oom() => return Err(internal(words(&error))),
        Err(_) => None,
    };
    let listener = Listener::bind(dir);
    monitor.listener =
        Some(listener.map_err(|error| internal(format!("make {}: {error}", file::SOCKET)))?);
    failpoint("monitor_create.listens");
    monitor
        .record_created()
        .inspect(|()| failpoint("monitor_create.recorded"))
        .map_err(|error| internal(format!("write {}: {error}", file::STATE)))
}

/// Signals are read, not suffered; no terminal, no session, no folder of hostd's.
fn detach() -> io::Result<SignalFd> {
    match setsid() {
        // Its caller made it the leader of a group already.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::process::chdir(c"/")?;
    rustix::thread::set_name(c"dyno-monitor")?;
    let signals = signals_to_monitors();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// What the system, a terminal or a person may send to a monitor and what is
/// about it, and what must not end them at once.
fn signals_to_monitors() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        signals.add(signal);
    }
    signals
}

fn read_config(dir: &Path) -> Result<Config, Failure> {
    let path = dir.join(file::CONFIG);
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_CONFIG).read_to_end(&mut text));
    read.map_err(|error| invalid(format!("read {}: {error}", path.display())))?;
    let config: Config = serde_json::from_slice(&text)
        .map_err(|error| invalid(format!("parse {}: {error}", path.display())))?;
    if config.version != VERSION {
        let message = format!("monitor.json has version {}, not {VERSION}", config.version);
        return Err(invalid(message));
    }
    if sys::signal::signal(config.stop_signal).is_none() {
        let number = config.stop_signal;
        return Err(invalid(format!(
            "stop_signal is {number}, expected a number from 1 to 64"
        )));
    }
    Ok(config)
}

fn settings(config: &Config) -> Settings {
    Settings {
        restart: config.restart,
        stop_signal: config.stop_signal,
        grace: Duration::from_millis(config.stop_grace_ms),
    }
}

/// Before anything is known.
fn untold() -> Status {
    Status {
        phase: Phase::Created,
        pid: None,
        started: None,
        restarts: 0,
        crashes: 0,
        notified: None,
        exit: None,
        next_start: None,
        reason: None,
        by_system: false,
    }
}

fn remove(container: &Container) {
    if let Err(error) = container.cgroup().remove(Duration::from_secs(1)) {
        complain(&words(&error));
    }
}

/// Writes the line and closes standard output, which becomes `/dev/null`.
fn announce(announcement: &Announcement) -> io::Result<()> {
    let mut line = serde_json::to_vec(announcement)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(&line).and_then(|()| stdout.flush());
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    written
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureKind::Invalid, message)
}

fn internal(message: String) -> Failure {
    Failure::new(FailureKind::Internal, message)
}

/// Says something on standard error, where somebody may read it.
fn complain(what: &dyn Display) {
    let line = format!("dyno-monitor: {what}\n");
    // If nobody reads it there is nobody to tell, and nothing else to do.
    io::stderr().write_all(line.as_bytes()).ok();
}
