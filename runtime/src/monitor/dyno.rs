//! The dyno itself: what the machine decides is done here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::driver::Monitor;
use super::exec::OUTPUTS;
use super::failure::{exit_code, words};
use super::log::Moment;
use super::machine::{Action, Conflict, Event};
use super::protocol::{ExitStatus, Failure, FailureKind, Phase, Status};
use super::record::process_id;
use super::streams::Streams;
use super::{client::Role, complain};
use crate::container::{Container, Created, Exit, Parent, Process, Stdio};

/// After this time a process that was killed and is still there is told about.
const STUCK: Duration = Duration::from_secs(2);

/// How long the removal of an empty cgroup may take.
const REMOVAL: Duration = Duration::from_secs(2);

/// The dyno's processes and streams, and what is told about them.
#[derive(Debug)]
pub(super) struct Dyno {
    init: Option<Init>,
    streams: Streams,
    sweep: Option<Sweep>,
    /// Out-of-memory events before this run.
    oom_before: u64,
    /// The group was killed because of one in this run.
    oom: bool,
    /// We killed this run's group for another reason.
    killed: bool,
    /// A client has said that no more input comes.
    pub(super) input_ended: bool,
    started: Option<Timestamp>,
    exit: Option<ExitStatus>,
    next_start: Option<(Instant, Timestamp)>,
    reason: Option<String>,
}

#[derive(Debug)]
enum Init {
    Waiting(Created),
    Running(Process),
}

/// Init has ended; its descendants are being killed and its output taken.
#[derive(Debug)]
struct Sweep {
    since: Instant,
    look_at: Instant,
    delay: Duration,
    empty: bool,
    told: bool,
}

impl Dyno {
    pub(super) fn new(created: Created, streams: Streams) -> Self {
        Self {
            init: Some(Init::Waiting(created)),
            streams,
            sweep: None,
            oom_before: 0,
            oom: false,
            killed: false,
            input_ended: false,
            started: None,
            exit: None,
            next_start: None,
            reason: None,
        }
    }

    fn pid(&self) -> Option<Pid> {
        match self.init.as_ref()? {
            Init::Waiting(created) => Some(created.pid),
            Init::Running(process) => Some(process.pid),
        }
    }

    /// Readable once init has ended.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self.init.as_ref()? {
            Init::Waiting(created) => Some(created.pidfd.as_fd()),
            Init::Running(process) => Some(process.pidfd.as_fd()),
        }
    }

    /// The init that executes the command, if it does.
    pub(super) fn running(&self) -> Option<Pid> {
        match self.init.as_ref()? {
            Init::Waiting(_) => None,
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

    /// When the sweep looks again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sweep
            .as_ref()
            .filter(|sweep| !sweep.empty)
            .map(|sweep| sweep.look_at)
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

/// A created init with our ends of its streams.
pub(super) fn create(container: &Container, fed: bool) -> Result<(Created, Streams), Failure> {
    let internal = |error: io::Error| {
        Failure::new(
            FailureKind::Internal,
            format!("make standard streams: {error}"),
        )
    };
    let (streams, stdio) = stdio(container, fed).map_err(internal)?;
    let mut created = container
        .create(stdio, Parent::Monitor)
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
        let Some(Init::Waiting(created)) = self.dyno.init.take() else {
            return self.start_failed(Failure::new(FailureKind::Internal, "there is no init"));
        };
        let pid = created.pid;
        self.dyno.oom_before = self.oom_count();
        self.dyno.oom = false;
        self.dyno.killed = false;
        match created.start() {
            Ok(process) => {
                self.dyno.init = Some(Init::Running(process));
                self.dyno.started = Some(Timestamp::now());
                self.dyno.reason = None;
                Event::Started
            }
            Err(error) => {
                // It is gone and reaped unless it was the conversation with it
                // that failed.
                self.kill_group();
                waitpid(Some(pid), WaitOptions::empty()).ok();
                self.start_failed((&error).into())
            }
        }
    }

    fn launch(&mut self) -> Event {
        match create(&self.container, self.config.stdin) {
            Ok((created, streams)) => {
                self.dyno.init = Some(Init::Waiting(created));
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
        self.dyno.exit = Some(ExitStatus {
            code: exit_code(failure.kind),
            signal: None,
            oom: false,
            at: Timestamp::now(),
        });
        self.dyno.reason = Some(failure.message.clone());
        self.start_failure = Some(failure);
        Event::StartFailed
    }

    fn signal_init(&mut self, number: u8) {
        let sent = match Signal::from_named_raw(i32::from(number)) {
            Some(signal) => self.dyno.signal(signal),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        if let Err(error) = sent {
            complain(&format_args!("send signal {number} to the dyno: {error}"));
        }
    }

    fn kill(&mut self, cause: Event) {
        if self.dyno.init.is_some() {
            if cause == Event::Oom {
                self.dyno.oom = true;
            } else {
                self.dyno.killed = true;
            }
            if cause == Event::Timer {
                self.dyno.reason = Some("killed: it did not end when it was asked to".to_owned());
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
    }

    /// Out-of-memory events so far.
    pub(super) fn oom_count(&mut self) -> u64 {
        let counted = self
            .oom
            .as_mut()
            .map_or(Ok(0), crate::cgroup::OomWatch::count);
        counted.unwrap_or_else(|error| {
            complain(&words(&error));
            self.dyno.oom_before
        })
    }

    /// On v2 the kernel kills the group itself where it was asked to; on v1
    /// that is our part (P16).
    pub(super) fn out_of_memory(&mut self) {
        let risen = self.oom_count() > self.dyno.oom_before;
        if risen && self.container.cgroup().monitor_kills_on_oom() {
            // An event of the kernel's conflicts with nothing.
            self.event(Event::Oom).ok();
        }
    }

    /// Whether a process that ended so was killed for memory; `before` is the
    /// count of events when it began.
    pub(super) fn killed_for_memory(&mut self, exit: Exit, before: u64) -> bool {
        let risen = self.oom_count() > before;
        let by_us = self.container.cgroup().monitor_kills_on_oom();
        self.dyno.oom || (risen && (by_us || (exit == Exit::Signal(9) && !self.dyno.killed)))
    }

    pub(super) fn init_ended(&mut self) {
        let process = match self.dyno.init.take() {
            Some(Init::Running(process)) => process,
            Some(Init::Waiting(created)) => created.detach(),
            None => return,
        };
        let exit = process.wait().unwrap_or_else(|error| {
            complain(&format_args!("wait for the dyno: {error}"));
            Exit::Code(exit_code(FailureKind::Internal))
        });
        let oom = self.killed_for_memory(exit, self.dyno.oom_before);
        let status = exit_status(exit, oom);
        if oom {
            self.dyno.reason = Some("killed: its memory limit was reached".to_owned());
        } else if self.dyno.started.is_none() {
            self.dyno.reason = Some("it ended before it was started".to_owned());
        }
        self.dyno.exit = Some(status);
        let now = Instant::now();
        self.dyno.sweep = Some(Sweep {
            since: now,
            look_at: now,
            delay: Duration::from_millis(1),
            empty: false,
            told: false,
        });
        let success = status.code == 0 && !oom;
        // The end of init conflicts with nothing.
        self.event(Event::Exited { success }).ok();
    }

    /// After the end of init: waits for its descendants to be gone, then takes
    /// the rest of the output.
    pub(super) fn sweep(&mut self, now: Instant) {
        let Some(sweep) = &mut self.dyno.sweep else {
            return;
        };
        if !sweep.empty && sweep.look_at <= now {
            let populated = self.container.cgroup().populated();
            sweep.empty = !populated.unwrap_or_else(|error| {
                complain(&words(&error));
                false
            });
            sweep.look_at = now + sweep.delay;
            sweep.delay = (sweep.delay * 2).min(Duration::from_millis(100));
            if !sweep.empty && !sweep.told && now.saturating_duration_since(sweep.since) > STUCK {
                sweep.told = true;
                self.tell_stuck();
                return;
            }
        }
        let empty = self.dyno.sweep.as_ref().is_some_and(|sweep| sweep.empty);
        if empty && self.execs.iter().all(|exec| exec.exit.is_some()) {
            self.drain();
        }
    }

    /// Everything that is in the pipes; no more can come from this dyno, even
    /// where someone outside still holds their other ends.
    fn drain(&mut self) {
        for stream in OUTPUTS {
            while self.output_flows() && self.dyno.streams.output(stream).is_some() {
                if !self.pass_output(stream) {
                    self.dyno.streams.close_output(stream);
                }
            }
        }
        if self.dyno.streams.ended() {
            self.dyno.sweep = None;
            self.dyno.streams = Streams::default();
            if let Some(log) = &mut self.log {
                log.end_lines(Moment::now());
            }
            // What follows the end conflicts with nothing.
            self.event(Event::Emptied).ok();
        }
    }

    fn tell_stuck(&mut self) {
        let pids = self.container.cgroup().procs().unwrap_or_default();
        let told: Vec<String> = pids.iter().take(3).map(|pid| describe(*pid)).collect();
        let reason = format!("killed, but not gone yet: {}", told.join(", "));
        complain(&reason);
        self.dyno.reason = Some(reason);
        self.publish();
    }

    /// The end for good.
    fn finish(&mut self) {
        if let Some(failures) = self.machine.gave_up_after() {
            let last = self
                .dyno
                .reason
                .take()
                .map_or_else(String::new, |last| format!("; {last}"));
            self.dyno.reason = Some(format!(
                "given up after it failed {failures} times in a row{last}"
            ));
        }
        if let Err(error) = self.container.cgroup().remove(REMOVAL) {
            complain(&words(&error));
        }
        self.publish();
        self.listener = None;
        let status = self.recorder.status().clone();
        let failure = self
            .start_failure
            .clone()
            .filter(|_| status.phase == Phase::Failed);
        let now = Instant::now();
        for client in &mut self.clients {
            match (client.role, &failure, &status.exit) {
                (Role::Executing { .. }, ..) => {}
                (Role::AwaitingEnd, ..) => {
                    client.reply(&super::protocol::Reply::Ok(status.clone()), now);
                    client.close();
                }
                (Role::Attached { .. }, Some(failure), _) => client.fail(failure.clone(), now),
                (Role::Attached { .. }, None, Some(exit)) => client.exit(exit, now),
                _ => client.close(),
            }
        }
    }

    fn status(&mut self) -> Status {
        let phase = self.machine.phase();
        let due = self.machine.deadline().filter(|_| phase == Phase::Backoff);
        if due != self.dyno.next_start.map(|(due, _)| due) {
            self.dyno.next_start = due.map(|due| {
                let left = due.saturating_duration_since(Instant::now());
                let wall = Timestamp::now();
                (due, wall.checked_add(left).unwrap_or(wall))
            });
        }
        Status {
            phase,
            pid: self
                .dyno
                .pid()
                .map(|pid| pid.as_raw_nonzero().get().cast_unsigned()),
            started: self.dyno.started,
            restarts: self.machine.restarts(),
            exit: self.dyno.exit,
            next_start: self.dyno.next_start.map(|(_, wall)| wall),
            reason: self.dyno.reason.clone(),
        }
    }

    /// Records the status and tells it to whoever watches, where it changed.
    fn publish(&mut self) {
        let status = self.status();
        if status == *self.recorder.status() {
            return;
        }
        let init = self.dyno.pid().and_then(|pid| process_id(pid).ok());
        self.recorder.set_init(init);
        if let Err(error) = self.recorder.write(status.clone()) {
            complain(&format_args!(
                "write {}: {error}",
                self.state_file.display()
            ));
        }
        let now = Instant::now();
        let reply = super::protocol::Reply::Ok(status);
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.role == Role::Watching)
        {
            client.reply(&reply, now);
        }
    }

    /// Records the first status, before anybody can have asked for it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn record_created(&mut self) -> io::Result<()> {
        let status = self.status();
        let init = self.dyno.pid().map(process_id).transpose()?;
        self.recorder.set_init(init);
        self.recorder.write(status)
    }

    /// Kills what was created and removes it: nobody will start it.
    pub(super) fn abandon(&mut self) {
        self.kill_group();
        if let Some(Init::Waiting(created)) = self.dyno.init.take() {
            created.detach().wait().ok();
        }
        if let Err(error) = self.container.cgroup().remove(REMOVAL) {
            complain(&words(&error));
        }
    }
}

/// How a process ended, for clients.
pub(super) fn exit_status(exit: Exit, oom: bool) -> ExitStatus {
    let (code, signal) = match exit {
        Exit::Code(code) => (code, None),
        Exit::Signal(signal) => (signal.saturating_add(128), Some(signal)),
    };
    ExitStatus {
        code,
        signal,
        oom,
        at: Timestamp::now(),
    }
}

/// Pid, name and what it waits for in the kernel (proc_pid_wchan(5)).
fn describe(pid: Pid) -> String {
    let number = pid.as_raw_nonzero();
    let tell = |name| std::fs::read_to_string(format!("/proc/{number}/{name}")).unwrap_or_default();
    format!(
        "process {number} ({}) waits in {}",
        tell("comm").trim_end(),
        tell("wchan")
    )
}

/// A random number; std seeds its hashers from getrandom(2).
fn jitter() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let [low, high, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u16::from_le_bytes([low, high])
}
