//! What hostd and a monitor say to each other: the types of `monitor.json`,
//! of the socket's JSON lines and of `state.json`.
//!
//! Every line a client sends is a [`Request`], every line the monitor sends is
//! a [`Reply`]; after the reply to `attach` and `exec` the connection carries
//! frames (see [`super::frame`]) instead of lines.

use std::path::PathBuf;

use jiff::Timestamp;
use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

/// Version of [`Config`] and [`State`] that this monitor reads and writes.
pub const VERSION: u32 = 1;

/// The longest request line that is read, in bytes, newline included.
pub const MAX_REQUEST: usize = 256 * 1024;

/// File names inside a dyno's run folder.
pub mod file {
    /// The monitor's [`Config`](super::Config), written by hostd.
    pub const CONFIG: &str = "monitor.json";
    /// The socket the monitor listens on.
    pub const SOCKET: &str = "monitor.sock";
    /// Where the dyno says how it is, see [`NotifyConfig`](super::NotifyConfig).
    pub const NOTIFY: &str = "notify.sock";
    /// The [`State`](super::State), replaced atomically at every change.
    pub const STATE: &str = "state.json";
}

/// `monitor.json`: how a monitor shall treat its dyno.
///
/// Whether the dyno has a terminal is said by `process.terminal` of the
/// bundle's `config.json`, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// [`VERSION`].
    pub version: u32,
    /// The dyno's id.
    pub id: String,
    /// Keep standard input open for attached clients; else it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// What happens when the dyno ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Number of the signal that asks it to end.
    #[serde(default = "default_stop_signal")]
    pub stop_signal: u8,
    /// Milliseconds between that signal and the kill of the whole cgroup.
    #[serde(default = "default_stop_grace")]
    pub stop_grace_ms: u64,
    /// Where its output goes; only to attached clients when absent.
    #[serde(default)]
    pub log: Option<LogConfig>,
    /// Listen to what the dyno says about itself (sd_notify(3)) on
    /// `notify.sock`; the bundle mounts it. Not when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<NotifyConfig>,
    /// Variables beside those of the bundle: a JSON list of `NAME=value`, read anew
    /// at each start, so that what is secret is in no bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// Its first init comes from a checkpoint rather than from the bundle's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreConfig>,
    /// Give it an init of ours, which forwards signals to its command and reaps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// cgroup the monitor itself moves into, relative to the root of the v2
    /// tree (`/dyno-<host>/monitors`); it stays where it is when absent.
    #[serde(default)]
    pub monitors_cgroup: Option<String>,
}

fn default_stop_signal() -> u8 {
    15
}

fn default_stop_grace() -> u64 {
    10_000
}

/// A checkpoint that a dyno comes back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreConfig {
    /// The program `criu`.
    pub criu: PathBuf,
    /// Folder of the images, absolute.
    pub images: PathBuf,
}

/// A checkpoint to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The program `criu`.
    pub criu: PathBuf,
    /// Folder of the images, absolute: there once they are complete, not before.
    pub images: PathBuf,
    /// With the TCP connections that it has.
    #[serde(default)]
    pub tcp_established: bool,
    /// The dyno runs on; else it ends as soon as it is saved.
    #[serde(default)]
    pub leave_running: bool,
}

/// When a dyno that has ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "policy", deny_unknown_fields)]
pub enum RestartPolicy {
    /// It stays ended.
    #[default]
    No,
    /// After a failure: an exit code other than 0, a signal, an OOM kill.
    OnFailure {
        /// Failures in a row after which it stays ended; without limit when absent.
        #[serde(default)]
        max_retries: Option<u32>,
    },
    /// Always, unless it was stopped by request.
    Always,
}

/// The log of a dyno, in the format of the Kubernetes CRI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Absolute path of the log: a link to the file being written. The files are
    /// named after it, see [`super::log::folder`].
    pub path: PathBuf,
    /// Bytes after which a new file is begun.
    pub max_bytes: u64,
    /// How many older files are kept.
    pub keep: u32,
    /// Milliseconds that an entry is kept at least, and at most twice as long;
    /// without limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// What happens when the disk is slower than the dyno.
    // A monitor of before knows no such field: it is told only what it must be.
    #[serde(default, skip_serializing_if = "LogMode::is_default")]
    pub mode: LogMode,
}

/// What happens when a dyno writes faster than its log can be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogMode {
    /// The dyno waits: no entry is lost.
    #[default]
    Block,
    /// A buffer of bounded size takes what it can; what it cannot is dropped and
    /// counted. The dyno never waits for the disk.
    Drop,
}

impl LogMode {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a dyno that says how it is has to say, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// Milliseconds from the start of the command until `READY=1`, or it is
    /// ended as a failure; for ever when absent.
    pub start_timeout_ms: Option<u64>,
    /// Milliseconds from one `WATCHDOG=1` to the next, or it is ended as a
    /// failure; none is needed when absent.
    pub watchdog_ms: Option<u64>,
}

/// What a dyno has said about this run of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notified {
    /// `READY=1`.
    pub ready: bool,
    /// The latest `STATUS=`: at most 256 characters, none of control.
    pub text: Option<String>,
}

/// The single line on the monitor's standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announcement {
    /// The container is there, not started; its namespaces can be plumbed.
    Created {
        /// Host pid of its init.
        pid: u32,
    },
    /// There is no container and nothing was left behind.
    Failed(Failure),
}

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op", deny_unknown_fields)]
pub enum Request {
    /// Execute the dyno's command; answered once it is executed.
    Start {},
    /// End the dyno; answered once it has ended.
    Stop {
        /// Instead of the configured signal.
        #[serde(default)]
        signal: Option<u8>,
        /// Instead of the configured grace.
        #[serde(default)]
        grace_ms: Option<u64>,
    },
    /// End the dyno as a failure: asked, then killed, as by a stop; what
    /// follows is the policy's. Answered at once.
    Fail {
        /// Why: the reason that is shown.
        reason: String,
        /// Milliseconds of this run in which it worked: a healthy spell resets
        /// the delay.
        #[serde(default)]
        healthy_ms: u64,
        /// The run that is meant, by when it began: another one is left alone.
        #[serde(default)]
        run: Option<Timestamp>,
    },
    /// Save the dyno; answered once that is done, or once it has ended then.
    Checkpoint(Checkpoint),
    /// Send a signal.
    Signal {
        /// Its number.
        signal: u8,
        /// To every process of the dyno rather than to its init.
        #[serde(default)]
        all: bool,
    },
    /// Give every process of the dyno this resource limit, at once and at every start:
    /// its init, and whatever is executed in it.
    Limit {
        /// The limit as the OCI runtime specification describes it.
        rlimit: oci::PosixRlimit,
    },
    /// Tell the status.
    Status {},
    /// Tell the status now and at every change, one line each, until the end.
    Watch {},
    /// Take part in the dyno's standard streams.
    Attach {
        /// Forward standard input; one client at a time may.
        #[serde(default)]
        stdin: bool,
        /// Terminal size, rows and columns.
        #[serde(default)]
        size: Option<(u16, u16)>,
    },
    /// Run another process in the dyno, its streams on this connection.
    Exec {
        /// The process as the OCI runtime specification describes it;
        /// `terminal` says whether it gets one.
        process: Box<oci::Process>,
        /// Forward standard input; else it is `/dev/null`.
        #[serde(default)]
        stdin: bool,
        /// Terminal size, rows and columns.
        #[serde(default)]
        size: Option<(u16, u16)>,
    },
}

/// One line from the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done, or begun; the dyno is now like this.
    Ok(Status),
    /// It was not.
    Err(Failure),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// What was wrong and with which value: one sentence, lower case, no full stop.
    pub message: String,
    /// What to try next, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of this kind with no hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The same failure with something to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Kinds of failure, spelt like those of the HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request or the configuration itself is wrong.
    Invalid,
    /// The command exists and cannot be executed (exit code 126).
    Forbidden,
    /// There is no such command in the dyno (exit code 127).
    NotFound,
    /// It does not fit the phase the dyno is in.
    Conflict,
    /// Too many connections, processes, or too little memory.
    Exhausted,
    /// This kernel or machine cannot do what was asked.
    Unsupported,
    /// The monitor or the runtime failed.
    Internal,
}

/// How a dyno is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Where it is in its life.
    pub phase: Phase,
    /// Host pid of its init, while there is one.
    pub pid: Option<u32>,
    /// When its command was last started.
    pub started: Option<Timestamp>,
    /// How often the monitor started it again.
    pub restarts: u32,
    /// Runs in a row that ended before they were healthy; counted at their end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// What it has said, where it is listened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notified: Option<Notified>,
    /// How it last ended.
    pub exit: Option<ExitStatus>,
    /// In `backoff`: when it will be started again.
    pub next_start: Option<Timestamp>,
    /// Why it is in this phase, where that needs saying.
    pub reason: Option<String>,
    /// It was the system that had it end, by a SIGTERM to the monitor: nobody
    /// asked for that dyno's end.
    #[serde(default)]
    pub by_system: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The phases of a dyno's life that its monitor sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The container is there and its command has not been started.
    Created,
    /// Its command runs.
    Running,
    /// It ended and will be started again.
    Backoff,
    /// It was asked to end and has not yet.
    Stopping,
    /// It ended for good.
    Exited,
    /// Its command could not be started; nothing runs.
    Failed,
}

impl Phase {
    /// Whether nothing comes after this phase: the monitor ends.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Exited | Self::Failed)
    }
}

/// How a process ended; the payload of an Exit frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    pub at: Timestamp,
}

/// `state.json`: what survives the monitor.
///
/// A file whose phase is not final and whose monitor is gone tells that the
/// dyno was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// The dyno's id.
    pub id: String,
    /// The monitor.
    pub monitor: ProcessId,
    /// The dyno's init, while there is one.
    pub init: Option<ProcessId>,
    /// The dyno's cgroup, to kill and remove it when the monitor is gone.
    pub cgroup: crate::cgroup::Record,
    /// How the dyno is.
    pub status: Status,
}

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// Host pid.
    pub pid: u32,
    /// Clock ticks between the machine's boot and its start: field 22 of
    /// `/proc/<pid>/stat`, proc_pid_stat(5).
    pub start_time: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spelt_as_documented() {
        let table = [
            (r#"{"op":"start"}"#, Request::Start {}),
            (
                r#"{"op":"stop","signal":2,"grace_ms":50}"#,
                Request::Stop {
                    signal: Some(2),
                    grace_ms: Some(50),
                },
            ),
            (
                r#"{"op":"stop"}"#,
                Request::Stop {
                    signal: None,
                    grace_ms: None,
                },
            ),
            (
                r#"{"op":"signal","signal":9,"all":true}"#,
                Request::Signal {
                    signal: 9,
                    all: true,
                },
            ),
            (r#"{"op":"watch"}"#, Request::Watch {}),
            (
                r#"{"op":"attach","stdin":true,"size":[24,80]}"#,
                Request::Attach {
                    stdin: true,
                    size: Some((24, 80)),
                },
            ),
        ];
        for (text, request) in table {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
    }

    #[test]
    fn unknown_operations_and_fields_are_refused() {
        for text in [
            r#"{"op":"explode"}"#,
            r#"{"op":"start","now":true}"#,
            r#"{"op":"stop","grace":5}"#,
            r#"{"op":"signal"}"#,
            r#"{"op":"signal","signal":300}"#,
            r#"{}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
        let config = r#"{"version":1,"id":"a","stop_grace":5}"#;
        assert!(serde_json::from_str::<Config>(config).is_err());
    }

    #[test]
    fn a_config_needs_only_version_and_id() {
        let config: Config = serde_json::from_str(r#"{"version":1,"id":"a"}"#).unwrap();
        assert_eq!(config.stop_signal, 15);
        assert_eq!(config.stop_grace_ms, 10_000);
        assert_eq!(config.restart, RestartPolicy::No);
    }

    #[test]
    fn replies_and_announcements_are_one_key_objects() {
        let failure = Failure::new(FailureKind::NotFound, "no such command: sl");
        assert_eq!(
            serde_json::to_string(&Reply::Err(failure.clone())).unwrap(),
            r#"{"err":{"kind":"not_found","message":"no such command: sl"}}"#
        );
        assert_eq!(
            serde_json::to_string(&Announcement::Created { pid: 7 }).unwrap(),
            r#"{"created":{"pid":7}}"#
        );
        assert_eq!(
            serde_json::to_string(&Announcement::Failed(failure)).unwrap(),
            r#"{"failed":{"kind":"not_found","message":"no such command: sl"}}"#
        );
    }
}
