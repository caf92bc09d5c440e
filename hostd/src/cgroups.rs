//! The cgroups of this host's dynos, as hostd touches them: reading what a
//! dyno uses, and killing one whose monitor is gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dyno_api::name::DynoId;
use dyno_runtime::cgroup::{self, Cgroup, Controller, Layout, Record};

use crate::bundle::cgroups_path;

/// How long a killed group may take to be empty.
const DYING: Duration = Duration::from_secs(5);

/// The cgroup of a dyno, where it is in each hierarchy.
///
/// # Errors
/// When a folder of it cannot be opened.
pub fn open(layout: &Layout, host: &str, id: &DynoId) -> cgroup::Result<Cgroup> {
    let path = cgroups_path(host, id.as_str());
    let below =
        |base: &Path| Some(base.join(path.trim_start_matches('/'))).filter(|path| path.exists());
    let v1 = v1_bases(layout)
        .filter_map(|(controller, base)| Some((*controller, below(base)?)))
        .collect::<BTreeMap<_, _>>();
    let v2 = layout.v2().and_then(below);
    Cgroup::open(Record {
        v2,
        v1,
        monitor_kills_on_oom: false,
        unit: None,
    })
}

/// Kills whatever is left of a dyno and removes its cgroup. Blocks.
///
/// # Errors
/// When it cannot be killed or does not die: a process in uninterruptible sleep.
pub fn kill(layout: &Layout, host: &str, id: &DynoId) -> cgroup::Result<()> {
    let path = cgroups_path(host, id.as_str());
    let relative = path.trim_start_matches('/');
    if !bases(layout)
        .iter()
        .any(|base| base.join(relative).exists())
    {
        return Ok(());
    }
    let group = open(layout, host, id)?;
    group.kill()?;
    group.wait_empty(DYING)?;
    group.remove(DYING)
}

/// The dynos that have a cgroup, whether anyone knows them or not.
pub fn present(layout: &Layout, host: &str) -> Vec<DynoId> {
    let parent = cgroups_path(host, "");
    let parent = parent.trim_start_matches('/');
    let mut found: Vec<DynoId> = bases(layout)
        .iter()
        .filter_map(|base| fs::read_dir(base.join(parent)).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn bases(layout: &Layout) -> Vec<PathBuf> {
    let v1 = v1_bases(layout).map(|(_, base)| base);
    layout
        .v2()
        .into_iter()
        .chain(v1)
        .map(Path::to_owned)
        .collect()
}

fn v1_bases(layout: &Layout) -> impl Iterator<Item = (&Controller, &Path)> {
    let controllers = match layout {
        Layout::Unified { .. } => None,
        Layout::Hybrid { controllers, .. } | Layout::Legacy { controllers } => Some(controllers),
    };
    controllers
        .into_iter()
        .flatten()
        .map(|(controller, base)| (controller, base.as_path()))
}
