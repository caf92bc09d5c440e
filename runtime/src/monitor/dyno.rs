//! The dyno itself: what the machine decides is done here. Its end has a room
//! of its own, `ending`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use dyno_failpoint::failpoint;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::complain;
use super::driver::Monitor;
use super::ending::{STUCK, Sweep};
use super::failure::{exit_code, words};
use super::machine::{Action, Conflict, Event};
use super::protocol::{Config, ExitStatus, Failure, FailureKind};
use super::restoring::Restoring;
use super::streams::Streams;
use crate::container::{Container, Created, Creator, Parent, Process, Stdio};
use crate::sys;

/// P15: bytes of the file of variables; execve(2) takes no more.
const MAX_VARIABLES: u64 = 4 << 20;
/// How long the removal of an empty cgroup may take.
pub(super) const REMOVAL: Duration = Duration::from_secs(2);

/// The dyno's processes and streams, and what is told about them.
#[derive(Debug)]
pub(super) struct Dyno {
    pub(super) init: Option<Init>,
    pub(super) streams: Streams,
    pub(super) sweep: Option<Sweep>,
    /// Out-of-memory events before this run.
    pub(super) oom_before: u64,
    /// The group was killed because of one in this run.
    pub(super) oom: bool,
    /// We killed this run's group for another reason.
    pub(super) killed: bool,
    /// When init was killed that is still there, until that was told.
    pub(super) killed_at: Option<Instant>,
    /// Who is killed and not gone.
    pub(super) stuck: Option<String>,
    /// A client has said that no more input comes.
    pub(super) input_ended: bool,
    pub(super) started: Option<Timestamp>,
    pub(super) exit: Option<ExitStatus>,
    pub(super) next_start: Option<(Instant, Timestamp)>,
    pub(super) reason: Option<String>,
    /// It ends because the system told the monitor to.
    pub(super) by_system: bool,
}

/// The first process of the dyno.
#[derive(Debug)]
pub(super) enum Init {
    Waiting(Box<Created>),
    Restoring(Box<Restoring>),
    Running(Process),
}

impl Dyno {
    pub(super) fn new(init: Init, streams: Streams) -> Self {
        Self {
            init: Some(init),
            streams,
            sweep: None,
            oom_before: 0,
            oom: false,
            killed: false,
            killed_at: None,
            stuck: None,
            input_ended: false,
            started: None,
            exit: None,
            next_start: None,
            reason: None,
            by_system: false,
        }
    }

    /// Its init, started or not.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self.init.as_ref()? {
            Init::Waiting(created) => Some(created.pid),
            Init::Restoring(restoring) => Some(restoring.pid),
            Init::Running(process) => Some(process.pid),
        }
    }

    /// Readable once init has ended.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self.init.as_ref()? {
            Init::Waiting(created) => Some(created.pidfd.as_fd()),
            Init::Restoring(restoring) => Some(restoring.pidfd.as_fd()),
            Init::Running(process) => Some(process.pidfd.as_fd()),
        }
    }

    /// The init that executes the command, if it does.
    pub(super) fn running(&self) -> Option<Pid> {
        match self.init.as_ref()? {
            Init::Waiting(_) | Init::Restoring(_) => None,
            Init::Running(process) => Some(process.pid),
        }
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    pub(super) fn streams_mut(&mut self) -> &mut Streams {
        &mut self.streams
    }

    /// Whether input can be passed on now.
    pub(super) fn takes_input(&self) -> bool {
        self.init.is_some() && self.streams.has_room()
    }

    /// When there is to be looked again whether everything is gone.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let sweep = self.sweep.as_ref().and_then(Sweep::deadline);
        sweep.into_iter().chain(self.stuck_at()).min()
    }

    /// From when on an init that was killed is told about.
    pub(super) fn stuck_at(&self) -> Option<Instant> {
        self.killed_at.map(|at| at + STUCK)
    }

    /// Signals init.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pidfd = self.pidfd().ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::process::pidfd_send_signal(pidfd, signal)?)
    }
}

/// Standard streams for an init as the bundle and the configuration want them.
pub(super) fn stdio(container: &Container, fed: bool) -> io::Result<(Streams, Stdio)> {
    let process = container
        .bundle()
        .spec()
        .process()
        .as_ref()
        .ok_or(io::ErrorKind::InvalidData)?;
    if process.terminal() == Some(true) {
        return Ok((Streams::default(), Stdio::Terminal));
    }
    Streams::pipes(fed, process.user(), container.bundle())
}

/// The variables of the configuration's file. They are secrets: what is wrong with
/// them is told without a byte of them.
fn variables(path: &Path) -> Result<Vec<String>, Failure> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_VARIABLES).read_to_end(&mut text));
    read.map_err(|error| {
        let message = format!("read the variables of {}: {error}", path.display());
        Failure::new(FailureKind::Internal, message)
    })?;
    serde_json::from_slice(&text).map_err(|_secret| {
        let message = format!("{} is no list of variables", path.display());
        Failure::new(FailureKind::Internal, message)
    })
}

/// The steps on the way to an init.
struct Steps;

impl Creator for Steps {
    fn cloned(&self, _init: Pid) -> io::Result<()> {
        failpoint("monitor_init.cloned");
        Ok(())
    }

    /// A bundle of hostd's has no hooks.
    fn state(&self, _init: Pid) -> Vec<u8> {
        Vec::new()
    }
}

/// A created init with our ends of its streams.
pub(super) fn create(
    container: &mut Container,
    config: &Config,
) -> Result<(Created, Streams), Failure> {
    if let Some(path) = &config.env_file {
        container.set_variables(variables(path)?);
    }
    let internal = |error: io::Error| {
        Failure::new(
            FailureKind::Internal,
            format!("make standard streams: {error}"),
        )
    };
    let (streams, stdio) = stdio(container, config.stdin).map_err(internal)?;
    let mut created = container
        .create_for(&Steps, stdio, Parent::Monitor)
        .map_err(|error| Failure::from(&error))?;
    match created.terminal.take() {
        Some(master) => Ok((created, Streams::terminal(master).map_err(internal)?)),
        None => Ok((created, streams)),
    }
}

impl Monitor {
    /// Lets the machine decide about an event, does what it decides, and tells
    /// everybody what changed.
    ///
    /// # Errors
    /// [`Conflict`] where a client asked for what does not fit.
    pub(super) fn event(&mut self, event: Event) -> Result<(), Conflict> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.machine.step(event, Instant::now(), jitter())? {
                next = self.perform(action, event).or(next);
            }
        }
        self.publish();
        Ok(())
    }

    fn perform(&mut self, action: Action, cause: Event) -> Option<Event> {
        match action {
            Action::Execute => Some(self.execute()),
            Action::Launch => Some(self.launch()),
            Action::Signal(number) => {
                self.signal_init(number);
                None
            }
            Action::Kill => {
                self.kill(cause);
                None
            }
            Action::Finish => {
                self.finish();
                None
            }
        }
    }

    fn execute(&mut self) -> Event {
        let pid = self.dyno.pid();
        let init = self.dyno.init.take();
        self.dyno.oom_before = self.oom_count();
        self.dyno.oom = false;
        self.dyno.killed = false;
        // Before its first word can come.
        if let Some(notify) = &mut self.notify {
            notify.begin(Instant::now());
            if matches!(init, Some(Init::Restoring(_))) {
                notify.resume();
            }
        }
        failpoint("monitor_execute.asked");
        let started = match init {
            Some(Init::Waiting(created)) => created.start().map_err(|error| (&error).into()),
            Some(Init::Restoring(restoring)) => restoring.finish(),
            Some(Init::Running(_)) | None => {
                Err(Failure::new(FailureKind::Internal, "there is no init"))
            }
        };
        match started {
            Ok(process) => {
                failpoint("monitor_execute.executed");
                self.dyno.init = Some(Init::Running(process));
                self.dyno.started = Some(Timestamp::now());
                self.dyno.reason = None;
                Event::Started
            }
            Err(failure) => {
                // It is gone and reaped unless it was the conversation with it
                // that failed.
                self.kill_group();
                if let Some(pid) = pid {
                    waitpid(Some(pid), WaitOptions::empty()).ok();
                }
                self.start_failed(failure)
            }
        }
    }

    fn launch(&mut self) -> Event {
        // Somebody may have held still what had just ended.
        self.go_on();
        failpoint("monitor_restart.due");
        match create(&mut self.container, &self.config) {
            Ok((created, streams)) => {
                failpoint("monitor_restart.created");
                self.dyno.init = Some(Init::Waiting(Box::new(created)));
                self.dyno.streams = streams;
                if self.dyno.input_ended {
                    self.dyno.streams.end_input();
                }
                self.execute()
            }
            Err(failure) => self.start_failed(failure),
        }
    }

    fn start_failed(&mut self, failure: Failure) -> Event {
        self.dyno.streams = Streams::default();
        if let Some(notify) = &mut self.notify {
            notify.end();
        }
        self.dyno.exit = Some(ExitStatus {
            code: exit_code(failure.kind),
            signal: None,
            oom: false,
            memory_peak_bytes: None,
            at: Timestamp::now(),
        });
        self.dyno.reason = Some(failure.message.clone());
        self.start_failure = Some(failure);
        Event::StartFailed
    }

    fn signal_init(&mut self, number: u8) {
        let sent = match sys::signal::signal(number) {
            Some(signal) => self.dyno.signal(signal),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        if let Err(error) = sent {
            complain(&format_args!("send signal {number} to the dyno: {error}"));
        }
        failpoint("monitor_stop.signalled");
    }

    fn kill(&mut self, cause: Event) {
        if self.dyno.init.is_some() {
            self.dyno.killed_at = Some(Instant::now());
            if cause == Event::Oom {
                self.dyno.oom = true;
            } else {
                self.dyno.killed = true;
            }
            if cause == Event::Timer {
                let killed = "killed: it did not end when it was asked to";
                self.dyno.reason = Some(match self.dyno.reason.take() {
                    Some(why) => format!("{why}; {killed}"),
                    None => killed.to_owned(),
                });
            }
        }
        self.kill_group();
    }

    fn kill_group(&self) {
        if let Err(error) = self.container.cgroup().kill() {
            complain(&words(&error));
            // Without its cgroup, init at least; its pid namespace goes with it.
            self.dyno.signal(Signal::KILL).ok();
        }
        failpoint("monitor_stop.killed");
    }

    /// Kills what was created and removes it: nobody will start it.
    pub(super) fn abandon(&mut self) {
        self.kill_group();
        match self.dyno.init.take() {
            Some(Init::Waiting(created)) => drop(created.detach().wait().ok()),
            Some(Init::Restoring(restoring)) => restoring.end(),
            Some(Init::Running(_)) | None => {}
        }
        if let Err(error) = self.container.cgroup().remove(REMOVAL) {
            complain(&words(&error));
        }
    }
}

/// A random number; std seeds its hashers from getrandom(2).
fn jitter() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let [low, high, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u16::from_le_bytes([low, high])
}
