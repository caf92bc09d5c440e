//! One task owns one dyno: it decides by the pure machine, acts, and
//! publishes what the dyno is by a watch channel.
//!
//! ```text
//! machine   (state, input) → (state, actions)
//! perform   the actions
//! live      limits and pauses of a dyno that runs
//! show      a container for the files of a dyno that does not run
//! view      what the API shows, and which events follow
//! ```

mod live;
pub mod machine;
mod perform;
mod show;
mod view;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dyno_api::dyno::{Dyno, LimitRequest, Phase, RestartPolicy};
use dyno_api::error::{ApiError, ErrorKind};
use tokio::sync::{mpsc, oneshot, watch};

use crate::desired::{Record, Wanted};
use crate::host::Host;
use crate::launch::Running;
use machine::{Input, Recovery, State, Traits, is_leased, step};

/// Requests that wait for one dyno.
const QUEUE: usize = 64;
/// How long a dyno that goes with its end waits for somebody to start it.
const LEASE: Duration = Duration::from_secs(30);
/// How long a monitor may take to end after its last word.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What is asked of a dyno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    view: watch::Receiver<Dyno>,
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
        self.view.borrow().clone()
    }

    /// The dyno as it will be.
    pub fn view(&self) -> watch::Receiver<Dyno> {
        self.view.clone()
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
    /// Its processes are held still.
    paused: bool,
    /// A container that is not to be started; only while it rests.
    shown: Option<show::Shown>,
    /// Losses in a row, which the pause before a restart grows with.
    losses: u32,
    /// Restarts under earlier monitors.
    restarts: u32,
    restart_due: Option<Instant>,
    /// Has one more owner for each [`Presence`].
    attached: Arc<()>,
    unrecorded: bool,
    forgotten: bool,
}

/// Begins to supervise a dyno that has just been created.
pub(crate) fn supervise(host: Arc<Host>, record: Record) -> Handle {
    spawn(host, record, None, None)
}

/// Takes supervision up again.
pub(crate) fn resume(
    host: Arc<Host>,
    record: Record,
    running: Option<Running>,
    how: Recovery,
) -> Handle {
    spawn(host, record, running, Some(how))
}

fn spawn(
    host: Arc<Host>,
    record: Record,
    running: Option<Running>,
    how: Option<Recovery>,
) -> Handle {
    let (requests, queue) = mpsc::channel(QUEUE);
    let (view, seen) = watch::channel(view::resting(&record));
    let attached = Arc::new(());
    let handle = Handle {
        requests,
        view: seen,
        attached: Arc::downgrade(&attached),
    };
    let mut supervisor = Supervisor {
        host,
        record,
        state: State::Resting,
        view,
        running,
        paused: false,
        shown: None,
        losses: 0,
        restarts: 0,
        restart_due: None,
        attached,
        unrecorded: false,
        forgotten: false,
    };
    if matches!(how, Some(Recovery::Adopt { .. })) {
        supervisor.state = State::Live;
        supervisor.show_running();
    }
    tokio::spawn(async move {
        if let Some(how) = how {
            supervisor.recover(how).await;
        }
        supervisor.run(queue).await;
    });
    handle
}

impl Supervisor {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while !self.forgotten {
            let due = self.restart_due;
            // With each turn anew: whatever happened, somebody may follow it up.
            let lease = is_leased(self.state, self.traits()).then(|| Instant::now() + LEASE);
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
                        self.heard(status);
                    }
                    None => self.monitor_gone().await,
                },
                () = until(due) => {
                    self.restart_due = None;
                    self.input(Input::RestartDue, None).await.unwrap_or_else(|error| {
                        tracing::error!(dyno = %self.record.id, %error, "cannot be started again");
                    });
                }
                () = until(lease) => self.lease_over().await,
                () = until(self.shown.as_ref().map(|shown| shown.look_at)) => self.look_again().await,
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
            match request.ask {
                Ask::Show => self.show_files().await,
                Ask::Limit(request) => self.limit(request).await,
                Ask::Pause => self.set_paused(true).await,
                Ask::Resume => self.set_paused(false).await,
                Ask::Prepare => self.input(Input::Prepare, Some(request.ask)).await,
                Ask::Start => self.input(Input::Start, Some(request.ask)).await,
                Ask::Stop { .. } => self.input(Input::Stop, Some(request.ask)).await,
                Ask::Signal(_) => self.input(Input::Signal, Some(request.ask)).await,
                Ask::Remove { force } => {
                    self.input(Input::Remove { force }, Some(request.ask)).await
                }
            }
        };
        if request.reply.send(outcome).is_err() {
            tracing::debug!(dyno = %self.record.id, "whoever asked went away");
        }
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
            if let Err(error) = self.perform(action, ask).await {
                self.failed(&error, ask.is_some()).await;
                return Err(error);
            }
        }
        Ok(())
    }

    fn traits(&self) -> Traits {
        Traits {
            rm: self.record.spec.rm,
            restart: self.record.spec.restart,
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
                self.heard(status);
                if again { Input::Lost } else { Input::Ended }
            }
            None => {
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
