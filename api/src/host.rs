//! The host as the API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Version of hostd.
    pub version: String,
    /// Version of the API, `v1`.
    pub api: String,
}

/// `GET /v1/info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostInfo {
    /// This host's id, 8 hexadecimal digits: part of every cgroup, link and table name.
    pub id: String,
    /// Version of hostd.
    pub version: String,
    /// Process id of hostd.
    pub pid: u32,
    /// Kernel release, `uname -r`.
    pub kernel: String,
    /// Which cgroup hierarchies there are.
    pub cgroups: CgroupLayout,
    /// Number of CPUs that dynos may use.
    pub cpus: u32,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// The state folder.
    pub state_dir: String,
    /// The folder of sockets and bundles.
    pub run_dir: String,
    /// Subnet of the default network.
    pub subnet: String,
    /// IPv6 subnet of the default network, where the host has IPv6.
    pub subnet6: Option<String>,
    /// Dynos that exist.
    pub dynos: u32,
    /// Dynos that run.
    pub running: u32,
    /// What this host cannot do, or what it found amiss, in sentences.
    pub warnings: Vec<String>,
}

/// `GET /v1/health`: answered once every dyno of the last life is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostHealth {
    /// Every dyno on disk has its supervisor again.
    pub ready: bool,
    /// DNS for dynos answers.
    pub dns: bool,
}

/// `GET /readyz`: whether hostd can be given work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Readiness {
    /// Every check is well.
    pub ready: bool,
    /// What it is made of.
    pub checks: Vec<ReadinessCheck>,
}

/// One thing that has to be so for hostd to be given work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadinessCheck {
    /// `recovery`, `supervisors` or `disk`.
    pub name: String,
    /// It is so.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How the host's cgroups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CgroupLayout {
    /// Only cgroup v2.
    Unified,
    /// v1 controllers for limits, a v2 tree for tracking, freezing, killing.
    Hybrid,
    /// Only v1.
    Legacy,
}
