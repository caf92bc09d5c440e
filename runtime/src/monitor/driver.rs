//! The loop: waits for whatever happens next, and hands it to who knows what
//! to do. Nothing in here blocks but the wait itself.
//!
//! ```text
//!            ┌─────────────────────────── poll ──────────────────────────┐
//!   signals  listener  clients   init's pidfd  init's streams   oom   exec'd processes
//!      │         └──┬────┘            └────────────┬─────────────┘        │
//!      ▼            ▼                              ▼                      ▼
//!     stop       requests                        dyno  ──▶ machine      execs
//! ```
//!
//! What is polled for is computed anew from the state each time, so that no
//! registration can be forgotten; a monitor has few descriptors.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as Received;
use nix::sys::signalfd::SignalFd;
use oci_spec::runtime as oci;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::client::Client;
use super::dyno::Dyno;
use super::exec::{Exec, OUTPUTS};
use super::listener::Listener;
use super::log::{Log, Moment, Stream};
use super::machine::{Event, Machine};
use super::notify::Notify;
use super::protocol::{Config, Failure, Phase};
use super::record::Recorder;
use super::saving::Saving;
use crate::cgroup::OomWatch;
use crate::container::Container;
use crate::sys;

/// Who wakes up so late was not merely kept waiting for a processor.
const STANDSTILL: Duration = Duration::from_millis(500);
/// Bytes of one read.
const READ: usize = 64 * 1024;

/// Everything a monitor has.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) config: Config,
    pub(super) state_file: PathBuf,
    pub(super) container: Container,
    pub(super) machine: Machine,
    pub(super) recorder: Recorder,
    pub(super) log: Option<Log>,
    pub(super) signals: SignalFd,
    /// None once the dyno has ended for good.
    pub(super) listener: Option<Listener>,
    pub(super) oom: Option<OomWatch>,
    /// Where the dyno is listened to.
    pub(super) notify: Option<Notify>,
    pub(super) dyno: Dyno,
    pub(super) clients: Vec<Client>,
    pub(super) execs: Vec<Exec>,
    /// It is being saved.
    pub(super) saving: Option<Saving>,
    pub(super) next_client: u64,
    pub(super) start_failure: Option<Failure>,
    /// Resource limits that were changed since the dyno was created.
    pub(super) relimited: Vec<oci::PosixRlimit>,
    /// For what is read; empty until it serves.
    pub(super) buffer: Vec<u8>,
}

/// What a descriptor that is ready belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Oom,
    Notify,
    Init,
    Saving,
    Output(Stream),
    Input,
    Client(u64),
    Exec(u64),
    ExecOutput(u64, Stream),
    ExecInput(u64),
}

impl Monitor {
    /// Runs until the dyno has ended for good and everybody was told.
    ///
    /// # Errors
    /// When `poll(2)` fails, which it does only for want of memory.
    pub(super) fn serve(mut self) -> rustix::io::Result<()> {
        sys::alloc::give_back();
        // Memory that is new takes no space until something is read into it.
        self.buffer = vec![0; READ];
        while !self.is_over() {
            let silent_from = self.notify.as_ref().and_then(Notify::deadline);
            let ready = self.wait()?;
            self.excuse_after_standstill(silent_from, Instant::now());
            for (source, flags) in ready {
                self.handle(source, flags);
            }
            self.tick(Instant::now());
        }
        Ok(())
    }

    /// Who wakes up long after it was to has stood still, and so has the dyno, most likely:
    /// a machine that was paused. It cannot have said anything meanwhile.
    fn excuse_after_standstill(&mut self, due: Option<Instant>, now: Instant) {
        if due.is_some_and(|due| now > due + STANDSTILL) {
            self.notify.iter_mut().for_each(|it| it.excuse(now));
        }
    }

    fn is_over(&self) -> bool {
        let is_idle = self.execs.is_empty() && self.saving.is_none();
        self.listener.is_none() && self.clients.is_empty() && is_idle
    }

    fn wait(&self) -> rustix::io::Result<Vec<(Source, PollFlags)>> {
        let now = Instant::now();
        let sources = self.sources(now);
        let mut fds: Vec<PollFd<'_>> = sources
            .iter()
            .map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let timeout = self
            .deadline()
            .map(|at| timespec(at.saturating_duration_since(now)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready = sources
            .iter()
            .zip(&fds)
            .map(|((source, ..), fd)| (*source, fd.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn sources(&self, now: Instant) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut sources = vec![(Source::Signals, self.signals.as_fd(), PollFlags::IN)];
        let mut add = |source, fd, flags| sources.push((source, fd, flags));
        if let Some(oom) = self.oom.as_ref().filter(|_| self.listener.is_some()) {
            add(Source::Oom, oom.as_fd(), PollFlags::IN);
        }
        if let Some(notify) = self.notify.as_ref().filter(|notify| notify.is_open(now)) {
            add(Source::Notify, notify.as_fd(), PollFlags::IN);
        }
        if let Some(pidfd) = self.dyno.pidfd() {
            add(Source::Init, pidfd, PollFlags::IN);
        }
        if let Some(saving) = &self.saving {
            add(Source::Saving, saving.as_fd(), PollFlags::IN);
        }
        let flows = self.output_flows();
        for stream in OUTPUTS {
            if let Some(fd) = self.dyno.streams().output(stream).filter(|_| flows) {
                add(Source::Output(stream), fd, PollFlags::IN);
            }
        }
        if let Some(fd) = self.dyno.streams().blocked_input() {
            add(Source::Input, fd, PollFlags::OUT);
        }
        for client in &self.clients {
            add(
                Source::Client(client.id),
                client.fd(),
                client.interest(self.has_room(client)),
            );
        }
        for exec in &self.execs {
            let id = exec.client;
            if exec.exit.is_none() {
                add(Source::Exec(id), exec.process.pidfd.as_fd(), PollFlags::IN);
            }
            let flows = !self.client(id).is_some_and(Client::is_full);
            for stream in OUTPUTS {
                if let Some(fd) = exec.streams.output(stream).filter(|_| flows) {
                    add(Source::ExecOutput(id, stream), fd, PollFlags::IN);
                }
            }
            if let Some(fd) = exec.streams.blocked_input() {
                add(Source::ExecInput(id), fd, PollFlags::OUT);
            }
        }
        // Last: whoever left has made room by then.
        if let Some(listener) = self
            .listener
            .as_ref()
            .filter(|listener| listener.is_open(now))
        {
            add(Source::Listener, listener.as_fd(), PollFlags::IN);
        }
        sources
    }

    /// Whether the dyno's output is read: nobody who shares in it is behind.
    pub(super) fn output_flows(&self) -> bool {
        !self
            .clients
            .iter()
            .any(|client| client.is_attached() && client.is_full())
    }

    /// Whether what this client sends can be passed on.
    fn has_room(&self, client: &Client) -> bool {
        match self.execs.iter().find(|exec| exec.client == client.id) {
            Some(exec) => exec.streams.has_room(),
            None => self.dyno.takes_input(),
        }
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        let now = Instant::now();
        match source {
            Source::Signals => self.signalled(),
            Source::Listener => self.accept(now),
            Source::Oom => self.out_of_memory(),
            Source::Notify => {
                if let Some(notify) = &mut self.notify {
                    notify.receive(now);
                }
                self.publish();
            }
            Source::Init => self.init_ended(),
            Source::Saving => self.saved(),
            Source::Output(stream) => {
                self.pass_output(stream);
            }
            Source::Input => self.dyno.streams_mut().write_queue(),
            Source::Client(id) => self.client_ready(id, flags, now),
            Source::Exec(id) => self.exec_ended(id),
            Source::ExecOutput(id, stream) => {
                self.pass_exec_output(id, stream, now);
            }
            Source::ExecInput(id) => {
                if let Some(exec) = self.execs.iter_mut().find(|exec| exec.client == id) {
                    exec.streams.write_queue();
                }
            }
        }
    }

    fn client(&self, id: u64) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    pub(super) fn client_mut(&mut self, id: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    /// SIGTERM is the machine going down, or the unit that dynos are in; the
    /// others are not for us.
    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Received::SIGTERM as i32) {
                let stop = Event::Stop {
                    signal: None,
                    grace: None,
                };
                let phase = self.machine.phase();
                self.dyno.by_system |= matches!(phase, Phase::Running | Phase::Backoff);
                // It may have ended already: then there is nothing to stop.
                self.event(stop).ok();
            }
        }
    }

    /// Reads once from a stream of the dyno, into the log and to every attached
    /// client; whether there was something.
    pub(super) fn pass_output(&mut self, stream: Stream) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.dyno.streams_mut().read(stream, &mut buffer);
        let passed = if let super::streams::Output::Bytes(count) = read {
            let bytes = buffer.get(..count).unwrap_or_default();
            let now = Moment::now();
            if let Some(log) = &mut self.log {
                log.write(stream, bytes, now);
            }
            for client in self
                .clients
                .iter_mut()
                .filter(|client| client.is_attached())
            {
                client.output(kind(stream), bytes, now.steady);
                client.flush(now.steady);
            }
            true
        } else {
            false
        };
        self.buffer = buffer;
        passed
    }

    /// Reads once from a stream of an executed process, for its client; whether
    /// there was something.
    fn pass_exec_output(&mut self, id: u64, stream: Stream, now: Instant) -> bool {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.client == id) else {
            return false;
        };
        let super::streams::Output::Bytes(count) = exec.streams.read(stream, &mut self.buffer)
        else {
            return false;
        };
        let bytes = self.buffer.get(..count).unwrap_or_default();
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.output(kind(stream), bytes, now);
        }
        true
    }

    fn client_ready(&mut self, id: u64, flags: PollFlags, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(client) = self.client_mut(id) {
            if flags.contains(PollFlags::IN) {
                client.receive(&mut buffer, now);
            } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                client.hung_up();
            }
            if flags.contains(PollFlags::OUT) {
                client.flush(now);
            }
        }
        self.buffer = buffer;
    }

    /// Everything that is due, or that became possible by what was handled.
    fn tick(&mut self, now: Instant) {
        if self.machine.deadline().is_some_and(|at| at <= now) {
            // The timer is no request: it conflicts with nothing.
            self.event(Event::Timer).ok();
        }
        if let Some((reason, healthy)) = self.notify.as_mut().and_then(|it| it.overdue(now)) {
            if self.saving.is_some() || self.container.cgroup().record().is_frozen() {
                self.notify.iter_mut().for_each(|it| it.excuse(now));
            } else {
                self.fail(&reason, healthy);
            }
        }
        if let Some(log) = &mut self.log
            && log.deadline().is_some_and(|at| at <= now)
        {
            log.tick(Moment::now());
        }
        self.serve_clients();
        for client in &mut self.clients {
            client.tick(now);
        }
        for exec in &mut self.execs {
            exec.tick(now);
        }
        self.finish_execs(now);
        self.look_whether_stuck(now);
        self.sweep(now);
        for client in &mut self.clients {
            client.flush(now);
        }
        self.bury_clients(now);
    }

    /// Drops the clients that are over; a process whose client went is orphaned.
    fn bury_clients(&mut self, now: Instant) {
        self.clients.retain(|client| !client.is_over());
        for exec in &mut self.execs {
            if !self.clients.iter().any(|client| client.id == exec.client) {
                exec.orphan(now);
            }
        }
        self.execs
            .retain(|exec| !exec.is_over() || self.clients.iter().any(|c| c.id == exec.client));
    }

    /// Takes what a dead process' pipes still hold, then tells its client.
    fn finish_execs(&mut self, now: Instant) {
        let ended: Vec<u64> = self
            .execs
            .iter()
            .filter(|exec| exec.exit.is_some())
            .map(|exec| exec.client)
            .collect();
        for id in ended {
            for stream in OUTPUTS {
                // A full client is waited for; an empty pipe is done with, although
                // a child in the background may still hold its other end.
                while !self.client(id).is_some_and(Client::is_full) {
                    if !self.pass_exec_output(id, stream, now) {
                        self.close_exec_output(id, stream);
                        break;
                    }
                }
            }
            self.tell_exec_exit(id, now);
        }
    }

    fn close_exec_output(&mut self, id: u64, stream: Stream) {
        if let Some(exec) = self.execs.iter_mut().find(|exec| exec.client == id) {
            exec.streams.close_output(stream);
        }
    }

    fn tell_exec_exit(&mut self, id: u64, now: Instant) {
        let Some(at) = self
            .execs
            .iter()
            .position(|exec| exec.client == id && exec.is_over())
        else {
            return;
        };
        let exec = self.execs.swap_remove(at);
        if let (Some(client), Some(exit)) = (self.client_mut(id), exec.exit) {
            client.exit(&exit, now);
        }
    }

    /// The earliest moment at which [`Monitor::tick`] has something to do.
    fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().filter_map(Client::deadline);
        let execs = self.execs.iter().filter_map(Exec::deadline);
        let listener = self.listener.as_ref().and_then(Listener::deadline);
        let log = self.log.as_ref().and_then(Log::deadline);
        let notify = self.notify.as_ref().and_then(Notify::deadline);
        clients
            .chain(execs)
            .chain(listener)
            .chain(log)
            .chain(notify)
            .chain(self.machine.deadline())
            .chain(self.dyno.deadline())
            .min()
    }
}

fn kind(stream: Stream) -> super::frame::Kind {
    match stream {
        Stream::Stdout => super::frame::Kind::Stdout,
        Stream::Stderr => super::frame::Kind::Stderr,
    }
}

/// Rounded up to a millisecond: a wait that ends too early would spin.
fn timespec(duration: Duration) -> Timespec {
    let duration = duration + Duration::from_micros(999);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_millis()) * 1_000_000,
    }
}
