//! `hostd teardown`: takes what a host has in this kernel away again: DNS,
//! network, cgroups, user ids, run folder. State stays, and a later start makes
//! everything anew.

use std::path::Path;
use std::time::{Duration, Instant};

use dyno_netns::Network;
use dyno_runtime::cgroup;

use crate::config::Serve;
use crate::daemon::{DaemonError, failed, lock, network_config};
use crate::edge::Edge;
use crate::identity;
use crate::uids::{self, UidPool};
use crate::{desired, durable, secrets};

/// How long the edge, which finishes what is in flight, may take to end.
const LEAVING: Duration = Duration::from_secs(10);

/// Takes down a host that has no dynos and whose hostd has ended.
///
/// # Errors
/// [`DaemonError::Locked`] while hostd runs, [`DaemonError::Dynos`] while
/// there are dynos; otherwise what could not be taken down, the rest is.
pub fn teardown(options: &Serve) -> Result<(), DaemonError> {
    let paths = options.paths()?;
    if !paths.run_dir.exists() || !paths.host_record().exists() {
        return Ok(());
    }
    let _locks = lock(&paths)?;
    let (records, damaged) = desired::load_all(&paths).map_err(failed("read", &paths.dynos()))?;
    if !records.is_empty() || !damaged.is_empty() {
        return Err(DaemonError::Dynos(records.len() + damaged.len()));
    }
    let mut identity = identity::load_or_create(&paths)?;
    let edge = Edge::new(Path::new(""), &paths.edge(), 0);
    let stop = || {
        if let Err(error) = edge.stop() {
            tracing::warn!(error = %durable::chain(&error), "dyno-edge runs on");
        }
    };
    stop();
    let closed = network_config(&paths, &mut identity)
        .and_then(|config| Ok(Network::open(config)?.close()?));
    let pruned = prune(&identity.id, stop);
    let secrets = paths.run_secrets();
    if let Err(error) = secrets::leave_memory(&secrets) {
        tracing::warn!(%error, folder = %secrets.display(), "a file system in memory stays");
    }
    let removed = durable::remove_tree(&paths.run_dir).map_err(failed("remove", &paths.run_dir));
    let left = UidPool::leave(Path::new(uids::CLAIMS), &identity).map_err(DaemonError::from);
    closed.and(pruned).and(removed).and(left)
}

/// A hostd that was killed may have left an edge that does not listen yet: it is
/// told again while its cgroup is in use.
fn prune(host: &str, stop: impl Fn()) -> Result<(), DaemonError> {
    let layout = cgroup::detect()?;
    let deadline = Instant::now() + LEAVING;
    loop {
        match cgroup::prune(&layout, &format!("/dyno-{host}")) {
            Err(_) if Instant::now() < deadline => {
                stop();
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return Ok(done?),
        }
    }
}
