//! From root to a serving, confined process, and to its orderly end.
//!
//! ```text
//! session ▸ start lock ▸ predecessor? ▸ tables, watch ▸ control socket ▸ confine
//!     ▸ take over its sockets ▸ serve ▸ stop it ▸ "ready" ▸ … ▸ stop ▸ drain ▸ exit
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::process::Uid;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};

use crate::causes;
use crate::command::Command;
use crate::confine::{ConfineError, Confinement, confine};
use crate::control::protocol::StartLine;
use crate::control::{self, BindError, Predecessor, PredecessorError, Server, Stop};
use crate::dns::Service;
use crate::listeners::{ListenError, Listeners};
use crate::parent::Parent;
use crate::tables::{Live, LoadError, Watch};

/// How long a stopping edge waits for upstreams.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Why the edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tables' folder is not usable.
    #[error("cannot use the tables")]
    Tables(#[from] LoadError),
    /// An edge serves already.
    #[error("an edge (pid {pid}, version {version}) serves already; --replace takes over from it")]
    Running {
        /// Its process id.
        pid: u32,
        /// Its version.
        version: String,
    },
    /// The running edge cannot be replaced.
    #[error("cannot take over from the running edge")]
    Predecessor(#[from] PredecessorError),
    /// The control socket cannot be made.
    #[error("cannot make the control socket")]
    Control(#[from] BindError),
    /// A socket of the running edge cannot be served.
    #[error("cannot serve the sockets of the running edge")]
    Listen(#[from] ListenError),
    /// A privilege cannot be given up.
    #[error("cannot confine the process")]
    Confine(#[from] ConfineError),
    /// Another system call failed.
    #[error("cannot {step}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> StartError {
    move |source| StartError::System {
        step,
        source: source.into(),
    }
}

/// Runs the edge to its end; the whole of `main`.
#[must_use]
pub fn run(command: &Command) -> ExitCode {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    let mut parent = match Parent::take() {
        Ok(parent) => parent,
        Err(error) => {
            tracing::error!(%error, "cannot set stdout aside");
            return ExitCode::FAILURE;
        }
    };
    match start(command, &mut parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = causes::line(&error);
            tracing::error!(%message, "cannot start");
            parent.tell(&StartLine::Failed { message });
            ExitCode::FAILURE
        }
    }
}

fn start(command: &Command, parent: &mut Parent) -> Result<(), StartError> {
    let prepared = Prepared::as_root(command)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the event loop"))?;
    LocalSet::new().block_on(&runtime, prepared.serve(command, parent))
}

/// What only root can make; nothing is served yet.
struct Prepared {
    tables: Live,
    watch: Watch,
    control: std::os::unix::net::UnixListener,
    predecessor: Option<Predecessor>,
    inherited: Vec<(String, Vec<OwnedFd>)>,
    starter: Uid,
    /// Held until this edge serves, so that two starts do not meet.
    lock: OwnedFd,
}

impl Prepared {
    /// Everything that can fail for a reason of the host's fails here, before
    /// the name of the control socket is taken from a predecessor.
    fn as_root(command: &Command) -> Result<Self, StartError> {
        new_session()?;
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let lock = start_lock(&command.control)?;
        let mut predecessor = Predecessor::find(&command.control)?;
        let mut inherited = Vec::new();
        if let Some(running) = &mut predecessor {
            if !command.replace {
                let status = running.status()?;
                return Err(StartError::Running {
                    pid: status.pid,
                    version: status.version,
                });
            }
            inherited = running.sockets()?;
        }
        let tables = Live::open(&command.tables)?;
        let folder = command.tables.parent().unwrap_or(Path::new("."));
        let watch = Watch::folder(folder).map_err(system("watch the tables"))?;
        let starter = rustix::process::geteuid();
        if starter.is_root() {
            open_to_group(folder, command.gid)?;
        }
        let control = control::bind(&command.control)?;
        Ok(Self {
            tables,
            watch,
            control,
            predecessor,
            inherited,
            starter,
            lock,
        })
    }

    /// Gives up all privileges, serves until somebody says stop, and drains.
    async fn serve(self, command: &Command, parent: &mut Parent) -> Result<(), StartError> {
        let control = UnixListener::from_std(self.control).map_err(system("use the socket"))?;
        let terminate = signal(SignalKind::terminate()).map_err(system("handle SIGTERM"))?;
        let tables = Rc::new(self.tables);
        let (uid, gid) = (command.uid, command.gid);
        let landlock = confine(&Confinement {
            uid,
            gid,
            readable: tables.folder(),
        })?;
        tables.reload();
        let service = Rc::new(Service::new(Rc::clone(&tables)));
        let listeners = Rc::new(Listeners::new(Rc::clone(&service)));
        for (network, sockets) in self.inherited {
            listeners.listen(network, sockets)?;
        }
        let stop = Stop::default();
        spawn_local(follow(self.watch, Rc::clone(&tables)));
        spawn_local(stop_at(terminate, stop.clone()));
        let server = Rc::new(Server {
            starter: self.starter,
            landlock,
            tables,
            service: Rc::clone(&service),
            listeners: Rc::clone(&listeners),
            stop: stop.clone(),
        });
        spawn_local(server.run(control));
        if let Some(predecessor) = self.predecessor {
            relieve(predecessor);
        }
        drop(self.lock);
        tracing::info!(?landlock, "serving");
        parent.tell(&StartLine::Ready {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        stop.wait().await;
        listeners.close_all();
        if tokio::time::timeout(DRAIN_TIME, service.drained())
            .await
            .is_err()
        {
            tracing::warn!("stopping with queries in flight");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Keeps the tables as the file is.
async fn follow(watch: Watch, tables: Rc<Live>) {
    if let Err(error) = watch.run(|| tables.reload()).await {
        tracing::error!(%error, "changes of the tables are not noticed any more");
    }
}

async fn stop_at(mut signal: Signal, stop: Stop) {
    if signal.recv().await.is_some() {
        stop.set();
    }
}

/// Sends the predecessor home. Both serve the same sockets until it goes, so
/// nothing is lost should it not listen.
fn relieve(predecessor: Predecessor) {
    if let Err(error) = predecessor.stop() {
        tracing::warn!(error = causes::line(&error), "the old edge does not stop");
    }
}

/// Leaves hostd's session: its end, and its terminal's, are not ours.
fn new_session() -> Result<(), StartError> {
    match rustix::process::setsid() {
        // A process group's leader has been put apart by its parent already.
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(system("leave the session")(error)),
    }
}

/// One start at a time; the lock covers the start, not the life.
fn start_lock(control: &Path) -> Result<OwnedFd, StartError> {
    let mut path = control.as_os_str().to_owned();
    path.push(".lock");
    let file = File::create(PathBuf::from(path)).map_err(system("open the start lock"))?;
    flock(&file, FlockOperation::LockExclusive).map_err(system("take the start lock"))?;
    Ok(file.into())
}

/// Lets the confined edge into the folder of the tables, and nobody else.
fn open_to_group(folder: &Path, gid: u32) -> Result<(), StartError> {
    std::os::unix::fs::chown(folder, Some(0), Some(gid))
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o750)))
        .map_err(system("open the folder of the tables to the edge"))
}
