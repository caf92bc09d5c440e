//! Why a dyno is as it is: `GET /v1/dynos/{dyno}/why`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dyno::{DynoStatus, LogLine, RestartPolicy, Stats};
use crate::name::{DynoId, DynoName};

/// Why a dyno restarts, waits, is held back, or has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// Its identity.
    pub dyno: DynoId,
    /// Its name.
    pub name: DynoName,
    /// What there is to say, the most important first; never empty.
    pub findings: Vec<Finding>,
    /// How it is: exit status, failed check, next start and all.
    pub status: DynoStatus,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// What it uses, while it has processes.
    pub stats: Option<Stats>,
    /// Its last lines, at most 10, where it does not simply run.
    pub log: Vec<LogLine>,
}

/// One thing about a dyno, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// What it is about.
    pub cause: Cause,
    /// The sentence: lower case, no full stop.
    pub message: String,
    /// What to try, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It runs, and nothing is wrong that hostd knows of.
    Running,
    /// It was not started yet.
    Created,
    /// It waits for other dynos to be there first.
    Dependency,
    /// It was asked to end.
    Stopping,
    /// It ended with an exit code.
    Exited,
    /// A signal ended it.
    Signal,
    /// It reached its memory limit and was killed.
    OutOfMemory,
    /// A check failed, or has not passed yet.
    Check,
    /// It waits to be started again.
    Backoff,
    /// It does so after many crashes in a row.
    CrashLoop,
    /// Its monitor vanished.
    Lost,
    /// It could not be started.
    NotStarted,
    /// Its restart policy does not start it again.
    Policy,
    /// Its CPU limit holds it back.
    Throttled,
    /// It is near its memory limit.
    Memory,
    /// It is near its limit of processes.
    Processes,
    /// What it has written is near its limit.
    Disk,
}
