//! Dynos as the API describes and shows them.

mod change;
mod limit;
mod log;
mod service;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use change::{Change, ChangeKind};
pub use limit::LimitRequest;
pub use log::{LogMode, LogOptions};
pub use service::Service;

use crate::health::{FailedCheck, Health, HealthState};
use crate::name::{DynoId, DynoName};
use crate::secret::{ConfigFile, SecretFile, SecretName};

/// What shall run: the body of `POST /v1/dynos`, kept as desired state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DynoSpec {
    /// The name; made from the image's when absent.
    pub name: Option<DynoName>,
    /// The service of an app that it is a copy of; it is on its own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// Image reference, or `host` for the built-in image.
    pub image: String,
    /// `os/architecture[/variant]`; the host's own when absent.
    pub platform: Option<String>,
    /// Replaces the image's entrypoint; an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments; the image's own command when empty.
    pub command: Vec<String>,
    /// Environment variables, over the image's own.
    pub env: BTreeMap<String, String>,
    /// Labels: free, never interpreted.
    pub labels: BTreeMap<String, String>,
    /// `user[:group]`, names or numbers; the image's own when absent.
    pub user: Option<String>,
    /// Working directory; the image's own when absent.
    pub workdir: Option<String>,
    /// Host name inside; the dyno's name when absent.
    pub hostname: Option<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep standard input open for attached clients.
    pub stdin: bool,
    /// Give it an init as its first process: its command is that one's child, is sent
    /// the signals, and orphans are reaped. No file of the image is needed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Remove it once it has ended, or where nobody attaches to it or starts
    /// it for half a minute.
    pub rm: bool,
    /// Make the root file system read-only.
    pub read_only: bool,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Dynos that have to be there before it is started, by request or at boot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Dependency>,
    /// The higher, the earlier it is started at boot; then the older, the earlier.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// How it is found out whether it works.
    #[serde(skip_serializing_if = "Health::is_unset")]
    pub health: Health,
    /// Signal that asks it to end; the image's own, else SIGTERM, when absent.
    pub stop_signal: Option<String>,
    /// Milliseconds between that signal and the kill of the whole cgroup.
    pub stop_grace_ms: Option<u64>,
    /// Which network it joins.
    pub net: NetMode,
    /// Ports reachable from outside.
    pub ports: Vec<PortMapping>,
    /// Mounts: volumes, host folders, tmpfs.
    pub mounts: Vec<Mount>,
    /// Bytes of `/dev/shm`; 64 MiB when absent.
    pub shm_size_bytes: Option<u64>,
    /// Limits.
    pub limits: Limits,
    /// Resource limits of setrlimit(2), by lower-case name: `nofile`, `core`, …
    pub ulimits: BTreeMap<String, Ulimit>,
    /// What it may do.
    pub security: Security,
    /// Device files of the host given to it.
    pub devices: Vec<Device>,
    /// Secrets that it is given as files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretFile>,
    /// Secrets that it is given as environment variables, by variable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, SecretName>,
    /// Files of its own that are no secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config_files: Vec<ConfigFile>,
    /// How its output is kept.
    // A hostd of before reads records in which nothing of it was asked for.
    #[serde(skip_serializing_if = "LogOptions::is_default")]
    pub log: LogOptions,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(priority: &i32) -> bool {
    *priority == 0
}

/// A dyno that another one comes after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// Its name.
    pub name: DynoName,
    /// How far it has to be.
    #[serde(default)]
    pub until: Until,
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Until::Started => write!(f, "{}", self.name),
            Until::Ready => write!(f, "{}:ready", self.name),
        }
    }
}

/// How far a dyno has to be for those that come after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Its command runs.
    #[default]
    Started,
    /// It is in service: started, and its checks say so where it has any.
    Ready,
}

/// What happens when a dyno ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "policy", deny_unknown_fields)]
pub enum RestartPolicy {
    /// It stays ended.
    #[default]
    No,
    /// Started again after a failure, at most `max_retries` times in a row when given.
    OnFailure {
        /// Failures in a row after which it stays ended; without limit when absent.
        #[serde(default)]
        max_retries: Option<u32>,
    },
    /// Started again unless stopped by request, and at boot.
    Always,
}

/// Which network a dyno joins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetMode {
    /// The default network: an address of its own, NAT, DNS.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's own network namespace: no isolation at all.
    Host,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortMapping {
    /// Host address to publish on; all when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Port on the host; a free one is chosen and shown when absent.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// Port inside the dyno.
    pub dyno_port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Transport protocol of a port.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Something mounted into a dyno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Mount {
    /// A named volume, made when missing, that outlives the dyno.
    Volume {
        /// The volume's name.
        name: DynoName,
        /// Absolute path inside the dyno.
        target: String,
        /// The dyno cannot write to it.
        #[serde(default)]
        read_only: bool,
    },
    /// A folder or file of the host.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// Absolute path inside the dyno.
        target: String,
        /// The dyno cannot write to it.
        #[serde(default)]
        read_only: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Absolute path inside the dyno.
        target: String,
        /// Bytes; 64 MiB when absent.
        #[serde(default)]
        size_bytes: Option<u64>,
    },
}

/// Limits; what is absent is not limited, except `pids`, which has a default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of memory (cgroup v2 `memory.max`), swap not included.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU (`cpu.max`).
    pub cpu_millis: Option<u32>,
    /// Processes and threads (`pids.max`); 4096 when absent.
    pub pids: Option<u32>,
    /// Reading and writing of the disk that the host's state is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<IoLimits>,
    /// Bytes that what it writes to its own `/` takes up on disk; volumes do not count.
    /// For file systems with quotas of projects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// What a dyno may have of a disk each second (`io.max`); without limit what is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IoLimits {
    /// Bytes read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// Bytes written. Where the kernel limits by cgroup v1, of what is written past
    /// the page cache only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<u64>,
    /// Reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_ops: Option<u64>,
    /// Writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_ops: Option<u64>,
}

/// Soft and hard value of one resource limit; `u64::MAX` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// What a dyno may do beyond the safe defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Capabilities to add, `NET_ADMIN` or `CAP_NET_ADMIN`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop; `ALL` drops every one.
    pub cap_drop: Vec<String>,
    /// Let setuid programs and file capabilities gain privileges.
    pub allow_new_privileges: bool,
}

/// A device file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Path on the host.
    pub source: String,
    /// Path inside; the same when absent.
    #[serde(default)]
    pub target: Option<String>,
    /// `r`, `w`, `m` in any combination; `rw` when absent.
    #[serde(default)]
    pub access: Option<String>,
}

/// One dyno: what was asked for, and how it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dyno {
    /// Its identity.
    pub id: DynoId,
    /// Its name.
    pub name: DynoName,
    /// What was asked for, defaults filled in.
    pub spec: DynoSpec,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// How it is now.
    pub status: DynoStatus,
}

/// Crashes in a row from which on a dyno that waits is in a crash loop.
pub const CRASH_LOOP: u32 = 5;

/// How a dyno is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DynoStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// Host pid of its first process, while it runs.
    pub pid: Option<u32>,
    /// Host pid of its monitor.
    pub monitor_pid: Option<u32>,
    /// Its IPv4 address.
    #[schema(value_type = Option<String>)]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[schema(value_type = Option<String>)]
    pub ipv6: Option<Ipv6Addr>,
    /// Published ports with the host ports that were chosen.
    pub ports: Vec<PortMapping>,
    /// When its command was last started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started: Option<Timestamp>,
    /// How it last ended.
    pub exit: Option<ExitStatus>,
    /// How often it was started again since it was last started by request.
    pub restarts: u32,
    /// Runs in a row that ended before they were healthy, which takes 10 s;
    /// counted when a run ends.
    #[serde(default)]
    pub crashes: u32,
    /// In `backoff`: that many runs in a row have crashed that it will not
    /// work by itself, most likely ([`CRASH_LOOP`]).
    #[serde(default)]
    pub crash_loop: bool,
    /// In `backoff`: when it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_start: Option<Timestamp>,
    /// What its checks say; absent where it has none, or does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// The latest check that failed since it was last started by request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<FailedCheck>,
    /// What it last said about itself by `STATUS=`, see
    /// [`Health::notify`](crate::health::Health::notify).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_text: Option<String>,
    /// Why it is in this phase, where that needs saying.
    pub reason: Option<String>,
    /// All of its processes are held still, in whatever phase.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Entries of its log that were dropped, ever. Told of one dyno, absent in
    /// lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_dropped: Option<u64>,
}

/// The phases of a dyno's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It exists and has not been started.
    Created,
    /// It shall run, and waits for others to be there first; `reason` says whom.
    Waiting,
    /// Its command runs.
    Running,
    /// It ended and will be started again.
    Backoff,
    /// It was asked to end and has not yet.
    Stopping,
    /// It ended.
    Exited,
    /// Its monitor vanished; it was killed with it.
    Lost,
    /// It could not be started.
    Failed,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExitStatus {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: u8,
    /// The signal that ended it.
    pub signal: Option<u8>,
    /// It was killed because its memory limit was reached.
    pub oom: bool,
    /// The most bytes of memory that its group had in use since it was made,
    /// where it was killed for them and the kernel counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// `POST /v1/dynos/{id}/attach`, before the upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttachRequest {
    /// Forward standard input; one client at a time may.
    pub stdin: bool,
    /// Terminal size, rows and columns.
    pub size: Option<(u16, u16)>,
    /// Start the dyno once its streams are joined: nothing of it is missed.
    pub start: bool,
}

/// `POST /v1/dynos/{id}/exec`, before the upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment variables over the dyno's own.
    pub env: BTreeMap<String, String>,
    /// `user[:group]`; the dyno's own when absent.
    pub user: Option<String>,
    /// Working directory; the dyno's own when absent.
    pub workdir: Option<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Forward standard input.
    pub stdin: bool,
    /// Terminal size, rows and columns.
    pub size: Option<(u16, u16)>,
}

/// What a dyno uses, `GET /v1/dynos/{id}/stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stats {
    /// CPU time since its start, microseconds.
    pub cpu_usec: u64,
    /// Time it was held back by its CPU limit, microseconds.
    pub throttled_usec: u64,
    /// Memory in use, bytes.
    pub memory_bytes: u64,
    /// The most it has used, bytes.
    pub memory_peak_bytes: u64,
    /// Its memory limit, bytes.
    pub memory_max_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes received and sent on its network.
    pub net_rx_bytes: u64,
    /// Bytes sent.
    pub net_tx_bytes: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
    /// Time since its start in which something of it waited for a CPU, microseconds
    /// (`some` of its cgroup's pressure, PSI).
    pub cpu_stalled_usec: u64,
    /// Time in which something of it waited for memory, microseconds.
    pub memory_stalled_usec: u64,
    /// Time in which something of it waited for a block device, microseconds.
    pub io_stalled_usec: u64,
    /// Entries of its log that were dropped, ever.
    pub log_dropped: u64,
    /// Bytes on disk of what it has written to its own `/`; absent where the file system
    /// does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// How many these may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_max_bytes: Option<u64>,
}

/// One line of a dyno's output, `GET /v1/dynos/{id}/logs` (JSON lines).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// When it was read.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: Stream,
    /// The line without its newline; bytes that are not UTF-8 are replaced.
    pub line: String,
    /// The line goes on in the next entry (it was longer than 16 KiB, or had no newline yet).
    #[serde(default)]
    pub partial: bool,
}

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}
