//! Making a cgroup with its limits.
//!
//! The order: everything that can be refused by thinking is refused first; then
//! folders, outermost first, with the controllers handed down on v2; then the
//! limits; then the device rules, which may wait until somebody is in the group. A
//! failure removes what was made, and only that.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

use super::error::{Error, Result};
use super::folders::{Made, enable_controllers};
use super::layout::{Controller, Layout, relative};
use super::place::Place;
use super::settings::{self, Settings, Version};
use super::systemd::Holder;
use super::{Cgroup, Record, devices, file, open_folder};
use crate::device_filter::Policy;

/// Always used where they exist: they account, and a limit may come later.
const USUAL: [Controller; 5] = [
    Controller::Cpu,
    Controller::Cpuset,
    Controller::Memory,
    Controller::Pids,
    Controller::Io,
];
/// What v2 has without a controller.
const LEGACY: [Controller; 3] = [
    Controller::Cpuacct,
    Controller::Devices,
    Controller::Freezer,
];

/// The folder of the v2 tree that begins what is delegated to the caller.
#[derive(Debug)]
pub(super) struct Delegated(pub(super) PathBuf);

/// Which controllers a group has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    /// The usual ones, and what is needed.
    Usual,
    /// Those alone that a limit needs.
    Needed,
}

impl Cgroup {
    /// Makes the cgroup where `place` says, with all of `resources` in force.
    ///
    /// # Errors
    /// As [`Cgroup::create`], and [`Error::Systemd`].
    pub fn create_in(place: &Place, resources: &LinuxResources) -> Result<Self> {
        match place {
            Place::Folder { layout, path } => Self::create(layout, path, resources),
            Place::Delegated { path } => Self::create_where_allowed(path, resources),
            Place::Unit {
                unit,
                user,
                properties,
            } => Self::create_unit(unit, *user, properties, resources),
        }
    }

    /// As [`Cgroup::create_in`], but for the device rules, where they can wait: the
    /// kernel takes a quarter of a millisecond to check and compile them, in which
    /// a container's first process can set itself up.
    ///
    /// # Errors
    /// As [`Cgroup::create_in`], but for what the kernel says of the rules.
    pub(crate) fn create_open_in(
        place: &Place,
        resources: &LinuxResources,
    ) -> Result<(Self, Option<Policy>)> {
        match place {
            Place::Folder { layout, path } => {
                let made = Self::create_with(layout, path, resources, None, Wanted::Usual)?;
                Ok((made.0, Some(made.1)))
            }
            Place::Delegated { .. } | Place::Unit { .. } => {
                Ok((Self::create_in(place, resources)?, None))
            }
        }
    }

    /// Makes the cgroup `path` (`linux.cgroupsPath`), below the layout's base in
    /// every hierarchy, with all of `resources` in force. Outer folders are made
    /// as needed and stay. An empty left-over of the same name is replaced.
    ///
    /// # Errors
    /// Whatever cannot be enforced is refused, and nothing is left behind.
    pub fn create(layout: &Layout, path: &str, resources: &LinuxResources) -> Result<Self> {
        Self::create_with(layout, path, resources, None, Wanted::Usual)
            .and_then(|(cgroup, devices)| cgroup.restricted(&devices))
    }

    /// The group without its device rules, and those.
    pub(super) fn create_with(
        layout: &Layout,
        path: &str,
        resources: &LinuxResources,
        delegated: Option<&Delegated>,
        wanted_for: Wanted,
    ) -> Result<(Self, Policy)> {
        let path = relative(path)?;
        let available = match (delegated, layout.v2()) {
            (Some(Delegated(folder)), Some(_)) => controllers(folder)?,
            _ => available(layout)?,
        };
        let version = |controller| version(layout, &available, controller);
        let settings = settings::plan(resources, &version, None)?;
        let devices = devices::policy(resources, &path)?;

        let wanted = wanted(layout, &settings, &version, wanted_for);
        let mut made = Made::default();
        let begin = delegated.map_or(Path::new(""), |Delegated(folder)| folder);
        match build(layout, (&path, begin), &wanted, &settings, &mut made) {
            Ok(cgroup) => Ok((cgroup, devices)),
            Err(error) => {
                made.undo();
                Err(error)
            }
        }
    }

    /// The same with these device rules in force, or gone.
    pub(super) fn restricted(self, devices: &Policy) -> Result<Self> {
        if let Err(error) = self.restrict_devices(devices) {
            // The failure to restrict it counts more than one to clean up.
            self.remove(Duration::ZERO).ok();
            return Err(error);
        }
        Ok(self)
    }
}

/// Moves a process into the cgroup `path` of the v2 tree, made if need be, without
/// limits: for monitors, which shall be outside of what they watch. v1 hierarchies
/// are left alone, so that the base that [`super::detect`] finds there stays the
/// same; where there is no v2 tree nothing happens.
///
/// # Errors
/// When a folder cannot be made or the kernel refuses the move.
pub fn join(layout: &Layout, path: &str, pid: Pid) -> Result<()> {
    let Some(base) = layout.v2() else {
        return Ok(());
    };
    let path = relative(path)?;
    let mut made = Made::default();
    let mut folder = base.to_owned();
    for name in &path {
        folder.push(name);
        made.folder(&folder)?;
    }
    let procs = folder.join("cgroup.procs");
    file::write(&procs, &pid.as_raw_nonzero().to_string())
        .map_err(Error::file("move a process into", &procs))
}

/// Removes the folder `path` and everything below it from every hierarchy, as far
/// as no process is in it: what a host does when it leaves a machine.
///
/// # Errors
/// When a folder that holds processes is met; the empty ones are gone then.
pub fn prune(layout: &Layout, path: &str) -> Result<()> {
    let path = relative(path)?;
    for base in layout.bases() {
        let folder = base.join(&path);
        super::processes::remove_tree(&folder).map_err(Error::file("remove", &folder))?;
    }
    Ok(())
}

/// The controllers that the v2 base can hand down.
fn available(layout: &Layout) -> Result<BTreeSet<Controller>> {
    layout.v2().map_or_else(|| Ok(BTreeSet::new()), controllers)
}

pub(super) fn controllers(folder: &Path) -> Result<BTreeSet<Controller>> {
    let file = folder.join("cgroup.controllers");
    let text = file::read(&file).map_err(Error::file("read", &file))?;
    let listed = |controller: &Controller| text.split(' ').any(|name| name == controller.name());
    Ok(Controller::ALL.into_iter().filter(listed).collect())
}

/// The controllers that a group joins.
pub(super) fn wanted(
    layout: &Layout,
    settings: &Settings,
    version: &dyn Fn(Controller) -> Option<Version>,
    which: Wanted,
) -> BTreeSet<Controller> {
    let mut wanted: BTreeSet<Controller> = match which {
        Wanted::Usual => USUAL.into_iter().collect(),
        Wanted::Needed => BTreeSet::new(),
    };
    let needed = settings.writes.iter();
    wanted.extend(needed.filter_map(|setting| setting.controller));
    if matches!(layout, Layout::Legacy { .. }) {
        wanted.extend(LEGACY);
    }
    wanted.retain(|controller| version(*controller).is_some());
    wanted
}

pub(super) fn version(
    layout: &Layout,
    available: &BTreeSet<Controller>,
    controller: Controller,
) -> Option<Version> {
    match layout.v1(controller) {
        Some(_) => Some(Version::V1),
        None => available.contains(&controller).then_some(Version::V2),
    }
}

/// Makes the folders and sets the limits.
fn build(
    layout: &Layout,
    (path, begin): (&Path, &Path),
    wanted: &BTreeSet<Controller>,
    settings: &Settings,
    made: &mut Made,
) -> Result<Cgroup> {
    let mut record = Record {
        monitor_kills_on_oom: settings.monitor_kills_on_oom,
        ..Record::default()
    };
    if let Some(base) = layout.v2() {
        let here = |controller: &&Controller| layout.v1(**controller).is_none();
        let enable: Vec<Controller> = wanted.iter().filter(here).copied().collect();
        let hand_down = |folder: &Path| match folder.starts_with(begin) {
            true => enable_controllers(folder, &enable),
            // Somebody else has decided what is handed down to us.
            false => Ok(()),
        };
        record.v2 = Some(made.path(base, path, hand_down)?);
    }
    let mut done: BTreeMap<&Path, PathBuf> = BTreeMap::new();
    for controller in wanted {
        let Some(base) = layout.v1(*controller) else {
            continue;
        };
        if !done.contains_key(base) {
            let cpusets = layout.v1(Controller::Cpuset) == Some(base);
            let folder = match cpusets {
                true => made.cpuset_path(base, path)?,
                false => made.path(base, path, |_| Ok(()))?,
            };
            done.insert(base, folder);
        }
        record.v1.insert(*controller, done[base].clone());
    }
    limited(record, settings, None)
}

/// The cgroup of folders that are made, with its limits.
pub(super) fn limited(
    record: Record,
    settings: &Settings,
    holder: Option<Holder>,
) -> Result<Cgroup> {
    let cgroup = Cgroup {
        v2: record.v2.as_deref().map(open_folder).transpose()?,
        record,
        killed: Cell::new(false),
        holder: RefCell::new(holder),
    };
    cgroup.apply(&settings.writes, &mut Vec::new())?;
    Ok(cgroup)
}
