//! Log drains: what dynos write, sent elsewhere.
//!
//! ```text
//! log files ─▶ reader ─▶ a few batches ─▶ sender ─▶ connect ─▶ receiver
//!  the queue     │                          │ window: may not have arrived
//!                └ left out, counted        └ positions ─▶ state.json
//!
//! target    the URL (pure)
//! batch     entries that are sent at once (pure)
//! format    entries in the receiver's words (pure)
//! record    what is on the disk
//! ```
//!
//! No dyno waits for a receiver, and none takes memory for what waits: that is in its log.
//! Each entry arrives at least once, or is counted as dropped. Twice comes what was sent
//! shortly before a connection broke or hostd ended.

mod batch;
mod connect;
mod format;
mod reader;
mod record;
mod sender;
mod target;
mod window;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dyno_api::drain::{Drain as Shown, DrainSpec, DrainStatus};
use dyno_api::dyno::Dyno;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::durable::{chain, from_io, internal};
use crate::host::{Host, blocking};
use crate::logs::{LogFiles, Position};
use crate::{engine, identity};
use batch::Batch;
use format::Who;
use reader::Leaving;
use record::{Progress, Record};
use target::Target;

/// P15: drains of a host. Each has a few MiB at most.
const MOST: usize = 32;
/// P15: bytes of certificates.
const MOST_CA: usize = 256 * 1024;
/// Batches between reader and sender.
const BATCHES: usize = 4;
/// How long the removal of a dyno waits for its log to be opened.
const HOLD: Duration = Duration::from_secs(2);
/// Between two looks whether something is to be saved.
const SAVE: Duration = Duration::from_secs(1);

/// The drains of a host.
#[derive(Debug, Default)]
pub struct Drains {
    all: Mutex<BTreeMap<DynoName, Running>>,
    /// One is added or removed at a time.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Running {
    drain: Arc<Drain>,
    leaving: mpsc::Sender<Leaving>,
    tasks: [AbortHandle; 2],
}

/// One drain, as its two tasks share it.
#[derive(Debug)]
struct Drain {
    record: Record,
    folder: PathBuf,
    target: Target,
    host_name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    progress: Progress,
    /// The progress is not on the disk.
    unsaved: bool,
    connected: bool,
    failures: u64,
    error: Option<String>,
}

/// Takes up the drains of an earlier hostd.
pub fn open(host: &Arc<Host>) {
    for (record, progress) in record::load_all(&host.paths.drains()) {
        let name = record.name.clone();
        match target::parse(&record.url) {
            Ok(target) => begin(host, record, progress, target),
            Err(error) => tracing::error!(drain = %name, %error, "this drain cannot be used"),
        }
    }
    let host = host.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SAVE).await;
            let shared = host.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || shared.drains.save()).await {
                tracing::error!(%error, "the progress of drains is not saved");
            }
        }
    });
}

fn begin(host: &Arc<Host>, record: Record, progress: Progress, target: Target) {
    let drain = Arc::new(Drain {
        folder: host.paths.drain(&record.name),
        target,
        host_name: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        state: Mutex::new(State {
            progress,
            ..State::default()
        }),
        record,
    });
    let (to, from) = mpsc::channel(BATCHES);
    let (leaving, leaves) = mpsc::channel(1);
    let reading = tokio::spawn(reader::run(host.clone(), drain.clone(), to, leaves));
    let (shared, own) = (host.clone(), drain.clone());
    let name = drain.record.name.clone();
    let mut all = host.drains.all();
    let sending = tokio::spawn(async move {
        sender::run(own, from).await;
        // Its one dyno is gone, and so is what it wrote.
        let name = name.to_string();
        if let Err(error) = remove(&shared, &name).await {
            tracing::warn!(drain = name, %error, "a drain without its dyno stays");
        }
    });
    let running = Running {
        leaving,
        tasks: [reading.abort_handle(), sending.abort_handle()],
        drain,
    };
    all.insert(running.drain.record.name.clone(), running);
}

/// Sends output somewhere from now on.
///
/// # Errors
/// Invalid, NotFound, Conflict, Exhausted: with the value, and what to do.
pub async fn add(host: &Arc<Host>, spec: DrainSpec) -> Result<Shown, ApiError> {
    let target = target::parse(&spec.url)?;
    check_ca(&spec, &target)?;
    let dyno = spec
        .dyno
        .as_deref()
        .map(|dyno| engine::find(host, dyno))
        .transpose()?;
    let dyno = dyno.map(|handle| handle.dyno());
    let shared = host.clone();
    blocking(move || {
        let changing = shared.drains.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        let name = shared.drains.free_name(spec.name)?;
        let mut record = Record::new(name.clone(), spec.url);
        record.ca = spec.ca;
        if let Some(dyno) = dyno {
            (record.dyno, record.dyno_name) = (Some(dyno.id), Some(dyno.name));
        }
        let progress = Progress {
            positions: from_now_on(&shared, record.dyno.as_ref())?,
            ..Progress::default()
        };
        record::create(&shared.paths.drain(&name), &record, &progress)?;
        begin(&shared, record, progress, target);
        let all = shared.drains.all();
        let running = all.get(&name).ok_or_else(|| not_found(name.as_str()))?;
        Ok(running.drain.shown())
    })
    .await
}

fn check_ca(spec: &DrainSpec, target: &Target) -> Result<(), ApiError> {
    let Some(ca) = &spec.ca else {
        return Ok(());
    };
    let refused = |why: &str| Err(ApiError::new(ErrorKind::Invalid, format!("`ca` {why}")));
    if !target.tls {
        return refused("is for drains with TLS, which this URL has none of");
    }
    if ca.len() > MOST_CA {
        return refused("is too long");
    }
    match connect::authorities(ca) {
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        Ok(_) => refused("holds no certificate in PEM form"),
        Err(error) => refused(&format!("cannot be read: {error}")),
    }
}

/// Where the logs of the dynos that there are end now.
fn from_now_on(host: &Host, one: Option<&DynoId>) -> Result<BTreeMap<DynoId, Position>, ApiError> {
    let handles = host.registry().handles();
    let ids = handles
        .iter()
        .map(|handle| handle.look(|dyno| dyno.id.clone()));
    let covered = ids.filter(|id| one.is_none_or(|one| one == id));
    covered
        .map(|id| {
            let end = LogFiles::end(&host.paths.dyno(&id).log());
            let end = end.map_err(|error| from_io(&format!("cannot read the log of {id}"), &error));
            Ok((id, end?))
        })
        .collect()
}

/// Every drain, in order of names.
pub fn list(host: &Host) -> Vec<Shown> {
    host.drains
        .all()
        .values()
        .map(|running| running.drain.shown())
        .collect()
}

/// Sends nothing more there.
///
/// # Errors
/// NotFound.
pub async fn remove(host: &Arc<Host>, name: &str) -> Result<(), ApiError> {
    let (shared, name) = (host.clone(), name.to_owned());
    blocking(move || {
        let changing = shared.drains.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        let parsed: DynoName = name.parse().ok().ok_or_else(|| not_found(&name))?;
        let running = shared.drains.all().remove(&parsed);
        let running = running.ok_or_else(|| not_found(&name))?;
        let folder = running.drain.folder.clone();
        // Whoever saves meanwhile would bring the folder back.
        running.drain.state().unsaved = false;
        let removed = record::remove(&folder)
            .map_err(|error| from_io(&format!("cannot remove {}", folder.display()), &error));
        // Last of all: one of them may be who asks.
        running.tasks.iter().for_each(AbortHandle::abort);
        removed
    })
    .await
}

fn not_found(name: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no drain {name}"))
        .hint("`dyno drain ls` lists them")
}

impl Drains {
    /// Opens the log of a dyno whose folder is about to be removed, so that what it wrote
    /// last is sent all the same. Waits for no receiver.
    pub(crate) async fn leaving(&self, view: &watch::Sender<Dyno>) {
        if self.all().is_empty() {
            return;
        }
        let dyno = view.borrow().clone();
        let covering: Vec<mpsc::Sender<Leaving>> = {
            let all = self.all();
            let covering = all
                .values()
                .filter(|running| running.drain.covers(&dyno.id));
            covering.map(|running| running.leaving.clone()).collect()
        };
        for to in covering {
            let (held, is_held) = oneshot::channel();
            let (id, name) = (dyno.id.clone(), dyno.name.clone());
            let who = Who { id, name };
            let queue = reader::queue(&dyno);
            let told = async {
                // Whose reader has ended sends nothing more.
                if to.send(Leaving { who, queue, held }).await.is_ok() {
                    is_held.await.unwrap_or_default();
                }
            };
            if timeout(HOLD, told).await.is_err() {
                tracing::warn!(dyno = %dyno.id, "its last entries may not be sent");
            }
        }
    }

    /// Writes down how far each drain has come. Blocks.
    pub fn save(&self) {
        let drains: Vec<Arc<Drain>> = self
            .all()
            .values()
            .map(|running| running.drain.clone())
            .collect();
        for drain in drains {
            drain.save();
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<DynoName, Running>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_name(&self, wanted: Option<DynoName>) -> Result<DynoName, ApiError> {
        let all = self.all();
        if all.len() >= MOST {
            let message = format!("this host has {MOST} drains already");
            return Err(ApiError::new(ErrorKind::Exhausted, message)
                .hint("remove one first: `dyno drain rm NAME`"));
        }
        let name = match wanted {
            Some(name) => name,
            None => {
                let id = identity::new_dyno_id();
                let id = id.map_err(|error| from_io("cannot make a name", &error))?;
                let digits = id.as_str().get(..6).unwrap_or_default();
                let name = format!("drain-{digits}");
                name.parse().map_err(|error| internal(&error))?
            }
        };
        match all.contains_key(&name) {
            true => Err(ApiError::new(
                ErrorKind::Conflict,
                format!("there is a drain {name} already"),
            )
            .hint(format!(
                "choose another name, or remove that one: `dyno drain rm {name}`"
            ))),
            false => Ok(name),
        }
    }
}

impl Drain {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn covers(&self, dyno: &DynoId) -> bool {
        self.record.dyno.as_ref().is_none_or(|one| one == dyno)
    }

    fn position(&self, dyno: &DynoId) -> Position {
        let state = self.state();
        state
            .progress
            .positions
            .get(dyno)
            .copied()
            .unwrap_or_default()
    }

    /// Forgets how far dynos are that are gone.
    fn keep(&self, is_there: impl Fn(&DynoId) -> bool) {
        let positions = &mut self.state().progress.positions;
        positions.retain(|id, _| is_there(id));
    }

    fn sent(&self) -> u64 {
        self.state().progress.sent
    }

    /// The receiver can be reached.
    fn works(&self) {
        let mut state = self.state();
        if !state.connected {
            tracing::info!(drain = %self.record.name, "the receiver can be reached");
        }
        (state.connected, state.error) = (true, None);
    }

    fn failed(&self, reason: String) {
        let mut state = self.state();
        if state.error.is_none() {
            tracing::warn!(drain = %self.record.name, reason, "a drain does not work and is tried again");
        }
        state.connected = false;
        state.failures += 1;
        state.error = Some(reason);
    }

    fn arrived(&self, batch: &Batch) {
        self.passed(batch, |progress| &mut progress.sent);
    }

    /// The receiver is there, but does not want something.
    fn objected(&self, reason: String) {
        let mut state = self.state();
        tracing::debug!(drain = %self.record.name, reason, "entries are left out");
        state.failures += 1;
        state.error = Some(reason);
    }

    fn refused(&self, batch: &Batch) {
        self.passed(batch, |progress| &mut progress.dropped);
    }

    fn passed(&self, batch: &Batch, count: fn(&mut Progress) -> &mut u64) {
        let mut state = self.state();
        *count(&mut state.progress) += batch.lines();
        let after = batch.parts.iter().map(|part| (part.id.clone(), part.after));
        state.progress.positions.extend(after);
        state.unsaved = true;
    }

    fn dropped(&self, lines: u64) {
        let mut state = self.state();
        state.progress.dropped += lines;
        state.unsaved |= lines > 0;
    }

    fn missed(&self, files: u64) {
        let mut state = self.state();
        state.progress.missed_files += files;
        state.unsaved |= files > 0;
    }

    fn save(&self) {
        let mut state = self.state();
        if !std::mem::take(&mut state.unsaved) {
            return;
        }
        let progress = state.progress.clone();
        drop(state);
        if let Err(error) = record::save(&self.folder, &progress) {
            tracing::debug!(drain = %self.record.name, error = %chain(&error), "how far it has come is not saved");
            self.state().unsaved = true;
        }
    }

    fn shown(&self) -> Shown {
        let state = self.state();
        Shown {
            name: self.record.name.clone(),
            url: self.record.url.clone(),
            dyno: self.record.dyno.clone(),
            dyno_name: self.record.dyno_name.clone(),
            created: self.record.created,
            status: DrainStatus {
                connected: state.connected,
                sent: state.progress.sent,
                dropped: state.progress.dropped,
                missed_files: state.progress.missed_files,
                failures: state.failures,
                error: state.error.clone(),
            },
        }
    }
}
