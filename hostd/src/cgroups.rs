//! The cgroups of this host's dynos, as hostd touches them: reading what a
//! dyno uses, and killing one whose monitor is gone.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoId;
use dyno_runtime::cgroup::{self, Cgroup, Controller, Layout, Record};
use dyno_runtime::monitor::protocol::State as MonitorState;

use crate::bundle::cgroups_path;
use crate::durable::{self, internal};
use crate::host::Host;

/// How long the processes of a group may take to be still.
const FREEZING: Duration = Duration::from_secs(5);

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
        ..Record::default()
    })
}

/// The cgroup of a dyno that has a monitor, where that one says it is: one that was
/// started before `hostd install` is not in the cgroup that systemd delegates since.
///
/// # Errors
/// When a folder of it cannot be opened.
pub fn of(host: &Host, id: &DynoId) -> cgroup::Result<Cgroup> {
    let state = host.paths.dyno(id).monitor_state();
    match durable::read_json::<MonitorState>(&state) {
        Ok(Some(state)) => Cgroup::open(state.cgroup),
        Ok(None) | Err(_) => open(&host.layout, &host.identity.id, id),
    }
}

/// Freezes or thaws a dyno. Blocks.
///
/// # Errors
/// When it is not still in time; it goes on then.
pub fn set_paused(host: &Host, id: &DynoId, paused: bool) -> Result<(), ApiError> {
    let group = of(host, id).map_err(|error| internal(&error))?;
    if !paused {
        return group.thaw().map_err(|error| internal(&error));
    }
    let thaw = || group.thaw().map_err(|error| internal(&error));
    if let Err(error) = group.freeze(FREEZING) {
        return Err(thaw().err().unwrap_or_else(|| internal(&error)));
    }
    // A run that has just ended left nobody to hold; the next one would begin frozen.
    match group.populated() {
        Ok(true) => Ok(()),
        Ok(false) => thaw().and(Err(ApiError::new(ErrorKind::Conflict, "it is not running"))),
        Err(error) => thaw().and(Err(internal(&error))),
    }
}

/// Whether a dyno is frozen.
pub fn is_paused(host: &Host, id: &DynoId) -> bool {
    of(host, id).is_ok_and(|group| group.record().is_frozen())
}

/// Has the kernel take memory back from a group that shall have less: below what
/// it uses, cgroup v2 would kill it; v1 refuses by itself. Blocks.
///
/// # Errors
/// Conflict where it uses more all the same.
pub fn make_room(group: &Cgroup, limit: Option<u64>) -> Result<(), ApiError> {
    let limits_by_v2 = !group.record().v1.contains_key(&Controller::Memory);
    let (Some(limit), Some(folder), true) = (limit, &group.record().v2, limits_by_v2) else {
        return Ok(());
    };
    let used = || group.stats().map_err(|error| internal(&error));
    let before = used()?.memory_bytes.unwrap_or(0);
    if before <= limit {
        return Ok(());
    }
    // It says EAGAIN where it got less: what is left is looked at.
    let file = OpenOptions::new()
        .write(true)
        .open(folder.join("memory.reclaim"));
    if let Ok(mut file) = file
        && let Err(error) = file.write_all((before - limit).to_string().as_bytes())
    {
        tracing::debug!(%error, "not all memory could be taken back");
    }
    match used()?.memory_bytes.unwrap_or(0) {
        after if after <= limit => Ok(()),
        after => Err(ApiError::new(
            ErrorKind::Conflict,
            format!("the dyno uses {after} bytes of memory, more than the limit of {limit}"),
        )
        .hint("a lower limit would kill it: restart it with less to do, or ask for more")),
    }
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

/// Who is left of a dyno that was killed, in words. Blocks.
pub fn who_is_left(layout: &Layout, host: &str, id: &DynoId) -> Option<String> {
    open(layout, host, id).ok()?.who_is_left()
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
