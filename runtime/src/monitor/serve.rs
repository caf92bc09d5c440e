//! What clients ask for.

use std::time::{Duration, Instant};

use dyno_failpoint::failpoint;
use oci_spec::runtime as oci;
use rustix::process::Signal;

use super::client::{Client, Role};
use super::driver::Monitor;
use super::ending::exit_status;
use super::exec::Exec;
use super::failure::words;
use super::frame::Input;
use super::machine::Event;
use super::outbox::Patience;
use super::protocol::{Failure, FailureKind, Phase, Reply, Request};
use super::streams::Streams;
use crate::container::Stdio;
use crate::spec::process::put_rlimit;
use crate::sys;

/// The most connections at a time (P15).
pub(super) const MAX_CLIENTS: usize = 64;

/// The longest grace that a request may ask for.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Characters of a reason that are kept: `state.json` is rewritten often.
const MAX_REASON: usize = 2048;

impl Monitor {
    pub(super) fn accept(&mut self, now: Instant) {
        let Some(socket) = self
            .listener
            .as_mut()
            .and_then(|listener| listener.accept(now))
        else {
            return;
        };
        self.next_client += 1;
        let mut client = Client::new(self.next_client, socket, now);
        if self
            .clients
            .iter()
            .filter(|client| !client.is_over())
            .count()
            >= MAX_CLIENTS
        {
            let message = format!("the monitor has {MAX_CLIENTS} connections already");
            client.fail(Failure::new(FailureKind::Exhausted, message), now);
            // Not kept: what its socket does not take at once is lost.
            client.flush(now);
            return;
        }
        self.clients.push(client);
    }

    /// Carries out what clients have sent so far.
    pub(super) fn serve_clients(&mut self) {
        let ids: Vec<u64> = self.clients.iter().map(|client| client.id).collect();
        for id in ids {
            while let Some(request) = self.client_mut(id).and_then(Client::next_request) {
                let granted = request.and_then(|request| self.request(id, request));
                let now = Instant::now();
                let reply = match granted {
                    // Its end answers it.
                    Ok(Answer::Later) => continue,
                    Ok(Answer::Now) => Reply::Ok(self.recorder.status().clone()),
                    Err(failure) => Reply::Err(failure),
                };
                let Some(client) = self.client_mut(id) else {
                    break;
                };
                match reply {
                    Reply::Err(failure) if failure.kind == FailureKind::Invalid => {
                        client.fail(failure, now);
                    }
                    reply => client.reply(&reply, now),
                }
            }
            while self.pass_input(id) {}
        }
    }

    fn request(&mut self, id: u64, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::Status {} => Ok(Answer::Now),
            Request::Start {} => self.start(),
            Request::Stop { signal, grace_ms } => self.stop(id, signal, grace_ms),
            Request::Fail {
                reason,
                healthy_ms,
                run,
            } => {
                if run.is_none() || run == self.dyno.started {
                    self.fail(&reason, Duration::from_millis(healthy_ms));
                }
                Ok(Answer::Now)
            }
            Request::Checkpoint(wanted) => {
                self.save(id, &wanted)?;
                Ok(Answer::Later)
            }
            Request::Signal { signal, all } => self.signal(signal, all),
            Request::Limit { rlimit } => self.limit(rlimit),
            Request::Watch {} => {
                self.become_part(id, Role::Watching, Patience::Observer);
                Ok(Answer::Now)
            }
            Request::Attach { stdin, size } => self.attach(id, stdin, size),
            Request::Exec {
                mut process,
                stdin,
                size,
            } => self.exec(id, &mut process, stdin, size),
        }
    }

    fn start(&mut self) -> Result<Answer, Failure> {
        self.start_failure = None;
        self.event(Event::Start).map_err(conflict)?;
        failpoint("monitor_start.told");
        match &self.start_failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(Answer::Now),
        }
    }

    fn stop(&mut self, id: u64, signal: Option<u8>, grace: Option<u64>) -> Result<Answer, Failure> {
        if let Some(number) = signal {
            named(number)?;
        }
        let grace = grace.map(|ms| Duration::from_millis(ms).min(MAX_GRACE));
        self.become_part(id, Role::AwaitingEnd, Patience::Observer);
        if let Err(error) = self.event(Event::Stop { signal, grace }) {
            self.become_part(id, Role::Asking, Patience::Observer);
            return Err(conflict(error));
        }
        Ok(Answer::Later)
    }

    /// Ends the dyno as a failure.
    pub(super) fn fail(&mut self, reason: &str, healthy: Duration) {
        if self.machine.phase() == Phase::Running {
            self.dyno.reason = Some(reason.chars().take(MAX_REASON).collect());
        }
        if let Some(notify) = &mut self.notify {
            notify.end();
        }
        // It may have ended meanwhile, which is what was wanted.
        self.event(Event::Fail { healthy }).ok();
    }

    fn signal(&mut self, number: u8, all: bool) -> Result<Answer, Failure> {
        let signal = named(number)?;
        if self.dyno.running().is_none() {
            return Err(not_running(self.machine.phase()));
        }
        let sent = if all {
            self.container
                .cgroup()
                .signal(signal)
                .map_err(|error| words(&error))
        } else {
            self.dyno.signal(signal).map_err(|error| error.to_string())
        };
        sent.map_err(|error| {
            Failure::new(
                FailureKind::Internal,
                format!("send signal {number}: {error}"),
            )
        })?;
        Ok(Answer::Now)
    }

    /// What follows is born with it, and so is what is executed: whoever asks for that
    /// may have read the limit of before.
    fn limit(&mut self, rlimit: oci::PosixRlimit) -> Result<Answer, Failure> {
        if rlimit.soft() > rlimit.hard() {
            let (soft, hard) = (rlimit.soft(), rlimit.hard());
            let message = format!("the soft limit {soft} is above the hard limit {hard}");
            return Err(Failure::new(FailureKind::Invalid, message));
        }
        self.container
            .relimit(rlimit)
            .map_err(|error| Failure::from(&error))?;
        self.relimited.retain(|known| known.typ() != rlimit.typ());
        self.relimited.push(rlimit);
        Ok(Answer::Now)
    }

    fn attach(
        &mut self,
        id: u64,
        stdin: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Answer, Failure> {
        if stdin {
            if !self.config.stdin {
                return Err(
                    Failure::new(FailureKind::Conflict, "its standard input is closed").hint(
                        "attach without input, or make the dyno with standard input kept open",
                    ),
                );
            }
            let feeding = |client: &&Client| client.is_attached() && client.feeds();
            if self.clients.iter().find(feeding).is_some() {
                return Err(Failure::new(
                    FailureKind::Conflict,
                    "another client is attached to its standard input",
                )
                .hint("attach without input"));
            }
            self.dyno.input_ended = false;
        }
        // Whoever is there before the start is whose terminal or pipe this is.
        let patience = match self.machine.phase() {
            Phase::Created => Patience::Foreground,
            _ => Patience::Observer,
        };
        self.become_part(id, Role::Attached { stdin }, patience);
        if let Some((rows, columns)) = size {
            self.dyno.streams().resize(rows, columns);
        }
        Ok(Answer::Now)
    }

    fn exec(
        &mut self,
        id: u64,
        process: &mut oci::Process,
        stdin: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Answer, Failure> {
        for rlimit in &self.relimited {
            put_rlimit(process, *rlimit);
        }
        let (Some(init), Some(pidfd)) = (self.dyno.running(), self.dyno.pidfd()) else {
            return Err(not_running(self.machine.phase()));
        };
        let internal = |error: std::io::Error| {
            Failure::new(
                FailureKind::Internal,
                format!("make standard streams: {error}"),
            )
        };
        let (mut streams, stdio) = if process.terminal() == Some(true) {
            (Streams::default(), Stdio::Terminal)
        } else {
            let bundle = self.container.bundle();
            Streams::pipes(stdin, process.user(), bundle).map_err(internal)?
        };
        let mut executed = self
            .container
            .exec(init, pidfd, process, stdio)
            .map_err(|error| Failure::from(&error))?;
        failpoint("monitor_exec.executed");
        if let Some(master) = executed.terminal.take() {
            streams = Streams::terminal(master).map_err(internal)?;
        }
        if let Some((rows, columns)) = size {
            streams.resize(rows, columns);
        }
        let oom_before = self.oom_count();
        self.execs
            .push(Exec::new(id, executed, streams, oom_before));
        self.become_part(id, Role::Executing { stdin }, Patience::Foreground);
        Ok(Answer::Now)
    }

    /// An executed process has ended.
    pub(super) fn exec_ended(&mut self, id: u64) {
        let Some(at) = self.execs.iter().position(|exec| exec.client == id) else {
            return;
        };
        let waited = self
            .execs
            .get(at)
            .map(|exec| (exec.process.wait(), exec.oom_before));
        let Some((waited, oom_before)) = waited else {
            return;
        };
        let exit = match waited {
            Ok(exit) => {
                let oom = self.killed_for_memory(exit, oom_before);
                exit_status(exit, oom)
            }
            Err(error) => {
                super::complain(&format_args!("wait for an executed process: {error}"));
                exit_status(crate::container::Exit::Code(125), false)
            }
        };
        if let Some(exec) = self.execs.get_mut(at) {
            exec.exit = Some(exit);
        }
    }

    /// Passes one frame of a client on; whether there was one.
    fn pass_input(&mut self, id: u64) -> bool {
        let Self {
            clients,
            execs,
            dyno,
            ..
        } = self;
        let Some(client) = clients.iter_mut().find(|client| client.id == id) else {
            return false;
        };
        if !client.speaks_frames() {
            return false;
        }
        let feeds = client.feeds();
        let exec = execs.iter_mut().find(|exec| exec.client == id);
        let has_room = exec
            .as_ref()
            .map_or(dyno.takes_input(), |exec| exec.streams.has_room());
        if feeds && !has_room {
            return false;
        }
        let passed = client.next_input(|input| match (input, exec) {
            (Input::Stdin(bytes), Some(exec)) if feeds => exec.streams.feed(bytes),
            (Input::Stdin(bytes), None) if feeds => dyno.streams_mut().feed(bytes),
            (Input::StdinEnd, Some(exec)) if feeds => exec.streams.end_input(),
            (Input::StdinEnd, None) if feeds => {
                dyno.input_ended = true;
                dyno.streams_mut().end_input();
            }
            (Input::Resize { rows, columns }, Some(exec)) => exec.streams.resize(rows, columns),
            (Input::Resize { rows, columns }, None) => dyno.streams().resize(rows, columns),
            (Input::Signal(number), exec) => {
                // A signal that does not exist, or comes too late, has no answer
                // in the protocol.
                if let Ok(signal) = named(number) {
                    match exec {
                        Some(exec) => exec.signal(signal),
                        None => dyno.signal(signal).unwrap_or_default(),
                    }
                }
            }
            (Input::Stdin(_) | Input::StdinEnd, _) => {}
        });
        passed.unwrap_or_else(|error| {
            let failure = Failure::new(FailureKind::Invalid, error.to_string());
            client.fail(failure, Instant::now());
            false
        })
    }

    pub(super) fn become_part(&mut self, id: u64, role: Role, patience: Patience) {
        if let Some(client) = self.client_mut(id) {
            client.become_part(role, patience);
        }
    }
}

/// When a request is answered.
enum Answer {
    /// At once, with the status.
    Now,
    /// When the dyno has ended.
    Later,
}

fn conflict(error: super::machine::Conflict) -> Failure {
    Failure::new(
        FailureKind::Conflict,
        format!("the dyno cannot do that: {error}"),
    )
}

fn not_running(phase: Phase) -> Failure {
    let message = match phase {
        Phase::Created => "the dyno was not started yet",
        Phase::Backoff => "the dyno has ended and waits to be started again",
        Phase::Running | Phase::Stopping | Phase::Exited | Phase::Failed => "the dyno has ended",
    };
    Failure::new(FailureKind::Conflict, message)
}

fn named(number: u8) -> Result<Signal, Failure> {
    sys::signal::signal(number).ok_or_else(|| {
        let message = format!("{number} is not a signal that can be sent");
        Failure::new(FailureKind::Invalid, message).hint("give a number from 1 to 64")
    })
}
