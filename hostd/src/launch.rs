//! From a record to a created container: bundle, monitor, network.
//!
//! ```text
//! files ─▶ dyno-runtime monitor ─▶ created ─▶ network namespace plumbed ─▶ watched
//! ```
//! Whatever was made is taken down again where a later step fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dyno_api::dyno::{DynoSpec, LogMode, LogOptions, Mount, NetMode, RestartPolicy};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_failpoint::failpoint;
use dyno_images::identity::{Accounts, Identity, IdentityError};
use dyno_runtime::cgroup::Layout;
use dyno_runtime::monitor::protocol as monitor_protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::Child;
use tokio::task::spawn_blocking;

use crate::bundle::{self, Inputs, files};
use crate::desired::Record;
use crate::durable::{self, Survives, from_io, from_io_at, internal};
use crate::health::plan::Plan;
use crate::host::{Host, blocking};
use crate::layer::{self, make_folder};
use crate::logs;
use crate::monitor::{self, Watch};
use crate::network::Place;
use crate::paths::DynoPaths;
use crate::{admission, cgroups, secrets};

/// The grace of a stop where nothing else was asked for.
pub const DEFAULT_GRACE_MS: u64 = 10_000;

/// A monitor that is listened to.
#[derive(Debug)]
pub struct Running {
    /// Its statuses to come.
    pub watch: Watch,
    /// The latest one.
    pub last: monitor_protocol::Status,
    /// Host pid of the monitor.
    pub pid: u32,
    process: Arc<OwnedFd>,
}

impl Running {
    /// Listens to the monitor of this dyno.
    ///
    /// # Errors
    /// When there is none, or it does not answer.
    pub async fn open(paths: &DynoPaths, pid: u32) -> Result<Self, ApiError> {
        let (last, watch) = Watch::open(&paths.monitor_socket()).await?;
        let process = pidfd(pid).map_err(|error| from_io("cannot watch the monitor", &error))?;
        Ok(Self {
            watch,
            last,
            pid,
            process,
        })
    }

    /// The monitor of this dyno that lives and does not answer now, perhaps
    /// because it is stopped; `last` is what it recorded. `None` where this
    /// process is none.
    pub fn unheard(paths: &DynoPaths, pid: u32, last: &monitor_protocol::Status) -> Option<Self> {
        let process = pidfd(pid).ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).skip(1);
        let is_its_own = words.next() == Some(b"monitor")
            && words.next() == Some(paths.run.as_os_str().as_bytes());
        if !is_its_own {
            return None;
        }
        let watched = process.clone();
        let lives = move || {
            let now = Timespec::default();
            let ended = poll(&mut [PollFd::new(&*watched, PollFlags::IN)], Some(&now));
            matches!(ended, Ok(0))
        };
        Some(Self {
            watch: Watch::once_it_answers(paths.monitor_socket(), lives),
            last: last.clone(),
            pid,
            process,
        })
    }

    /// Whether it has answered; what it is asked before waits for it.
    pub fn answers(&self) -> bool {
        self.watch.is_open()
    }

    /// Whether the monitor process ends within this time.
    pub async fn ends_within(&self, limit: Duration) -> bool {
        let process = self.process.clone();
        let waited = spawn_blocking(move || {
            let limit = Timespec::try_from(limit).ok();
            poll(&mut [PollFd::new(&*process, PollFlags::IN)], limit.as_ref())
        });
        matches!(waited.await, Ok(Ok(ready)) if ready > 0)
    }

    /// Kills the monitor; its dyno dies with it.
    pub fn kill(&self) {
        match pidfd_send_signal(&*self.process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(%error, pid = self.pid, "cannot kill the monitor"),
        }
    }
}

fn pidfd(pid: u32) -> io::Result<Arc<OwnedFd>> {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Arc::new(pidfd_open(raw, PidfdFlags::empty())?))
}

/// Makes the folders that a dyno keeps for its whole life.
///
/// # Errors
/// What the file system says.
pub fn make_state(host: &Host, record: &Record) -> Result<(), ApiError> {
    let own = host.paths.dyno(&record.id);
    let is_new = !own.state.exists();
    make_folder(&own.state, 0o700)?;
    // The record is durable in its folder; so must be the folder's own name.
    if is_new && record.survives() == Survives::PowerCut {
        let dynos = host.paths.dynos();
        File::open(&dynos)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| from_io(&format!("cannot sync {}", dynos.display()), &error))?;
    }
    layer::make(&own, record.spec.limits.disk_bytes)?;
    host.volumes.make_missing(&record.spec, record.survives())
}

/// Creates the container of a dyno: attachable, not started; from a checkpoint, where
/// one is given.
///
/// # Errors
/// Why not; nothing runs and nothing is plumbed then.
pub async fn prepare(
    host: &Arc<Host>,
    record: &Record,
    from: Option<monitor_protocol::RestoreConfig>,
) -> Result<Running, ApiError> {
    let own = host.paths.dyno(&record.id);
    let (shared, wanted) = (host.clone(), record.clone());
    blocking(move || write_bundle(&shared, &wanted, from)).await?;
    failpoint("start.bundle");
    let mut spawned = monitor::spawn(&host.spares, &own.run).await?;
    failpoint("start.spawned");
    let pid = spawned.monitor.id().unwrap_or_default();
    let plumbed = match plumb(host, record, spawned.init).await {
        Ok(()) => {
            failpoint("start.plumbed");
            Running::open(&own, pid).await
        }
        Err(error) => Err(error),
    };
    failpoint("start.watched");
    if plumbed.is_err() {
        undo(host, record, &mut spawned.monitor).await;
    }
    // hostd is its parent as long as it lives: no zombie stays.
    tokio::spawn(async move { spawned.monitor.wait().await });
    plumbed
}

/// Creates the container of a dyno that rests, off the network: it is not to be
/// started, and shows the dyno's files until it is given to [`undo`].
///
/// # Errors
/// Why not; nothing runs then.
pub async fn show(host: &Arc<Host>, record: &Record) -> Result<Child, ApiError> {
    let (shared, mut wanted) = (host.clone(), record.clone());
    // Who looks at files that rest is shown no secret, nor held up by a missing one.
    wanted.spec.secrets.clear();
    wanted.spec.secret_env.clear();
    blocking(move || write_bundle(&shared, &wanted, None)).await?;
    let run = host.paths.dyno(&record.id).run;
    Ok(monitor::spawn(&host.spares, &run).await?.monitor)
}

/// Kills a monitor whose dyno cannot be completed, and removes the cgroup,
/// which a killed monitor leaves.
pub async fn undo(host: &Arc<Host>, record: &Record, monitor: &mut Child) {
    if let Err(error) = monitor.kill().await {
        tracing::warn!(%error, dyno = %record.id, "cannot kill the monitor");
    }
    let (host, id) = (host.clone(), record.id.clone());
    let removed = blocking(move || {
        cgroups::kill(&host.layout, &host.identity.id, &id).map_err(|error| internal(&error))
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, dyno = %record.id, "the cgroup of a dyno that was not started stays");
    }
}

async fn plumb(host: &Host, record: &Record, init: u32) -> Result<(), ApiError> {
    match (record.spec.net, place(record)) {
        (NetMode::Default, Some(place)) => {
            let plan = Plan::of(&record.spec, &record.image.config);
            let in_service = !plan.gates_service();
            host.network.attach(place, init, in_service).await?;
            host.publish_names();
            Ok(())
        }
        (NetMode::Default, None) => Err(ApiError::new(
            ErrorKind::Internal,
            format!("dyno {} has no address", record.id),
        )),
        (NetMode::None | NetMode::Host, _) => Ok(()),
    }
}

/// Where a dyno is on the default network.
pub fn place(record: &Record) -> Option<Place> {
    Some(Place {
        id: record.id.clone(),
        name: record.name.clone(),
        service: record.spec.service.clone(),
        ipv4: record.ipv4?,
        ipv6: record.ipv6,
        ports: record.ports.clone(),
    })
}

/// Who the command of this spec runs as.
///
/// # Errors
/// When its image does not know the user.
pub fn identity(host: &Host, record: &Record, user: &str) -> Result<Identity, ApiError> {
    let upper = host.paths.dyno(&record.id).upper();
    let layers: Vec<_> = std::iter::once(upper)
        .chain(record.image.folders.iter().cloned())
        .collect();
    let found = Accounts::of_layers(&layers).and_then(|accounts| accounts.identity(user));
    found.map_err(|error| match &error {
        IdentityError::Read { .. } => internal(&error),
        _ => ApiError::new(ErrorKind::Invalid, durable::chain(&error)),
    })
}

fn write_bundle(
    host: &Host,
    record: &Record,
    from: Option<monitor_protocol::RestoreConfig>,
) -> Result<(), ApiError> {
    let own = host.paths.dyno(&record.id);
    // Whoever changes a volume looks whether there is a bundle.
    host.volumes.unless_busy(&record.spec, || {
        durable::remove_tree(&own.run)
            .map_err(|error| from_io(&format!("cannot remove {}", own.run.display()), &error))?;
        make_folder(&own.rootfs(), 0o711)
    })?;
    make_folder(&own.run.join("files"), 0o711)?;
    failpoint("start.folders");
    make_state(host, record)?;
    let user = &record.spec.user;
    let user = user.as_ref().unwrap_or(&record.image.config.user);
    let user = identity(host, record, user)?;
    let config = build(host, record, &user)?;
    let mut monitor = monitor_config(host, record)?;
    monitor.restore = from;
    secrets::give(host, record, &user)?;
    failpoint("start.secrets");
    // Variables are often secrets: root's alone.
    let json = |bytes: serde_json::Result<Vec<u8>>| bytes.map_err(|error| internal(&error));
    write(&own.config(), &json(serde_json::to_vec(&config))?, 0o600)?;
    write(
        &own.monitor_config(),
        &json(serde_json::to_vec(&monitor))?,
        0o600,
    )?;
    write_small_files(
        host,
        record,
        config.hostname().as_deref().unwrap_or_default(),
    )
}

fn build(
    host: &Host,
    record: &Record,
    user: &Identity,
) -> Result<oci_spec::runtime::Spec, ApiError> {
    let spec = &record.spec;
    admission::check_sources(spec, &host.paths)?;
    let devices = admission::devices(spec)?;
    Ok(bundle::build(&Inputs {
        record,
        user,
        devices: &devices,
        idmapped: &idmapped_sources(spec),
        facts: &host.facts,
        paths: &host.paths,
        host: &host.identity.id,
        unified: matches!(host.layout, Layout::Unified { .. }),
    })?)
}

fn idmapped_sources(spec: &DynoSpec) -> Vec<String> {
    spec.mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Bind { source, .. } if admission::idmappable(Path::new(source)) => {
                Some(source.clone())
            }
            _ => None,
        })
        .collect()
}

fn monitor_config(host: &Host, record: &Record) -> Result<monitor_protocol::Config, ApiError> {
    let spec = &record.spec;
    Ok(monitor_protocol::Config {
        version: monitor_protocol::VERSION,
        id: record.id.to_string(),
        stdin: spec.stdin,
        restart: restart_policy(spec.restart),
        stop_signal: bundle::stop_signal(spec, &record.image.config)?,
        stop_grace_ms: spec.stop_grace_ms.unwrap_or(DEFAULT_GRACE_MS),
        log: Some(log_config(&host.paths.dyno(&record.id), &spec.log)),
        notify: spec.health.notify.then(|| {
            let start = Plan::of(spec, &record.image.config).start_timeout;
            monitor_protocol::NotifyConfig {
                start_timeout_ms: u64::try_from(start.as_millis()).ok(),
                watchdog_ms: spec.health.watchdog_ms,
            }
        }),
        init: spec.init,
        env_file: (!spec.secret_env.is_empty()).then(|| host.paths.dyno(&record.id).secret_env()),
        restore: None,
        // It is born in hostd's own, see `daemon`.
        monitors_cgroup: None,
    })
}

/// A restart policy in the monitor's words.
pub fn restart_policy(policy: RestartPolicy) -> monitor_protocol::RestartPolicy {
    match policy {
        RestartPolicy::No => monitor_protocol::RestartPolicy::No,
        RestartPolicy::OnFailure { max_retries } => {
            monitor_protocol::RestartPolicy::OnFailure { max_retries }
        }
        RestartPolicy::Always => monitor_protocol::RestartPolicy::Always,
    }
}

fn log_config(own: &DynoPaths, options: &LogOptions) -> monitor_protocol::LogConfig {
    let files = options.max_files.unwrap_or(logs::MAX_FILES);
    monitor_protocol::LogConfig {
        path: own.log(),
        max_bytes: options.max_bytes.unwrap_or(logs::MAX_BYTES),
        keep: files.saturating_sub(1),
        max_age_ms: options.max_age_ms,
        mode: match options.mode {
            LogMode::Block => monitor_protocol::LogMode::Block,
            LogMode::Drop => monitor_protocol::LogMode::Drop,
        },
    }
}

fn write_small_files(host: &Host, record: &Record, hostname: &str) -> Result<(), ApiError> {
    let own = host.paths.dyno(&record.id);
    let addresses: Vec<IpAddr> = record
        .ipv4
        .map(IpAddr::V4)
        .into_iter()
        .chain(record.ipv6.map(IpAddr::V6))
        .collect();
    let resolv_conf = match record.spec.net {
        NetMode::Default => {
            let app = record.spec.service.as_ref().map(|service| &service.app);
            files::resolv_conf(&host.network.gateways(), &files::search(app))
        }
        NetMode::None => String::new(),
        NetMode::Host => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    write(
        &own.file("hosts"),
        files::hosts(hostname, &addresses).as_bytes(),
        0o644,
    )?;
    for (number, file) in record.spec.config_files.iter().enumerate() {
        let content = file.content.as_deref().unwrap_or_default();
        let path = own.config_file(number);
        write(&path, content.as_bytes(), 0o600)?;
        let owner = Some(record.uid_base);
        chown(&path, owner, owner)
            .and_then(|()| {
                let mode = file.mode.unwrap_or(0o444);
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            })
            .map_err(|error| from_io(&format!("cannot give {}", file.target), &error))?;
    }
    write(&own.file("resolv.conf"), resolv_conf.as_bytes(), 0o644)?;
    write(
        &own.file("hostname"),
        format!("{hostname}\n").as_bytes(),
        0o644,
    )
}

/// A file of this boot: nothing reads it before the monitor that is started next.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ApiError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| from_io_at("cannot write", path, &error))
}
