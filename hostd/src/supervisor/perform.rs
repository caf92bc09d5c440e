//! The effects of a supervisor's decisions.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use dyno_api::dyno::{Phase, RestartPolicy};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::event::What;
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::protocol::{Request, State as MonitorState, Status};
use tokio::task::JoinHandle;

use super::machine::{Action, Input, Recovery, State};
use super::{Ask, SAVE_AGAIN, Supervisor, view};
use crate::desired::Wanted;
use crate::durable::{self, from_io};
use crate::host::blocking;
use crate::launch::{self, DEFAULT_GRACE_MS};
use crate::{cgroups, checkpoints, layer, monitor, secrets, signal, trash};

/// What a stop may take beyond its grace.
const STOP_MARGIN: Duration = Duration::from_secs(60);
/// What its monitor gives CRIU to restore a dyno, and some more.
const RESTORING: Duration = Duration::from_secs(660);
/// How long a killed monitor may take to be gone.
const DYING: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) async fn perform(
        &mut self,
        action: Action,
        ask: Option<&Ask>,
    ) -> Result<(), ApiError> {
        match action {
            Action::Want(wanted) => self.want(wanted, ask.is_some()).await,
            Action::Prepare => self.prepare().await,
            Action::Start => {
                self.tell_start().await?;
                failpoint("start.told");
                self.came_back().await;
                Ok(())
            }
            Action::Stop => {
                // What is held still does not heed a signal.
                // Where it stays so, the end of its grace ends it all the same.
                if self.paused
                    && let Err(error) = self.set_paused(false).await
                {
                    tracing::warn!(dyno = %self.record.id, %error, "it stays paused");
                }
                self.begin_stop(ask);
                Ok(())
            }
            Action::Signal => match ask {
                Some(&Ask::Signal(signal)) => {
                    self.tell(&Request::Signal { signal, all: false }).await?;
                    // Else what a monitor of before starts next would be born frozen.
                    match self.paused && signal == signal::KILL {
                        true => self.set_paused(false).await,
                        false => Ok(()),
                    }
                }
                _ => Ok(()),
            },
            Action::Kill => self.kill().await,
            Action::CleanUp => self.clean_up().await,
            Action::Pause => {
                self.pause();
                Ok(())
            }
            Action::Unrecord => self.unrecord().await,
            Action::Forget => self.forget().await,
        }
    }

    /// A step failed: whatever runs is taken down, and the reason is kept. Who
    /// asked is told; where nobody did, at boot or after a loss, a dyno that
    /// shall run is tried again.
    pub(super) async fn failed(&mut self, error: &ApiError, asked: bool) {
        // Who could not be brought back rests: his checkpoint is still there.
        let came_back = self.record.restore.take().is_some();
        // A refused start ends the monitor by itself; its last word comes.
        if self.state == State::Live && self.running.is_some() {
            return;
        }
        // What could not be removed is still there, and has a record again.
        self.unrecorded = false;
        self.record.rest = Phase::Failed;
        self.record.reason = Some(error.message.clone());
        let again = !asked
            && !came_back
            && self.record.wanted == Wanted::Running
            && self.record.spec.restart != RestartPolicy::No;
        if !again {
            self.record.wanted = Wanted::Stopped;
            self.state = State::Resting;
        }
        if let Err(left) = self.clean_up().await {
            tracing::error!(dyno = %self.record.id, error = %left, "not everything of a failed dyno was taken down");
        }
        // What is cleaned up with its end is not recorded then; this one is still there,
        // and would be started by the next hostd, long after its client was told no.
        if self.record.spec.rm
            && let Err(error) = self.save().await
        {
            tracing::warn!(dyno = %self.record.id, %error, "the failure is not recorded");
        }
        if again {
            tracing::warn!(dyno = %self.record.id, %error, "it could not be started and is tried again");
            self.state = State::Waiting;
            self.pause();
        }
    }

    pub(super) async fn want(&mut self, wanted: Wanted, asked: bool) -> Result<(), ApiError> {
        if wanted == Wanted::Running && asked {
            self.begin_anew();
            self.record.failed_check = None;
        }
        if self.record.wanted == wanted {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.record.wanted, wanted);
        match self.save().await {
            // On a full disk a dyno can still be stopped; should hostd be
            // restarted before it can write again, it may run once more.
            Err(error) if wanted == Wanted::Stopped => {
                self.save_later(&error);
                Ok(())
            }
            Err(error) => {
                self.record.wanted = before;
                Err(error)
            }
            Ok(()) => {
                match wanted {
                    Wanted::Running => failpoint("start.wanted"),
                    Wanted::Stopped => failpoint("stop.wanted"),
                    Wanted::Created => {}
                }
                Ok(())
            }
        }
    }

    pub(super) async fn save(&self) -> Result<(), ApiError> {
        let (record, paths) = (self.record.clone(), self.host.paths.clone());
        blocking(move || Ok(record.save(&paths)?)).await
    }

    /// What has happened has, whatever the disk says.
    fn save_later(&mut self, error: &ApiError) {
        tracing::warn!(dyno = %self.record.id, %error, "its record is not on disk yet");
        self.save_due = Some(Instant::now() + SAVE_AGAIN);
    }

    pub(super) async fn save_again(&mut self) {
        self.save_due = None;
        if !self.unrecorded
            && let Err(error) = self.save().await
        {
            self.save_later(&error);
        }
    }

    async fn prepare(&mut self) -> Result<(), ApiError> {
        let from = self.comes_from()?;
        self.running = Some(launch::prepare(&self.host, &self.record, from).await?);
        self.show_running();
        Ok(())
    }

    /// A dyno that comes back has its memory read first.
    async fn tell_start(&self) -> Result<(), ApiError> {
        if self.record.restore.is_none() {
            return self.tell(&Request::Start {}).await;
        }
        let socket = self.host.paths.dyno(&self.record.id).monitor_socket();
        let started = monitor::ask_within(&socket, &Request::Start {}, RESTORING).await;
        started.map(drop)
    }

    pub(super) async fn tell(&self, request: &Request) -> Result<(), ApiError> {
        let socket = self.host.paths.dyno(&self.record.id).monitor_socket();
        monitor::ask(&socket, request).await.map(|_| ())
    }

    /// Sends the stop on a connection of its own: other requests, a kill
    /// among them, are served meanwhile.
    fn begin_stop(&self, ask: Option<&Ask>) {
        let (signal, grace_ms) = match ask {
            Some(&Ask::Stop { signal, grace_ms }) => (signal, grace_ms),
            _ => (None, None),
        };
        let socket = self.host.paths.dyno(&self.record.id).monitor_socket();
        let own = self.record.spec.stop_grace_ms.unwrap_or(DEFAULT_GRACE_MS);
        let limit = Duration::from_millis(grace_ms.unwrap_or(own)) + STOP_MARGIN;
        let id = self.record.id.clone();
        tokio::spawn(async move {
            let request = Request::Stop { signal, grace_ms };
            if let Err(error) = monitor::ask_within(&socket, &request, limit).await {
                tracing::debug!(dyno = %id, %error, "the monitor did not answer a stop");
            }
            failpoint("stop.answered");
        });
    }

    /// Kills all that there is of it. Until that was done nothing of it is anybody else's.
    pub(super) async fn kill(&mut self) -> Result<(), ApiError> {
        self.unkilled = true;
        let killed = self.kill_group().await;
        failpoint("remove.killed");
        if let Some(running) = self.running.take() {
            running.kill();
            failpoint("remove.monitor");
            if !running.ends_within(DYING).await {
                return Err(ApiError::new(
                    ErrorKind::Internal,
                    format!(
                        "the monitor {} of dyno {} does not die",
                        running.pid, self.record.name
                    ),
                ));
            }
        }
        // The monitor may have been removing the group at the same time.
        if killed.is_err() {
            self.kill_group().await?;
        }
        self.unkilled = false;
        Ok(())
    }

    async fn kill_group(&self) -> Result<(), ApiError> {
        let (host, record) = (self.host.clone(), self.record.clone());
        blocking(move || {
            let (layout, own) = (&host.layout, &host.identity.id);
            cgroups::kill(layout, own, &record.id).map_err(|error| {
                let Some(left) = cgroups::who_is_left(layout, own, &record.id) else {
                    return durable::internal(&error);
                };
                let message = format!("dyno {} is killed and not gone yet: {left}", record.name);
                ApiError::new(ErrorKind::Internal, message)
                    .hint("once the kernel lets it go it ends; remove it then")
            })
        })
        .await
    }

    /// What stands for a running dyno outside of its own folder.
    async fn clean_up(&mut self) -> Result<(), ApiError> {
        self.running = None;
        self.paused = false;
        // Forgetting the connections of an address takes the kernel longest:
        // nobody waits for it where the dyno goes altogether.
        let detaching = self.detach();
        let own = self.host.paths.dyno(&self.record.id);
        let trash = self.host.paths.run_trash();
        let removed = blocking(move || {
            secrets::take_back(&own)?;
            failpoint("end.secrets");
            checkpoints::sweep(&own);
            let run = own.run;
            trash::throw(&run, &trash)
                .map_err(|error| from_io(&format!("cannot remove {}", run.display()), &error))
        })
        .await;
        failpoint("end.bundle");
        if !self.record.spec.rm
            && !self.unrecorded
            && let Err(error) = self.save().await
        {
            self.save_later(&error);
        }
        failpoint("end.saved");
        self.show_resting();
        let detached = match self.unrecorded {
            true => Ok(()),
            false => detaching
                .await
                .unwrap_or_else(|error| Err(durable::internal(&error))),
        };
        detached.and(removed)
    }

    /// Takes the dyno off the network; a dyno that goes gives its address
    /// back, but not before nothing leads to it any more.
    fn detach(&mut self) -> JoinHandle<Result<(), ApiError>> {
        let (host, id) = (self.host.clone(), self.record.id.clone());
        let has_link = self.record.ipv4.is_some();
        let address = self.record.ipv4.take_if(|_| self.unrecorded);
        tokio::spawn(async move {
            if !has_link {
                return Ok(());
            }
            let detached = host.network.detach(&id).await;
            failpoint("end.detached");
            host.publish_names();
            if let Err(error) = &detached {
                tracing::warn!(dyno = %id, %error, "a link stays until the next repair");
            }
            if let Some(address) = address {
                host.network.release(address);
            }
            detached
        })
    }

    async fn unrecord(&mut self) -> Result<(), ApiError> {
        let path = self.host.paths.dyno(&self.record.id).record();
        let survives = self.record.survives();
        blocking(move || {
            durable::remove(&path, survives)
                .map_err(|error| from_io(&format!("cannot remove {}", path.display()), &error))
        })
        .await?;
        self.unrecorded = true;
        failpoint("remove.unrecorded");
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), ApiError> {
        self.forgotten = true;
        self.host.drains.leaving(&self.view).await;
        failpoint("remove.drained");
        let own = self.host.paths.dyno(&self.record.id);
        let trash = self.host.paths.trash();
        // Without its record what stays is rubbish, which a start sweeps.
        let removed = blocking(move || {
            layer::forget(&own);
            failpoint("remove.unlimited");
            let state = own.state;
            trash::throw(&state, &trash)
                .map_err(|error| from_io(&format!("cannot remove {}", state.display()), &error))
        })
        .await;
        failpoint("remove.thrown");
        if let Some(ipv4) = self.record.ipv4 {
            self.host.network.release(ipv4);
        }
        self.host.registry().forget(&self.record.id);
        failpoint("remove.forgotten");
        let (dyno, name) = (self.record.id.clone(), self.record.name.clone());
        self.host.events.emit(What::DynoRemoved { dyno, name });
        if let Err(error) = removed {
            tracing::error!(dyno = %self.record.id, %error, "a removed dyno's folder stays until the next start");
        }
        Ok(())
    }

    /// The monitor's final state, where it left one.
    pub(super) fn last_word(&self) -> Option<Status> {
        let path = self.host.paths.dyno(&self.record.id).monitor_state();
        match durable::read_json::<MonitorState>(&path) {
            Ok(state) => state
                .map(|state| state.status)
                .filter(|status| status.phase.is_final()),
            Err(error) => {
                tracing::warn!(dyno = %self.record.id, error = %durable::chain(&error), "the monitor's state cannot be used");
                None
            }
        }
    }

    /// Takes a status of the monitor in. Whoever is told that the dyno has ended may
    /// cut the power then: how it ended is on disk before.
    pub(super) async fn heard(&mut self, status: Status) {
        if let Some(running) = &mut self.running {
            if let Some(init) = status.pid
                && running.last.pid != status.pid
            {
                self.host.network.moved(&self.record.id, init);
            }
            running.last = status.clone();
        }
        let rest = self.record.rest;
        self.record.exit = status.exit.map(view::exit).or(self.record.exit);
        if status.phase.is_final() {
            self.record.rest = view::phase(status.phase);
            self.record.reason.clone_from(&status.reason);
        }
        let has_ended = self.record.rest != rest && !self.record.spec.rm;
        if has_ended && let Err(error) = self.save().await {
            self.save_later(&error);
        }
        if has_ended {
            failpoint("end.recorded");
        }
        self.show(&status);
    }

    pub(super) fn show_running(&mut self) {
        if let Some(status) = self.running.as_ref().map(|running| running.last.clone()) {
            self.show(&status);
        }
    }

    fn show(&self, status: &Status) {
        let monitor = self.running.as_ref().map_or(0, |running| running.pid);
        let mut dyno = view::described(&self.record, status, monitor);
        dyno.status.paused = self.paused && status.pid.is_some();
        dyno.status.health = self.health(status);
        self.show_pending(&mut dyno);
        let events = view::events(&self.view.borrow().status, &dyno);
        // Who looks because of an event sees what it tells of.
        self.view.send_replace(dyno);
        for event in events {
            self.host.events.emit(event);
        }
    }

    pub(super) fn show_resting(&self) {
        let mut dyno = view::resting(&self.record);
        let before = self.view.borrow().status.clone();
        dyno.status.started = before.started;
        dyno.status.restarts = before.restarts.max(dyno.status.restarts);
        self.view.send_replace(dyno);
    }

    /// Goes on where an earlier hostd was.
    pub(super) async fn recover(&mut self, how: Recovery) {
        let outcome = match how {
            Recovery::Adopt { stop: false } => {
                self.came_back().await;
                self.look_whether_paused().await;
                self.show_running();
                self.complete_limits().await;
                Ok(())
            }
            Recovery::Adopt { stop: true } => {
                self.look_whether_paused().await;
                self.input(Input::Stop, None).await
            }
            Recovery::Ended => {
                if let Some(status) = self.last_word() {
                    self.heard(status).await;
                }
                self.running = None;
                self.input(Input::Ended, None).await
            }
            Recovery::Lost => {
                self.lost();
                self.state = State::Live;
                self.input(Input::Lost, None).await
            }
            Recovery::Start => match self.take_down().await {
                Ok(()) => self.start_in_order(None).await,
                Err(error) => Err(error),
            },
            Recovery::Rest => self.take_down().await,
            Recovery::Forget => {
                // Something of it may be left: taken down as if it ran.
                self.state = State::Live;
                self.input(Input::Remove { force: true }, None).await
            }
        };
        if let Err(error) = outcome {
            tracing::error!(dyno = %self.record.id, %error, ?how, "supervision could not be taken up again");
        }
    }

    /// Kills and cleans up what an earlier hostd has left. Its monitor may hear only now
    /// what that hostd has told it: whoever finds it dead shall not take its dyno for
    /// lost.
    async fn take_down(&mut self) -> Result<(), ApiError> {
        let condemned = self.host.paths.dyno(&self.record.id).condemned();
        match File::create(&condemned) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("cannot make {}", condemned.display());
                return Err(from_io(&what, &error));
            }
            // Without its folder there is nothing that would say otherwise.
            _ => {}
        }
        failpoint("recover.condemned");
        self.kill().await?;
        self.clean_up().await
    }
}
