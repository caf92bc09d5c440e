//! What somebody who is not root of the host may use of the hierarchies.
//!
//! A folder that was delegated is his to work below, and the controllers that it
//! has are his to hand down (cgroup-v2.rst, "Delegation"). What is not delegated is
//! left alone; where nothing is, a container does without, as with runc, unless its
//! configuration asks for a limit.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::create::{Delegated, Wanted};
use super::error::{Error, Result};
use super::layout::{Layout, detect_for, relative};
use super::settings::{self, Version};
use super::{Cgroup, Record, file};

impl Cgroup {
    /// As [`Cgroup::create`], below what is delegated to the caller in each
    /// hierarchy. None is made where he may make none and needs none.
    ///
    /// # Errors
    /// As [`Cgroup::create`]: a limit that he cannot have is refused by name.
    pub fn create_where_allowed(path: &str, resources: &LinuxResources) -> Result<Self> {
        // What is wrong with the values is wrong whoever asks.
        let asked = settings::plan(resources, &|_| Some(Version::V2), None);
        let usable = detect_for(path).and_then(|layout| usable(&layout, path));
        let unusable = match usable {
            Ok(Some((layout, delegated))) => {
                let create = |wanted| {
                    Self::create_with(&layout, path, resources, Some(&delegated), wanted)
                        .and_then(|(cgroup, devices)| cgroup.restricted(&devices))
                };
                // A delegated group that holds processes itself hands nothing down.
                return create(Wanted::Usual).or_else(|_| create(Wanted::Needed));
            }
            Ok(None) => "none is delegated to you".to_owned(),
            Err(Error::Layout { reason }) => reason,
            Err(error) => return Err(error),
        };
        let settings = asked?;
        let needed = settings.writes.first();
        let needed = needed.map(|setting| {
            let value = setting.choices.first().map(|(_, value)| value.clone());
            (setting.field.clone(), value.unwrap_or_default())
        });
        let oom = settings.monitor_kills_on_oom;
        let oom = oom.then(|| ("unified[memory.oom.group]".to_owned(), "1".to_owned()));
        match needed.or(oom) {
            None => Self::open(Record {
                absent: true,
                ..Record::default()
            }),
            Some((field, value)) => Err(Error::unenforceable(
                format!("linux.resources: {field}"),
                value,
                format!(
                    "it needs a cgroup, and {unusable}; leave it out, or have one delegated \
                     (systemd: `systemd-run --user --scope -p Delegate=yes …`, with \
                     linux.cgroupsPath below it)"
                ),
            )),
        }
    }
}

/// The hierarchies that the group can be made in, and where those folders of the
/// v2 tree begin that are the caller's.
fn usable(layout: &Layout, path: &str) -> Result<Option<(Layout, Delegated)>> {
    let path = relative(path)?;
    let v2 = layout.v2().and_then(|base| {
        let existing = existing(base, &path);
        let own = existing.iter().find(|folder| may_write(folder));
        let last = existing.last().is_some_and(|folder| may_write(folder));
        let from = own.filter(|_| last && may_move(base, &path))?;
        Some((base.to_owned(), Delegated(from.clone())))
    });
    let controllers = layout.v1_controllers().cloned().unwrap_or_default();
    let controllers: std::collections::BTreeMap<_, _> = controllers
        .into_iter()
        .filter(|(_, base)| {
            existing(base, &path)
                .last()
                .is_some_and(|folder| may_write(folder))
        })
        .collect();
    Ok(match (v2, controllers.is_empty()) {
        (Some((root, from)), true) => Some((Layout::Unified { root }, from)),
        (Some((v2, from)), false) => Some((Layout::Hybrid { v2, controllers }, from)),
        (None, false) => Some((Layout::Legacy { controllers }, Delegated(PathBuf::new()))),
        (None, true) => None,
    })
}

/// The folders that there are above the group's own, outermost first.
fn existing(base: &Path, path: &Path) -> Vec<PathBuf> {
    let mut folders = vec![base.to_owned()];
    let outer = path.parent().unwrap_or(Path::new(""));
    for name in outer {
        let next = folders[folders.len() - 1].join(name);
        if !next.is_dir() {
            break;
        }
        folders.push(next);
    }
    folders
}

/// A process moves between two groups only for somebody who may write
/// `cgroup.procs` of the one that is above both.
fn may_move(base: &Path, path: &Path) -> bool {
    let own = file::read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let mut above = base.to_owned();
    // Where the base is no longer a part of our own path, it is above us itself.
    let own = Path::new(own.unwrap_or_default());
    let names = own.iter().zip(path.iter());
    above.extend(
        names
            .take_while(|(ours, its)| ours == its)
            .map(|(name, _)| name),
    );
    may_write(&above.join("cgroup.procs"))
}

fn may_write(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}
