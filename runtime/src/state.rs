//! What the OCI command line keeps on disk between its calls (OCI runtime.md, "State").
//!
//! `create`, `start`, `kill` and `delete` are processes of their own that share
//! nothing but `<root>/<id>/`. A lock is held for one operation, never for a
//! container's life.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Place};
use crate::container::Switches;
use crate::intel_rdt;
use crate::replace;
use crate::rootless;
use crate::spec::Bundle;

/// Why a container's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An id that could leave the state folder or confuse its readers.
    #[error(
        "{0:?} is not a container id: use letters, digits and _ + - . and begin with a letter or digit"
    )]
    Id(String),
    /// There is none of this id.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// There is one of this id already.
    #[error("container {0:?} exists already")]
    Exists(String),
    /// The state cannot be read or written.
    #[error("{what} {path}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// This user may not make the folder.
    #[error("make {path}: set XDG_RUNTIME_DIR, or give another folder with --root")]
    Forbidden {
        /// The folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file does not hold a state.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
}

/// Version of [`Record`].
const VERSION: u32 = 2;

/// The folder of all containers of one `--root`.
#[derive(Debug)]
pub struct StateRoot(PathBuf);

/// A container's own folder, locked while this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Record {
    /// Format version.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// Absolute path of its bundle.
    pub bundle: PathBuf,
    /// Absolute path of its root's folder.
    pub rootfs: PathBuf,
    /// Version of the spec that its configuration is of.
    pub oci_version: String,
    /// When it was created.
    pub created: Timestamp,
    /// Who created it.
    pub owner: u32,
    /// Annotations of its configuration.
    pub annotations: HashMap<String, String>,
    /// Its first process; 0 while there is none yet.
    pub pid: i32,
    /// When that process started, in clock ticks since boot
    /// (`/proc/pid/stat`, field 22): tells it from a later one of the same id.
    pub start_time: u64,
    /// Its `linux.cgroupsPath`; empty where it has none.
    pub cgroups_path: PathBuf,
    /// Who makes its cgroup.
    #[serde(default)]
    pub driver: Driver,
    /// How it differs from the usual.
    #[serde(default)]
    pub switches: Switches,
    /// The folders of its cgroup; none before all of them are made.
    pub cgroup: cgroup::Record,
    /// Its class of cache and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<intel_rdt::Record>,
}

/// Who makes a container's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We do: its folders.
    #[default]
    Folders,
    /// We do, where it is delegated to us; there may be none.
    Delegated,
    /// systemd does: a scope; the user's systemd where the owner is not root.
    Systemd,
}

/// Where a container is in its life (OCI runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Set up, its program not yet executed.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl StateRoot {
    /// The states below `path`, which is made when a container is.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the folder of a new container.
    ///
    /// # Errors
    /// [`StateError::Id`], [`StateError::Exists`], or a failure to make it.
    pub fn create(&self, id: &str) -> Result<StateDir, StateError> {
        let path = self.path_of(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        if !self.0.is_dir() {
            let made = builder.recursive(true).create(&self.0);
            made.map_err(not_made(&self.0))?;
            // XDG: in a user's run folder what is not sticky may be cleaned away.
            let sticky = fs::set_permissions(&self.0, Permissions::from_mode(0o1700));
            sticky.map_err(io_error("make", &self.0))?;
        }
        match builder.recursive(false).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::Exists(id.to_owned()));
            }
            made => made.map_err(not_made(&path))?,
        }
        StateDir::lock(path, id)
    }

    /// Opens the folder of a container that exists.
    ///
    /// # Errors
    /// [`StateError::Id`], [`StateError::NotFound`], or a failure to open it.
    pub fn open(&self, id: &str) -> Result<StateDir, StateError> {
        let path = self.path_of(id)?;
        if !path.is_dir() {
            return Err(StateError::NotFound(id.to_owned()));
        }
        StateDir::lock(path, id)
    }

    /// The ids of all containers, sorted. There are none where there is no folder.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn ids(&self) -> Result<Vec<String>, StateError> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io_error("list", &self.0))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(io_error("list", &self.0))?.file_name();
            ids.extend(
                name.into_string()
                    .ok()
                    .filter(|id| self.path_of(id).is_ok()),
            );
        }
        ids.sort();
        Ok(ids)
    }

    fn path_of(&self, id: &str) -> Result<PathBuf, StateError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        let begins = id.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && id.len() <= 255 && id.chars().all(allowed) {
            Ok(self.0.join(id))
        } else {
            Err(StateError::Id(id.to_owned()))
        }
    }
}

impl StateDir {
    fn lock(path: PathBuf, id: &str) -> Result<Self, StateError> {
        // Not flock(2): that lock would live on in a container's init, which
        // gets a copy of every descriptor when it is cloned.
        let file = path.join("lock");
        let lock = match File::create(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::NotFound(id.to_owned()));
            }
            made => made.map_err(io_error("open", &file))?,
        };
        let locked = rustix::io::retry_on_intr(|| fcntl_lock(&lock, FlockOperation::LockExclusive));
        locked.map_err(|errno| io_error("lock", &file)(errno.into()))?;
        // Whoever held it before may have deleted the container.
        let links = lock.metadata().map_err(io_error("look at", &file))?.nlink();
        if links == 0 {
            return Err(StateError::NotFound(id.to_owned()));
        }
        Ok(Self { path, _lock: lock })
    }

    /// The FIFO that starts the container: there as long as it is only created.
    pub fn start_fifo(&self) -> PathBuf {
        self.path.join("start")
    }

    /// The configuration that it was created with, whatever becomes of the bundle's.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Reads `state.json`.
    ///
    /// # Errors
    /// [`StateError`] when it is missing or damaged.
    pub fn read(&self) -> Result<Record, StateError> {
        let path = self.path.join("state.json");
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        Record::parse(&text).map_err(|source| StateError::Parse { path, source })
    }

    /// Replaces `state.json`. It lives on a tmpfs, so nothing is synced.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, record: &Record) -> Result<(), StateError> {
        let path = self.path.join("state.json");
        let temporary = self.path.join("state.json.new");
        let text = serde_json::to_vec(record).map_err(|source| StateError::Parse {
            path: path.clone(),
            source,
        })?;
        File::create(&temporary)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| replace::put_in_place(&temporary, &path))
            .map_err(io_error("write", &path))
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn remove(self) -> Result<(), StateError> {
        fs::remove_dir_all(&self.path).map_err(io_error("remove", &self.path))
    }
}

impl Status {
    /// As the spec spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Record {
    /// Reads what [`StateDir::write`] wrote, of this version alone. A negative
    /// process id is damage: to kill(2) it would mean a group of processes, or all
    /// of them.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(text)?;
        if version != VERSION {
            let other = format!("version is {version}, expected {VERSION}: another dyno-runtime's");
            return Err(serde::de::Error::custom(other));
        }
        let record: Self = serde_json::from_slice(text)?;
        if record.pid < 0 {
            let damage = format!("pid is {}, expected one of a process", record.pid);
            return Err(serde::de::Error::custom(damage));
        }
        Ok(record)
    }

    /// The record of a container of which nothing is made yet.
    pub fn new(id: &str, bundle: &Bundle) -> Self {
        let linux = bundle.spec().linux().as_ref();
        let cgroups_path = linux.and_then(|linux| linux.cgroups_path().clone());
        Self {
            version: VERSION,
            id: id.to_owned(),
            bundle: bundle.dir().to_owned(),
            rootfs: bundle.rootfs(),
            oci_version: bundle.spec().version().clone(),
            created: Timestamp::now(),
            owner: rootless::caller(),
            annotations: bundle.spec().annotations().clone().unwrap_or_default(),
            pid: 0,
            start_time: 0,
            cgroups_path: cgroups_path.unwrap_or_default(),
            driver: Driver::default(),
            switches: Switches::default(),
            cgroup: cgroup::Record::default(),
            intel_rdt: None,
        }
    }

    /// The same, made in this way.
    #[must_use]
    pub fn made_by(self, driver: Driver, switches: Switches) -> Self {
        Self {
            driver,
            switches,
            ..self
        }
    }

    /// Where its cgroup is made.
    ///
    /// # Errors
    /// When its path has not the form that the driver wants, or the hierarchies
    /// cannot be found.
    pub fn place(&self) -> cgroup::Result<Place> {
        let path = Some(self.cgroups_path.as_path());
        match self.driver {
            Driver::Folders => Place::folder(path, &self.id),
            Driver::Delegated => Place::delegated(path, &self.id),
            Driver::Systemd => Place::unit(path, &self.id, self.owner != 0, &self.annotations),
        }
    }

    /// The same with its cgroup.
    #[must_use]
    pub fn with_cgroup(self, cgroup: cgroup::Record) -> Self {
        Self { cgroup, ..self }
    }

    /// The same with its class of cache and memory bandwidth.
    #[must_use]
    pub fn with_intel_rdt(self, intel_rdt: Option<intel_rdt::Record>) -> Self {
        Self { intel_rdt, ..self }
    }

    /// The same with its first process.
    ///
    /// # Errors
    /// When the process cannot be found.
    pub fn with_init(self, pid: Pid) -> io::Result<Self> {
        Ok(Self {
            pid: pid.as_raw_nonzero().get(),
            start_time: start_time(pid)?.ok_or(io::ErrorKind::NotFound)?,
            ..self
        })
    }

    /// Its first process, if that still runs. The descriptor is opened before
    /// the start time is compared, so that it can't be another's.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn init(&self) -> io::Result<Option<rustix::fd::OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(None);
        };
        Ok((start_time(pid)? == Some(self.start_time)).then_some(pidfd))
    }

    /// Where it is in its life.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn status(&self, dir: &StateDir) -> io::Result<Status> {
        Ok(match self.init()? {
            None => Status::Stopped,
            Some(_) if self.cgroup.is_frozen() => Status::Paused,
            Some(_) if dir.start_fifo().exists() => Status::Created,
            Some(_) => Status::Running,
        })
    }

    /// Its first process' id, where it has one now.
    pub fn pid_in(&self, status: Status) -> i32 {
        match status {
            Status::Stopped => 0,
            _ => self.pid,
        }
    }

    /// The state as hooks and callers get it (OCI runtime.md, "State").
    pub fn oci_state(&self, status: &str, pid: i32) -> serde_json::Value {
        serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.annotations,
        })
    }
}

/// When a process started; `None` if there is no such process or it is a zombie.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn start_time(pid: Pid) -> io::Result<Option<u64>> {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        read => read?,
    };
    // The command, in parentheses, may hold spaces and parentheses itself.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    let start_time = fields.nth(18).and_then(|field| field.parse().ok());
    if matches!(state, "Z" | "X") {
        Ok(None)
    } else {
        Ok(start_time)
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn not_made(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => StateError::Forbidden {
            path: path.to_owned(),
            source,
        },
        _ => io_error("make", path)(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_leaves_the_state_folder() {
        let root = StateRoot::new(PathBuf::from("/nowhere"));
        for bad in ["", ".", "..", "../x", "a/b", "-a", ".a", "a b", "ä"] {
            assert!(matches!(root.path_of(bad), Err(StateError::Id(_))), "{bad}");
        }
        assert!(root.path_of("web-1.2_x+y").is_ok());
    }

    fn text(version: u32, pid: i32) -> String {
        format!(
            r#"{{"version":{version},"id":"x","bundle":"/b","rootfs":"/b/rootfs","ociVersion":"1.2.0",
            "created":"2026-01-01T00:00:00Z","owner":0,"annotations":{{}},"pid":{pid},"startTime":1,
            "cgroupsPath":"","cgroup":{}}}"#,
            serde_json::to_value(cgroup::Record::default()).unwrap()
        )
    }

    #[test]
    fn a_damaged_process_id_is_no_process_and_no_group_of_them() {
        for pid in [-1, -4711, i32::MIN] {
            let error = Record::parse(text(VERSION, pid).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("pid"), "{error}");
        }
        let record = Record::parse(text(VERSION, i32::MAX).as_bytes()).unwrap();
        assert!(record.init().unwrap().is_none());
    }

    #[test]
    fn the_record_of_another_version_is_not_believed() {
        for version in [0, VERSION - 1, VERSION + 1] {
            let error = Record::parse(text(version, 1).as_bytes()).unwrap_err();
            let told = format!("version is {version}, expected {VERSION}");
            assert!(error.to_string().contains(&told), "{error}");
        }
    }

    #[test]
    fn who_waited_for_a_container_that_is_deleted_meanwhile_finds_none() {
        let folder = std::env::temp_dir().join(format!("dyno-state-{}", std::process::id()));
        let root = StateRoot::new(folder.clone());
        let state = root.create("x").unwrap();
        let lock = File::create(state.path.join("lock")).unwrap();
        assert_ne!(lock.metadata().unwrap().nlink(), 0);
        state.remove().unwrap();
        assert_eq!(
            lock.metadata().unwrap().nlink(),
            0,
            "the sign that is looked for"
        );
        assert!(matches!(root.open("x"), Err(StateError::NotFound(_))));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn our_own_start_time_is_found_and_an_impossible_one_is_not() {
        let own = rustix::process::getpid();
        assert!(start_time(own).unwrap().is_some());
        assert_eq!(start_time(Pid::from_raw(i32::MAX).unwrap()).unwrap(), None);
    }
}
