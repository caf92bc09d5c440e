//! Volumes: data that outlives dynos.
//!
//! ```text
//! folders   what is where                    create    made by itself, or for a dyno
//! records   what is recorded                 show      what is told of them
//! claims    who does something to which      set, snapshots, rollback, transfer, remove
//! users     the dynos that mount one
//!
//! making    a folder that gets its name      copy      a folder with all in it
//! source    files that a copy is made of     usage     what is taken up
//! still     dynos that are paused meanwhile  quota     limits, by the file system
//! backup    what dynos do before and after
//! ```
//! Each operation is the same three steps: claim, work, rename. What is made has its name
//! by one rename when it is whole; what is removed goes by one. One thing is done to a
//! volume at a time, and no dyno is started on it meanwhile.

mod backup;
mod claims;
mod copy;
mod create;
mod folders;
mod making;
mod quota;
mod records;
mod remove;
mod rollback;
mod set;
mod show;
mod snapshots;
mod source;
mod still;
mod transfer;
mod usage;
mod users;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dyno_api::dyno::DynoSpec;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::{DynoId, DynoName};
use tokio::time::timeout;

use crate::host::Host;
use claims::Claims;
use folders::Folders;
use still::Holds;
use users::mounted;

pub(crate) use create::create;
pub(crate) use remove::remove;
pub(crate) use rollback::roll_back;
pub(crate) use set::set;
pub(crate) use show::{inspect, list};
pub(crate) use snapshots::{remove_snapshot, snapshot, snapshots};
pub(crate) use transfer::{export, import};

/// How long dynos may take to go on when hostd ends.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// The volumes of one host.
#[derive(Debug)]
pub struct Volumes {
    folders: Folders,
    claims: Claims,
    holds: Holds,
}

impl Volumes {
    /// The volumes in this folder. What a crash has left half-made goes.
    pub(crate) fn new(root: PathBuf) -> Self {
        let volumes = Self::at(root);
        volumes.folders.sweep();
        volumes.folders.enforce();
        volumes
    }

    fn at(root: PathBuf) -> Self {
        Self {
            folders: Folders::new(root),
            claims: Claims::default(),
            holds: Holds::default(),
        }
    }

    /// Does what has to be seen by whoever claims one of these volumes next.
    ///
    /// # Errors
    /// Conflict where one of them is claimed; what `work` says.
    pub(crate) fn unless_busy<T>(
        &self,
        spec: &DynoSpec,
        work: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let closed = self.claims.close();
        mounted(spec).try_for_each(|name| closed.must_be_free(name))?;
        work()
    }
}

/// The name of a volume or snapshot in a request.
pub(crate) fn parse(name: &str) -> Result<DynoName, ApiError> {
    name.parse::<DynoName>()
        .map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()))
}

/// Lets dynos go on that an earlier hostd has paused for a copy, and do what they do after
/// one.
pub(crate) async fn let_go(host: Arc<Host>) {
    still::end_earlier(&host).await;
    backup::end_earlier(&host).await;
}

/// Lets dynos go on before hostd ends; what is being copied for them comes to nothing.
pub(crate) async fn end(host: &Arc<Host>) {
    if timeout(LAST_STEPS, still::end_all(host)).await.is_err() {
        tracing::warn!("dynos that are paused for a copy go on when hostd starts again");
    }
}

/// Has a copy that holds a dyno leave it paused, as its user wants it.
pub(crate) async fn keep_paused(host: &Arc<Host>, dyno: &DynoId) {
    still::keep_paused(host, dyno).await;
}
