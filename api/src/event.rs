//! What happened on a host.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dyno::ExitStatus;
use crate::health::HealthState;
use crate::name::{DynoId, DynoName};

/// One thing that happened, as `GET /v1/events` streams it (JSON lines).
// No `deny_unknown_fields`: serde cannot tell them from those of `what`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows with each event of this host since it was set up. A gap means that
    /// hostd was restarted, or that the reader was too slow.
    pub sequence: u64,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What happened, and to whom.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A dyno was created.
    DynoCreated {
        /// Its identity.
        dyno: DynoId,
        /// Its name.
        name: DynoName,
    },
    /// Its command runs.
    DynoStarted {
        /// Its identity.
        dyno: DynoId,
        /// Its name.
        name: DynoName,
    },
    /// Its command ended.
    DynoExited {
        /// Its identity.
        dyno: DynoId,
        /// Its name.
        name: DynoName,
        /// How it ended.
        exit: ExitStatus,
    },
    /// It will be started again after `delay_ms`.
    DynoRestarting {
        /// Its identity.
        dyno: DynoId,
        /// Its name.
        name: DynoName,
        /// How often it was started again since it was started by request.
        restarts: u32,
        /// Milliseconds until then.
        delay_ms: u64,
        /// Runs in a row that ended before they were healthy.
        #[serde(default)]
        crashes: u32,
        /// They are so many that it will not work by itself, most likely.
        #[serde(default)]
        crash_loop: bool,
    },
    /// Its monitor vanished; the dyno was killed with it.
    DynoLost {
        /// Its identity.
        dyno: DynoId,
        /// Its name.
        name: DynoName,
    },
    /// What its checks say is another thing now.
    DynoHealth {
        /// Its identity.
        dyno: DynoId,
        /// Its name.
        name: DynoName,
        /// What they say.
        health: HealthState,
        /// What the check that failed said, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// It was removed.
    DynoRemoved {
        /// Its identity.
        dyno: DynoId,
        /// Its name.
        name: DynoName,
    },
    /// An image became ready under this reference.
    ImageReady {
        /// The full reference.
        reference: String,
        /// Digest of its manifest.
        digest: String,
    },
    /// A reference was removed.
    ImageRemoved {
        /// The full reference.
        reference: String,
    },
}
