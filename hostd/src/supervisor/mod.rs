//! One task owns one dyno: it decides by the pure machine, acts, and
//! publishes what the dyno is by a watch channel.
//!
//! ```text
//! machine   (state, input) → (state, actions)
//! perform   the actions
//! live      limits and pauses of a dyno that runs
//! saved     checkpoints, and what comes back from one
//! show      a container for the files of a dyno that does not run
//! view      what the API shows, and which events follow
//! again     restarts that are hostd's own
//! order     starts that wait for other dynos
//! window    what others see of it
//! checks    whether it works, and what follows where it does not
//! ```

mod again;
mod checks;
mod live;
pub mod machine;
mod order;
mod perform;
mod saved;
mod show;
mod view;
mod window;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dyno_api::dyno::{Dyno, LimitRequest, Phase, RestartPolicy};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoName;
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::policy::History;
use tokio::sync::{mpsc, oneshot, watch};

use crate::boot_order::Turn;
use crate::desired::{Record, Wanted};
use crate::health::plan::Plan;
use crate::host::Host;
use crate::launch::Running;
use checks::Checks;
use machine::{Input, Recovery, State, Traits, is_leased, step};
use order::Pending;
use window::Window;

/// Requests that wait for one dyno.
const QUEUE: usize = 64;
/// How long a dyno that goes with its end waits for somebody to start it.
const LEASE: Duration = Duration::from_secs(30);
/// Between two tries to write a record that the disk did not take.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// How long a monitor may take to end after its last word.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What is asked of a dyno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Have a container that can be attached to.
    Prepare,
    /// Run.
    Start,
    /// Begin to end; the end shows in the view.
    Stop {
        /// Instead of the dyno's own signal.
        signal: Option<u8>,
        /// Instead of the dyno's own grace.
        grace_ms: Option<u64>,
    },
    /// Send a signal.
    Signal(u8),
    /// Change its limits.
    Limit(LimitRequest),
    /// Hold its processes still.
    Pause,
    /// Let them go on.
    Resume,
    /// Be about to be saved by its monitor.
    Save {
        /// It runs on then.
        leave_running: bool,
    },
    /// Be done with that.
    Saved,
    /// Run from this checkpoint.
    Restore(DynoName),
    /// Have a container in which its files can be seen, running or not.
    Show,
    /// Remove it.
    Remove {
        /// Also when it runs.
        force: bool,
    },
}

#[derive(Debug)]
struct Request {
    ask: Ask,
    reply: oneshot::Sender<Result<(), ApiError>>,
}

/// A way to one dyno's supervisor.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    view: Window<Dyno>,
    attached: Weak<()>,
}

/// Somebody is attached to a dyno as long as this is kept.
#[derive(Debug)]
pub struct Presence(#[expect(dead_code, reason = "it is counted")] Option<Arc<()>>);

impl Handle {
    /// Asks, and waits until it was done.
    ///
    /// # Errors
    /// Why not.
    pub async fn ask(&self, ask: Ask) -> Result<(), ApiError> {
        let gone = || ApiError::new(ErrorKind::NotFound, "the dyno was removed");
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request { ask, reply }).await.is_err() {
            return Err(gone());
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The dyno as it is now.
    pub fn dyno(&self) -> Dyno {
        self.view.now()
    }

    /// Something of the dyno as it is now, without a copy of the rest. `look` is quick: the
    /// supervisor cannot say anything new meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Dyno) -> T) -> T {
        self.view.look(look)
    }

    /// Whether the dyno has a supervisor.
    pub fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    /// The dyno as soon as it is so; none where it is removed before.
    pub async fn until(&self, is_so: impl FnMut(&Dyno) -> bool) -> Option<Dyno> {
        self.view.until(is_so).await
    }

    /// Tells the dyno that somebody is there: it does not count as deserted.
    pub fn be_present(&self) -> Presence {
        Presence(self.attached.upgrade())
    }

    /// Returns once the dyno is removed.
    pub async fn removed(&self) {
        self.requests.closed().await;
    }
}

/// Whether nothing of a dyno in this phase runs or will run by itself.
pub fn is_over(phase: Phase) -> bool {
    matches!(phase, Phase::Exited | Phase::Failed | Phase::Lost)
}

struct Supervisor {
    host: Arc<Host>,
    record: Record,
    state: State,
    view: watch::Sender<Dyno>,
    running: Option<Running>,
    /// What the pauses before hostd's own restarts depend on.
    history: History,
    /// The latest loss was one too many for its policy.
    given_up: bool,
    /// The pause that the policy has decided on.
    next_pause: Option<Duration>,
    /// Its processes are held still.
    paused: bool,
    /// A container that is not to be started; only while it rests.
    shown: Option<show::Shown>,
    restart_due: Option<Instant>,
    /// When to write the record that the disk did not take.
    save_due: Option<Instant>,
    /// Has one more owner for each [`Presence`].
    attached: Arc<()>,
    plan: Plan,
    checks: Option<Checks>,
    /// A start that waits.
    pending: Option<Pending>,
    unrecorded: bool,
    /// It was to be killed, and perhaps something of it is still there.
    unkilled: bool,
    forgotten: bool,
}

/// Begins to supervise a dyno that has just been created.
pub(crate) fn supervise(host: Arc<Host>, record: Record) -> Handle {
    spawn(host, record, None, None)
}

/// Takes supervision up again; where it is to be started, when its turn comes.
pub(crate) fn resume(
    host: Arc<Host>,
    record: Record,
    running: Option<Running>,
    how: Recovery,
    turn: Option<Turn>,
) -> Handle {
    spawn(host, record, running, Some((how, turn)))
}

fn spawn(
    host: Arc<Host>,
    record: Record,
    running: Option<Running>,
    recovery: Option<(Recovery, Option<Turn>)>,
) -> Handle {
    let (requests, queue) = mpsc::channel(QUEUE);
    let (view, seen) = watch::channel(view::resting(&record));
    let attached = Arc::new(());
    let handle = Handle {
        requests,
        view: Window::on(seen),
        attached: Arc::downgrade(&attached),
    };
    let plan = Plan::of(&record.spec, &record.image.config);
    let mut supervisor = Supervisor {
        host,
        record,
        state: State::Resting,
        view,
        running,
        history: History::default(),
        given_up: false,
        next_pause: None,
        paused: false,
        shown: None,
        restart_due: None,
        save_due: None,
        attached,
        plan,
        checks: None,
        pending: None,
        unrecorded: false,
        unkilled: false,
        forgotten: false,
    };
    if matches!(recovery, Some((Recovery::Adopt { .. }, _))) {
        supervisor.state = State::Live;
        supervisor.begin_checks();
        supervisor.show_running();
    }
    tokio::spawn(async move {
        if let Some((how, turn)) = recovery {
            let turn = match turn {
                Some(turn) => turn.await.ok(),
                None => None,
            };
            supervisor.recover(how).await;
            drop(turn);
        }
        supervisor.run(queue).await;
    });
    handle
}

impl Supervisor {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while !self.forgotten {
            self.follow_checks().await;
            let due = self.restart_due;
            // With each turn anew: whatever happened, somebody may follow it up.
            let leased = self.pending.is_none() && is_leased(self.state, self.traits());
            let lease = leased.then(|| Instant::now() + LEASE);
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => self.answer(request).await,
                    None => return,
                },
                status = news(&mut self.running) => match status {
                    Some(status) => {
                        if self.paused {
                            self.look_whether_paused().await;
                        }
                        self.heard(status).await;
                    }
                    None => self.monitor_gone().await,
                },
                outcome = checks::next(&mut self.checks) => self.checked(outcome).await,
                () = until(due) => {
                    self.restart_due = None;
                    self.input(Input::RestartDue, None).await.unwrap_or_else(|error| {
                        tracing::error!(dyno = %self.record.id, %error, "cannot be started again");
                    });
                }
                () = until(self.save_due) => self.save_again().await,
                () = until(lease) => self.lease_over().await,
                () = order::stirs(&mut self.pending) => self.look_again().await,
                () = until(self.shown.as_ref().map(|shown| shown.look_at)) => self.look_for_viewers().await,
            }
        }
    }

    async fn lease_over(&mut self) {
        if Arc::strong_count(&self.attached) > 1 {
            return;
        }
        tracing::info!(dyno = %self.record.id, "nobody came to start it: it is removed");
        if let Err(error) = self.input(Input::Deserted, None).await {
            tracing::error!(dyno = %self.record.id, %error, "a deserted dyno could not be removed");
        }
    }

    async fn answer(&mut self, request: Request) {
        // The last word was heard and the monitor is on its way out: a request
        // meets the dyno as it will be then.
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.last.phase.is_final())
        {
            self.monitor_gone().await;
        }
        let outcome = if self.forgotten {
            Err(ApiError::new(ErrorKind::NotFound, "the dyno was removed"))
        } else {
            self.serve_request(request.ask).await
        };
        if request.reply.send(outcome).is_err() {
            tracing::debug!(dyno = %self.record.id, "whoever asked went away");
        }
    }

    async fn serve_request(&mut self, ask: Ask) -> Result<(), ApiError> {
        let needs_nothing_left = matches!(
            ask,
            Ask::Prepare | Ask::Start | Ask::Show | Ask::Remove { .. }
        );
        if self.unkilled && needs_nothing_left {
            self.kill().await?;
        }
        let input = match ask {
            Ask::Prepare => Input::Prepare,
            Ask::Start => return self.start_in_order(Some(ask)).await,
            Ask::Stop { .. } => {
                self.stop_waiting().await?;
                Input::Stop
            }
            Ask::Signal(_) => Input::Signal,
            Ask::Remove { force } => Input::Remove { force },
            Ask::Show => return self.show_files().await,
            Ask::Limit(request) => return self.limit(request).await,
            Ask::Save { leave_running } => return self.begin_save(leave_running),
            Ask::Saved => {
                self.end_save();
                return Ok(());
            }
            Ask::Restore(ref name) => return self.restore(name.clone(), ask.clone()).await,
            Ask::Pause => return self.set_paused(true).await,
            Ask::Resume => return self.set_paused(false).await,
        };
        self.input(input, Some(ask)).await
    }

    async fn input(&mut self, input: Input, ask: Option<Ask>) -> Result<(), ApiError> {
        let (next, actions) = step(self.state, input, self.traits()).map_err(|refusal| {
            ApiError::new(
                ErrorKind::Conflict,
                format!("dyno {}: {refusal}", self.record.name),
            )
        })?;
        self.state = next;
        if !actions.is_empty() {
            self.end_show().await;
        }
        for action in actions {
            if let Err(error) = self.perform(action, ask.as_ref()).await {
                self.failed(&error, ask.is_some()).await;
                return Err(error);
            }
        }
        Ok(())
    }

    fn traits(&self) -> Traits {
        Traits {
            rm: self.record.spec.rm,
            restart: match self.given_up {
                true => RestartPolicy::No,
                false => self.record.spec.restart,
            },
            wanted: self.record.wanted,
        }
    }

    /// Whether a dyno that ended without anybody's wish is started again.
    fn restarts_it(&self) -> bool {
        self.record.wanted == Wanted::Running && self.record.spec.restart != RestartPolicy::No
    }

    async fn monitor_gone(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        failpoint("end.heard");
        let is_final = running.last.phase.is_final();
        let last_word = is_final.then(|| running.last.clone());
        let id = self.record.id.clone();
        let ending = async move {
            if !running.ends_within(LAST_STEPS).await {
                tracing::warn!(dyno = %id, "the monitor closed its stream and stays: killed");
                running.kill();
            }
        };
        // Its mounts take the kernel a while to take down. Nobody waits for
        // that where the dyno goes, and no other monitor follows this one.
        if is_final && self.record.spec.rm {
            tokio::spawn(ending);
        } else {
            ending.await;
        }
        let last_word = last_word.or_else(|| self.last_word());
        let input = match last_word {
            Some(status) => {
                let again = status.by_system && !self.record.spec.rm && self.restarts_it();
                self.heard(status).await;
                if again { Input::Lost } else { Input::Ended }
            }
            None => {
                failpoint("lost.noticed");
                self.lost();
                Input::Lost
            }
        };
        if let Err(error) = self.input(input, None).await {
            tracing::error!(dyno = %self.record.id, %error, "not everything of an ended dyno was taken down");
        }
    }
}

/// The next status of a monitor that there is; waits forever without one.
async fn news(running: &mut Option<Running>) -> Option<dyno_runtime::monitor::protocol::Status> {
    match running {
        Some(running) => running.watch.next().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::desired::tests::record;

    /// It was not so once: a stop that was acknowledged while the dyno's next status came
    /// held up hostd as a whole.
    #[tokio::test]
    async fn whoever_has_waited_for_a_dyno_holds_up_nobody() {
        let (sender, view) = watch::channel(view::resting(&record(1)));
        let handle = Handle {
            requests: mpsc::channel(1).0,
            view: Window::on(view),
            attached: Weak::new(),
        };
        let ended = handle.until(|_| true).await;
        let next = sender.borrow().clone();
        let (told, said) = std::sync::mpsc::channel();
        let shows = thread::spawn(move || {
            sender.send_replace(next);
            told.send(()).unwrap();
        });
        said.recv_timeout(std::time::Duration::from_secs(20))
            .expect("the supervisor can say what is new");
        shows.join().unwrap();
        assert_eq!(ended.unwrap().id, handle.dyno().id);
        assert!(handle.until(|_| false).await.is_none());
    }
}
