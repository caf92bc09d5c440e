//! The cgroups of a bench: the one thing that no namespace takes away.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where the hierarchies are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What Podman makes and leaves in each of them.
const PODMAN: &str = "libpod_parent";
/// The namespaces' processes were killed; they may take this long to be gone.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is to be removed: of ours by the id of the bench's host, so that no
/// other host of the machine is touched; of Podman's what was not there before.
pub(super) struct Leftovers {
    host_file: PathBuf,
    podman_before: Vec<PathBuf>,
}

impl Leftovers {
    /// Before the bench.
    pub(super) fn expect() -> Result<Self> {
        let host_file = format!("/var/tmp/dyno-bench-host-{}", std::process::id());
        Ok(Self {
            host_file: host_file.into(),
            podman_before: named(PODMAN)?,
        })
    }

    /// Where the stage writes the id of its host.
    pub(super) fn host_file(&self) -> &Path {
        &self.host_file
    }

    /// After it.
    pub(super) fn remove(self) -> Result<()> {
        let mut cgroups = named(PODMAN)?;
        cgroups.retain(|cgroup| !self.podman_before.contains(cgroup));
        if self.host_file.exists() {
            let host = std::fs::read_to_string(&self.host_file)?;
            std::fs::remove_file(&self.host_file)?;
            cgroups.extend(named(&format!("dyno-{host}"))?);
        }
        let deadline = Instant::now() + DEADLINE;
        cgroups
            .iter()
            .try_for_each(|cgroup| remove(cgroup, deadline))
    }
}

/// Every cgroup of this name, in whatever hierarchy and depth.
fn named(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut unseen = vec![PathBuf::from(CGROUPS)];
    while let Some(folder) = unseen.pop() {
        for child in children(&folder)? {
            if child.file_name().is_some_and(|file| file == name) {
                found.push(child);
            } else {
                unseen.push(child);
            }
        }
    }
    Ok(found)
}

/// The cgroups in a cgroup; none where it has gone meanwhile.
fn children(cgroup: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| cgroup.display().to_string()),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove(cgroup: &Path, deadline: Instant) -> Result<()> {
    for child in children(cgroup)? {
        remove(&child, deadline)?;
    }
    loop {
        match std::fs::remove_dir(cgroup) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                bail!("cannot remove {}: {error}", cgroup.display())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
