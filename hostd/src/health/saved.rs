//! `health.json` in a dyno's run folder: what its checks said, for the next
//! hostd. It goes with the run folder, at the latest with the boot.

use dyno_api::health::{FailedCheck, HealthState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable::{self, Survives};
use crate::paths::DynoPaths;

const VERSION: u32 = 1;

/// What was found out about one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    version: u32,
    /// When the run began: that of another run says nothing.
    pub run: Timestamp,
    /// What the checks said.
    pub state: HealthState,
    /// The latest check that failed.
    pub failed: Option<FailedCheck>,
}

impl Saved {
    /// What is known of this run.
    pub fn new(run: Timestamp, state: HealthState, failed: Option<FailedCheck>) -> Self {
        Self {
            version: VERSION,
            run,
            state,
            failed,
        }
    }

    /// What an earlier hostd found out. A file that cannot be used is none:
    /// the checks find out anew.
    pub fn load(paths: &DynoPaths) -> Option<Self> {
        match durable::read_json::<Self>(&paths.health()) {
            Ok(saved) => saved.filter(|saved| saved.version == VERSION),
            Err(error) => {
                tracing::warn!(error = %durable::chain(&error), "what checks said is found out anew");
                None
            }
        }
    }

    /// Writes it down; blocks. Should it fail, a hostd that is restarted finds
    /// out anew.
    pub fn save(&self, paths: &DynoPaths) {
        if let Err(error) = durable::write_json(&paths.health(), self, Survives::Crash) {
            tracing::debug!(error = %durable::chain(&error), "what checks say is not kept");
        }
    }
}
