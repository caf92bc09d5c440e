//! `hostd serve`: builds the host, takes up its dynos, says where it
//! listens, and serves until it is told to end. Dynos live on.

use std::fs::{DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dyno_api::error::ApiError;
use dyno_api::token::Endpoint;
use dyno_failpoint::failpoint;
use dyno_images::{Jail, Store, StoreError};
use dyno_netns::{Config, choose_subnets};
use dyno_runtime::{cgroup, own_file};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::audit::Audit;
use crate::bundle;
use crate::config::{ConfigError, Serve};
use crate::drains::{self, Drains};
use crate::durable::DurableError;
use crate::edge::Edge;
use crate::events::Events;
use crate::facts::{self, HostFacts};
use crate::host::Host;
use crate::http::{self, Access, ListenError};
use crate::identity::{self, Identity, Subnets};
use crate::images;
use crate::logs;
use crate::metrics::Metrics;
use crate::network::{self, DefaultNetwork};
use crate::once::AtWork;
use crate::paths::Paths;
use crate::readiness::Pulse;
use crate::recovery;
use crate::registry::Registry;
use crate::remote::{Authority, AuthorityError, Remote, authority};
use crate::secrets::Secrets;
use crate::spare::Spares;
use crate::systemd::{self, activation, notify};
use crate::tokens::Tokens;
use crate::trash;
use crate::uids::{self, UidError, UidPool};
use crate::volumes::{self, Volumes};

/// Between two comparisons of the network with what it shall be.
const REPAIR: Duration = Duration::from_secs(5);

/// Why hostd cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The command line cannot be followed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Not root.
    #[error("hostd must run as root: it makes namespaces, mounts and links")]
    NotRoot,
    /// Another hostd has the folders.
    #[error("another hostd uses {0}")]
    Locked(PathBuf),
    /// A folder or file could not be used.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was done.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A state file could not be used.
    #[error(transparent)]
    Record(#[from] DurableError),
    /// No user ids could be had.
    #[error(transparent)]
    Uids(#[from] UidError),
    /// The machine's cgroups cannot be used.
    #[error("cannot use the cgroups of this machine")]
    Cgroups(#[from] cgroup::Error),
    /// The image store cannot be opened.
    #[error("cannot open the image store")]
    Images(#[from] StoreError),
    /// The network cannot be made.
    #[error("cannot make the network of dynos")]
    Network(#[from] dyno_netns::Error),
    /// The host's id or subnets are damaged.
    #[error("host.json is damaged")]
    Identity(#[from] dyno_netns::Invalid),
    /// A subnet in host.json does not parse.
    #[error("host.json names the subnet {0:?}")]
    Subnet(String),
    /// The dynos could not be taken up.
    #[error("cannot take up the dynos of this host")]
    Recovery(#[source] ApiError),
    /// Dynos are there still.
    #[error("{0} dynos are there still; remove them first: `dyno rm -f NAME`")]
    Dynos(usize),
    /// There is no socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The host cannot show who it is.
    #[error("cannot listen for clients from elsewhere")]
    Authority(#[from] AuthorityError),
}

pub(crate) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DaemonError + 'a {
    move |source| DaemonError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Serves until SIGTERM or SIGINT; SIGHUP has it read files of the machine anew.
///
/// # Errors
/// Why it could not begin to.
pub async fn serve(options: &Serve) -> Result<(), DaemonError> {
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let passed = activation::socket().map_err(failed("take", Path::new("the passed socket")))?;
    // Values of secrets pass through our memory: no core of it is dumped.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| failed("protect", Path::new("/proc/self"))(error.into()))?;
    if let Some(cgroup) = &options.cgroup {
        systemd::move_into(cgroup).map_err(failed("move into the cgroup", cgroup))?;
    }
    let paths = options.paths()?;
    let access = Access {
        group: options.group()?,
    };
    make_folders(&paths)?;
    let _locks = lock(&paths)?;
    for trash in [paths.trash(), paths.run_trash()] {
        trash::empty(&trash).map_err(failed("empty", &trash))?;
    }
    failpoint("recover.locked");
    let host = Arc::new(build(options, paths)?);
    // Before a dyno that ended meanwhile is removed with what it wrote last.
    failpoint("recover.built");
    drains::open(&host);
    recovery::take_up(&host)
        .await
        .map_err(DaemonError::Recovery)?;
    failpoint("recover.taken_up");
    tokio::spawn(volumes::let_go(host.clone()));
    let socket = options
        .socket
        .clone()
        .unwrap_or_else(|| host.paths.socket());
    let listener = match passed {
        Some(passed) => http::adopt(passed, &socket, access)?,
        None => http::bind(&socket, access)?,
    };
    let scraped = match options.metrics_listen {
        Some(address) => Some(http::bind_metrics(address)?),
        None => None,
    };
    let visited = match options.listen {
        Some(address) => Some(open_to_others(&host, address)?),
        None => None,
    };
    tracing::info!(socket = %socket.display(), host = host.identity.id, "hostd listens");
    let router = http::router(host.clone());
    let mut serving = JoinSet::new();
    serving.spawn(http::serve(listener, router.clone(), access));
    if let Some((listener, authority)) = visited {
        let gate = host.remote.gate.clone();
        serving.spawn(http::remote::serve(listener, authority, gate, router));
    }
    if let Some(listener) = scraped {
        serving.spawn(http::serve_metrics(listener, host.clone()));
    }
    serving.spawn(repair(host.clone()));
    serving.spawn(logs::compress::run(host.clone()));
    host.ready.store(true, Ordering::Relaxed);
    failpoint("recover.ready");
    if let Err(error) = notify::ready() {
        tracing::warn!(%error, "systemd cannot be told that hostd is ready");
    }
    tokio::spawn(notify::keep_alive(host.clone()));
    tokio::spawn(tidy_images(host.clone()));
    let ended = until_told(&host).await;
    if let Err(error) = notify::stopping() {
        tracing::warn!(%error, "systemd cannot be told that hostd ends");
    }
    serving.abort_all();
    volumes::end(&host).await;
    host.drains.save();
    ended.map_err(failed("listen for", Path::new("signals")))?;
    tracing::info!("hostd ends; dynos run on");
    Ok(())
}

/// The listener for clients from elsewhere, and what the host shows them.
fn open_to_others(
    host: &Host,
    address: SocketAddr,
) -> Result<(TcpListener, Arc<Authority>), DaemonError> {
    let listener = http::remote::bind(address)?;
    let address = http::remote::address(&listener)?;
    let uname = rustix::system::uname();
    let host_name = uname.nodename().to_string_lossy();
    let key = host.options.remote_key_file.clone();
    let id = &host.identity.id;
    let place = authority::Place {
        certificate: host.paths.authority(),
        key: key.unwrap_or_else(|| format!("/etc/dyno/remote-{id}.key").into()),
    };
    let names = authority::names(&host_name, address);
    let authority = Arc::new(Authority::open(&place, id, names)?);
    let endpoint = Endpoint {
        address: match address.ip().is_unspecified() {
            true => format!("{host_name}:{}", address.port()),
            false => address.to_string(),
        },
        ca: authority.pin(),
    };
    tracing::info!(%address, ca = endpoint.ca, "hostd listens for clients from elsewhere");
    host.remote.listens(endpoint, authority.clone());
    Ok((listener, authority))
}

async fn repair(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(REPAIR);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        host.repair().await;
    }
}

/// Makes the built-in image ready and removes content that nobody needs.
async fn tidy_images(host: Arc<Host>) {
    let _collecting = host.layers.write().await;
    let shared = host.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || images::collect(&shared)).await {
        tracing::error!(%error, "images could not be tidied");
    }
}

async fn until_told(host: &Arc<Host>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => reload(host).await,
        }
    }
}

async fn reload(host: &Arc<Host>) {
    let begun = notify::reloading();
    let shared = host.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || shared.reload()).await {
        tracing::error!(%error, "not everything was read anew");
    }
    if let Err(error) = begun.and_then(|()| notify::ready()) {
        tracing::warn!(%error, "systemd cannot be told that files were read anew");
    }
}

fn make_folders(paths: &Paths) -> Result<(), DaemonError> {
    let make = |path: &Path, mode| {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(failed("make", path))
    };
    make(&paths.state_dir, 0o700)?;
    make(&paths.dynos(), 0o700)?;
    make(&paths.drains(), 0o700)?;
    // The socket is inside: others may pass and see nothing.
    make(&paths.run_dir, 0o711)?;
    make(&paths.run_dynos(), 0o711)?;
    make(&paths.edge(), 0o750)?;
    for trash in [paths.trash(), paths.run_trash()] {
        make(&trash, 0o700)?;
    }
    Ok(())
}

/// How long a process that a killed hostd was just starting may keep its locks: it has
/// them until it executes its program.
const AFTERMATH: Duration = Duration::from_secs(1);

/// One hostd for each of the two folders, whatever the other one is; the
/// locks go with the process, and with those that it was about to start.
pub(crate) fn lock(paths: &Paths) -> Result<[File; 2], DaemonError> {
    let state = File::open(&paths.state_dir).map_err(failed("open", &paths.state_dir))?;
    let path = paths.lock();
    let run = File::create(&path).map_err(failed("make", &path))?;
    let deadline = Instant::now() + AFTERMATH;
    for (file, folder) in [(&state, &paths.state_dir), (&run, &paths.run_dir)] {
        while let Err(error) = flock(file, FlockOperation::NonBlockingLockExclusive) {
            match error {
                Errno::WOULDBLOCK if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Errno::WOULDBLOCK => return Err(DaemonError::Locked(folder.clone())),
                other => return Err(failed("lock", folder)(other.into())),
            }
        }
    }
    Ok([state, run])
}

fn build(options: &Serve, paths: Paths) -> Result<Host, DaemonError> {
    let binaries = options.binaries()?;
    let runtime = own_file::open(&binaries.runtime);
    let runtime = runtime.map_err(failed("open", &binaries.runtime))?;
    let mut identity = identity::load_or_create(&paths)?;
    let boot = identity::boot_id().map_err(failed("read", Path::new("boot_id")))?;
    let facts = HostFacts::read(&paths.state_dir).map_err(failed("read", Path::new("/proc")))?;
    let pool = UidPool::claim(Path::new(uids::CLAIMS), &identity, &paths.state_dir, &boot)?;
    let layout = cgroup::detect()?;
    // Monitors inherit it. To move each of them would cost 12 ms per start:
    // the kernel waits for a grace period of RCU.
    let own = rustix::process::getpid();
    cgroup::join(&layout, &bundle::monitors_cgroup(&identity.id), own)?;
    let jail = Jail {
        runtime: binaries.runtime.clone(),
        unpack: binaries.unpack.clone(),
        uid_base: pool.unpack(),
    };
    let images = Store::open(&paths.images(), jail)?;
    let network = DefaultNetwork::open(network_config(&paths, &mut identity)?)?;
    let edge = Edge::new(&binaries.edge, &paths.edge(), pool.edge());
    let audit = Audit::open(&paths.audit(), u64::from(options.audit_size) << 20);
    Ok(Host {
        audit: Arc::new(audit.map_err(failed("keep", &paths.audit()))?),
        drains: Drains::default(),
        started: Timestamp::now(),
        metrics: Metrics::default(),
        pulse: Pulse::default(),
        secrets: Secrets::new(&paths, &identity.id, options.secret_key_file.as_deref()),
        tokens: Tokens::open(paths.tokens()).map_err(failed("read", &paths.tokens()))?,
        remote: Remote::default(),
        volumes: Volumes::new(paths.volumes()),
        events: Events::open(&paths.sequence())?,
        layers: RwLock::new(()),
        registry: Mutex::new(Registry::new(pool)),
        at_work: AtWork::default(),
        ready: AtomicBool::new(false),
        dns: AtomicBool::new(false),
        publishing: Mutex::new(()),
        resolvers: Mutex::new(facts::resolvers()),
        paths,
        identity,
        facts,
        binaries,
        options: options.clone(),
        spares: Arc::new(Spares::new(runtime)),
        layout,
        images,
        network,
        edge,
    })
}

/// The network's subnets: chosen once, then the same for good.
pub(crate) fn network_config(
    paths: &Paths,
    identity: &mut Identity,
) -> Result<Config, DaemonError> {
    let host = identity.id.parse()?;
    let subnets = match identity.subnets.clone() {
        Some(subnets) => subnets,
        None => {
            let (four, six) = choose_subnets(host)?;
            let chosen = Subnets {
                ipv4: four.to_string(),
                ipv6: six.map(|six| six.to_string()),
            };
            identity.subnets = Some(chosen.clone());
            identity.save(paths)?;
            chosen
        }
    };
    let damaged = |text: &str| DaemonError::Subnet(text.to_owned());
    let subnet4 = subnets
        .ipv4
        .parse()
        .ok()
        .ok_or_else(|| damaged(&subnets.ipv4))?;
    let subnet6 = match &subnets.ipv6 {
        Some(text) => Some(text.parse().ok().ok_or_else(|| damaged(text))?),
        None => None,
    };
    Ok(Config {
        host,
        subnet4,
        subnet6,
        name: network::DEFAULT.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a process holds it that a killed hostd was about to start.
    #[test]
    fn a_lock_that_is_given_up_in_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            state_dir: folder.path().join("state"),
            run_dir: folder.path().join("run"),
        };
        make_folders(&paths).unwrap();
        let held = lock(&paths).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                drop(held);
            });
            let held = lock(&paths).unwrap();
            let refused = lock(&paths).unwrap_err();
            assert!(matches!(refused, DaemonError::Locked(state) if state == paths.state_dir));
            drop(held);
        });
    }
}
