//! The end of a run: why it ended, that nothing of it is left, and what is told.

use std::time::{Duration, Instant};

use dyno_failpoint::failpoint;
use jiff::Timestamp;

use super::client::Role;
use super::complain;
use super::driver::Monitor;
use super::dyno::{Init, REMOVAL};
use super::exec::OUTPUTS;
use super::failure::{exit_code, words};
use super::log::Moment;
use super::machine::Event;
use super::protocol::{ExitStatus, FailureKind, Phase, Reply};
use super::streams::Streams;
use crate::cgroup::OomWatch;
use crate::container::Exit;

/// After this time a process that was killed and is still there is told about.
pub(super) const STUCK: Duration = Duration::from_secs(2);

/// Reads of one pipe after the end: a pipe holds 1 MiB at most, a read at least
/// a page of it.
const MAX_DRAIN_READS: usize = 256;

/// Init has ended; its descendants are being killed and its output taken.
#[derive(Debug)]
pub(super) struct Sweep {
    since: Instant,
    look_at: Instant,
    delay: Duration,
    empty: bool,
    told: bool,
}

impl Sweep {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            look_at: now,
            delay: Duration::from_millis(1),
            empty: false,
            told: false,
        }
    }

    /// When to look again whether everything is gone.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.empty).then_some(self.look_at)
    }
}

impl Monitor {
    /// Out-of-memory events so far.
    pub(super) fn oom_count(&mut self) -> u64 {
        let counted = self.oom.as_mut().map_or(Ok(0), OomWatch::count);
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
            Some(Init::Restoring(restoring)) => restoring.detach(),
            None => return,
        };
        self.dyno.killed_at = None;
        if let Some(notify) = &mut self.notify {
            notify.end();
        }
        let exit = process.wait().unwrap_or_else(|error| {
            complain(&format_args!("wait for the dyno: {error}"));
            Exit::Code(exit_code(FailureKind::Internal))
        });
        failpoint("monitor_end.reaped");
        let oom = self.killed_for_memory(exit, self.dyno.oom_before);
        let mut status = exit_status(exit, oom);
        if oom {
            let used = self.container.cgroup().stats();
            status.memory_peak_bytes = used.ok().and_then(|used| used.memory_peak_bytes);
            self.dyno.reason = Some("killed: its memory limit was reached".to_owned());
        } else if self.dyno.started.is_none() {
            self.dyno.reason = Some("it ended before it was started".to_owned());
        }
        self.dyno.exit = Some(status);
        self.go_on();
        self.dyno.sweep = Some(Sweep::new(Instant::now()));
        let success = status.code == 0 && !oom;
        // The end of init conflicts with nothing.
        self.event(Event::Exited { success }).ok();
        failpoint("monitor_end.noted");
    }

    /// A group that was held still would hold its next init, too, and us with it.
    pub(super) fn go_on(&self) {
        let cgroup = self.container.cgroup();
        if cgroup.record().is_frozen()
            && let Err(error) = cgroup.thaw()
        {
            complain(&words(&error));
        }
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

    /// Takes what the pipes still hold, and no more: someone outside may hold
    /// their other ends. Nobody is waited for: it is bounded by the pipes' size,
    /// and the end must not depend on a client that has stopped reading.
    fn drain(&mut self) {
        for stream in OUTPUTS {
            for _ in 0..MAX_DRAIN_READS {
                if !self.pass_output(stream) {
                    break;
                }
            }
            self.dyno.streams.close_output(stream);
        }
        self.dyno.sweep = None;
        self.dyno.stuck = None;
        self.dyno.streams = Streams::default();
        if let Some(log) = &mut self.log {
            log.end_lines(Moment::now());
        }
        failpoint("monitor_end.drained");
        // What follows the end conflicts with nothing.
        self.event(Event::Emptied).ok();
    }

    /// Init was killed and may hang in the kernel itself, or wait there for a child of its
    /// that does.
    pub(super) fn look_whether_stuck(&mut self, now: Instant) {
        if self.dyno.stuck_at().is_some_and(|at| at <= now) {
            self.dyno.killed_at = None;
            self.tell_stuck();
        }
    }

    fn tell_stuck(&mut self) {
        let left = self.container.cgroup().who_is_left();
        let left = left.unwrap_or_else(|| "nobody is seen".to_owned());
        let stuck = format!("killed, but not gone yet: {left}");
        complain(&stuck);
        self.dyno.stuck = Some(stuck);
        self.publish();
    }

    /// The end for good.
    pub(super) fn finish(&mut self) {
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
        failpoint("monitor_end.removed");
        self.publish();
        failpoint("monitor_end.recorded");
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
                    client.reply(&Reply::Ok(status.clone()), now);
                    client.close(now);
                }
                (Role::Attached { .. }, Some(failure), _) => client.fail(failure.clone(), now),
                (Role::Attached { .. }, None, Some(exit)) => client.exit(exit, now),
                _ => client.close(now),
            }
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
        memory_peak_bytes: None,
        at: Timestamp::now(),
    }
}
