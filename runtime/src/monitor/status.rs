//! What is told about the dyno: to `state.json`, and to whoever watches.

use std::io;
use std::time::Instant;

use jiff::Timestamp;

use super::client::Role;
use super::complain;
use super::driver::Monitor;
use super::notify::Notify;
use super::protocol::{Phase, Reply, Status};
use super::record::process_id;

impl Monitor {
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
            crashes: self.machine.crashes(),
            notified: self.notify.as_ref().map(Notify::said),
            exit: self.dyno.exit,
            next_start: self.dyno.next_start.map(|(_, wall)| wall),
            reason: self
                .dyno
                .stuck
                .as_ref()
                .or(self.dyno.reason.as_ref())
                .cloned(),
            by_system: self.dyno.by_system,
        }
    }

    /// Records the status and tells it to whoever watches, where it changed.
    pub(super) fn publish(&mut self) {
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
        let reply = Reply::Ok(status);
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
}
