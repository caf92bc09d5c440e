//! Checkpoints: what the processes of a dyno were at some moment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::DynoName;

/// A checkpoint of a dyno. It goes with the dyno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Its name.
    pub name: DynoName,
    /// When its processes were saved.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Bytes that it takes up on disk.
    pub bytes: u64,
}

/// `POST /v1/dynos/{dyno}/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRequest {
    /// Its name; made of the time when absent.
    pub name: Option<DynoName>,
    /// The dyno runs on; else it ends as soon as it is saved.
    pub leave_running: bool,
    /// With the TCP connections that it has; without this those are a conflict.
    pub tcp_established: bool,
}

/// `POST /v1/dynos/{dyno}/restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreRequest {
    /// The checkpoint; the newest when absent.
    pub checkpoint: Option<DynoName>,
}
