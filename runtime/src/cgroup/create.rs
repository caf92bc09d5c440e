//! Making a cgroup with its limits, and changing the limits.
//!
//! The order: everything that can be refused by thinking is refused first; then
//! folders, outermost first, with the controllers handed down on v2; then the
//! limits; then the device rules. A failure removes what was made, and only that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

use super::error::{Error, Result};
use super::layout::{Controller, Layout, relative};
use super::settings::{self, Setting, Settings, Version};
use super::{Cgroup, Record, file, open_folder};
use crate::device_filter;

/// Always used where they exist: they account, and a limit may come later.
const USUAL: [Controller; 4] = [
    Controller::Cpu,
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

impl Cgroup {
    /// Makes the cgroup `path` (`linux.cgroupsPath`), below the layout's base in
    /// every hierarchy, with all of `resources` in force. Outer folders are made
    /// as needed and stay. An empty left-over of the same name is replaced.
    ///
    /// # Errors
    /// Whatever cannot be enforced is refused, and nothing is left behind.
    pub fn create(layout: &Layout, path: &str, resources: &LinuxResources) -> Result<Self> {
        let path = relative(path)?;
        let available = available(layout)?;
        let version = |controller| version(layout, &available, controller);
        let settings = settings::plan(resources, &version)?;
        let rules = device_filter::rules(resources.devices().as_deref().unwrap_or_default());
        let rules = rules.map_err(|source| Error::Devices {
            path: path.clone(),
            source,
        })?;

        let mut wanted: BTreeSet<Controller> = USUAL.into_iter().collect();
        wanted.extend(settings.writes.iter().map(|setting| setting.controller));
        if matches!(layout, Layout::Legacy { .. }) {
            wanted.extend(LEGACY);
        }
        wanted.retain(|controller| version(*controller).is_some());

        let mut made = Made::default();
        let result = build(layout, &path, &wanted, &settings, &mut made).and_then(|cgroup| {
            cgroup.restrict_devices(&rules)?;
            Ok(cgroup)
        });
        if result.is_err() {
            made.undo();
        }
        result
    }

    /// Changes limits; what `resources` does not mention stays.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; a failed update puts back what it had changed. Device
    /// rules are fixed when the cgroup is made and refused here.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let mut v2 = BTreeSet::new();
        if let Some(folder) = &self.record.v2 {
            v2 = controllers(folder)?;
        }
        let version = |controller| match self.record.v1.contains_key(&controller) {
            true => Some(Version::V1),
            false => v2.contains(&controller).then_some(Version::V2),
        };
        if resources
            .devices()
            .as_ref()
            .is_some_and(|devices| !devices.is_empty())
        {
            let reason = "device rules are fixed when the container is created";
            return Err(Error::unenforceable("devices", "update", reason));
        }
        let settings = settings::plan(resources, &version)?;
        let cpu = resources.cpu().as_ref();
        let lone_period = cpu.is_some_and(|cpu| cpu.period().is_some() && cpu.quota().is_none());
        if lone_period && version(Controller::Cpu) == Some(Version::V2) {
            let reason = "on cgroup v2 both are one value: give cpu.quota too";
            return Err(Error::unenforceable("cpu.period", "update", reason));
        }
        let memory = resources.memory().as_ref();
        if memory.and_then(|memory| memory.check_before_update()) == Some(true) {
            let limit = memory.and_then(|memory| memory.limit());
            let used = self.stats()?.memory_bytes.unwrap_or(0);
            if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok())
                && limit < used
            {
                let reason = format!("{used} bytes are in use");
                return Err(Error::unenforceable("memory.limit", limit, reason));
            }
        }
        let mut undo = Vec::new();
        let result = self.apply(&settings.writes, &mut undo);
        if result.is_err() {
            for (file, old) in undo.into_iter().rev() {
                // The failure being reported is the first one; what the kernel held
                // a moment ago it takes back, but for races with its own counters.
                file::write(&file, &old).unwrap_or_default();
            }
        }
        result
    }

    /// Writes every setting. Some depend on another (v1 wants memory+swap above
    /// memory at every moment, a burst below its quota), so what fails is tried
    /// again after the rest for as long as something succeeds.
    fn apply(&self, settings: &[Setting], undo: &mut Vec<(PathBuf, String)>) -> Result<()> {
        let mut waiting: Vec<&Setting> = settings.iter().collect();
        loop {
            let before = waiting.len();
            let mut failure = None;
            let mut failed = Vec::new();
            for setting in waiting {
                if let Err(error) = self.set(setting, undo) {
                    failure.get_or_insert(error);
                    failed.push(setting);
                }
            }
            match failure {
                None => return Ok(()),
                Some(error) if failed.len() == before => return Err(error),
                Some(_) => waiting = failed,
            }
        }
    }

    fn set(&self, setting: &Setting, undo: &mut Vec<(PathBuf, String)>) -> Result<()> {
        let folder = match setting.version {
            Version::V1 => self.v1(setting.controller),
            Version::V2 => self.record.v2.as_deref(),
        };
        let unenforceable =
            |reason| Error::unenforceable(setting.field.as_str(), &setting.value, reason);
        let mut files = setting
            .files
            .iter()
            .filter_map(|name| Some(folder?.join(name)));
        let Some(file) = files.find(|file| file.exists()) else {
            return Err(unenforceable(format!(
                "the kernel has no {}",
                setting.files.join(" or ")
            )));
        };
        // What cannot be read back cannot be put back either.
        let old = file::read(&file)
            .ok()
            .map(|old| match &setting.device_reset {
                Some(reset) => device_line(&old, reset),
                None => old,
            });
        file::write(&file, &setting.value).map_err(|source| Error::Refused {
            field: setting.field.clone(),
            value: setting.value.clone(),
            file: file.clone(),
            source,
        })?;
        undo.extend(old.map(|old| (file.clone(), old)));
        if let (Some(name), Some(folder)) = (setting.effective, folder) {
            let shown = folder.join(name);
            let effective = file::read(&shown).map_err(Error::file("read", &shown))?;
            if !covers(&setting.value, &effective) {
                return Err(unenforceable(format!("only {effective} can be had here")));
            }
        }
        Ok(())
    }

    fn restrict_devices(&self, rules: &[device_filter::Rule]) -> Result<()> {
        let path = self.main_folder().to_owned();
        if let Some(folder) = self.v2_dir_fd() {
            return device_filter::attach(&device_filter::compile(rules), folder)
                .map_err(|source| Error::Devices { path, source });
        }
        let Some(folder) = self.v1(Controller::Devices) else {
            let reason = "this host has neither cgroup v2 nor the v1 devices controller";
            return Err(Error::unenforceable("devices", "rules", reason));
        };
        for (name, value) in device_filter::v1_writes(rules) {
            let file = folder.join(name);
            file::write(&file, &value).map_err(|source| Error::Refused {
                field: "devices".into(),
                value,
                file,
                source,
            })?;
        }
        Ok(())
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

fn controllers(folder: &Path) -> Result<BTreeSet<Controller>> {
    let file = folder.join("cgroup.controllers");
    let text = file::read(&file).map_err(Error::file("read", &file))?;
    let listed = |controller: &Controller| text.split(' ').any(|name| name == controller.name());
    Ok(Controller::ALL.into_iter().filter(listed).collect())
}

fn version(
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
    path: &Path,
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
        let hand_down = |folder: &Path| enable_controllers(folder, &enable);
        record.v2 = Some(made.path(base, path, hand_down, |_| Ok(()))?);
    }
    let mut done: BTreeMap<&Path, PathBuf> = BTreeMap::new();
    for controller in wanted {
        let Some(base) = layout.v1(*controller) else {
            continue;
        };
        if !done.contains_key(base) {
            let cpusets = layout.v1(Controller::Cpuset) == Some(base);
            let inherit = |folder: &Path| {
                if cpusets {
                    inherit_cpuset(folder)
                } else {
                    Ok(())
                }
            };
            done.insert(base, made.path(base, path, |_| Ok(()), inherit)?);
        }
        record.v1.insert(*controller, done[base].clone());
    }
    let v2 = record.v2.as_deref().map(open_folder).transpose()?;
    let cgroup = Cgroup { record, v2 };
    cgroup.apply(&settings.writes, &mut Vec::new())?;
    Ok(cgroup)
}

/// Lets children of `folder` use controllers, cgroup-v2.rst "Enabling and Disabling".
fn enable_controllers(folder: &Path, controllers: &[Controller]) -> Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let enabled = file::read(&file).map_err(Error::file("read", &file))?;
    let missing: Vec<String> = controllers
        .iter()
        .filter(|controller| !enabled.split(' ').any(|name| name == controller.name()))
        .map(|controller| format!("+{controller}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    match file::write(&file, &missing.join(" ")) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(Error::Layout {
            reason: format!(
                "{} holds processes itself and so cannot limit its children; \
                 delegate a subgroup to them (systemd: DelegateSubgroup=)",
                folder.display()
            ),
        }),
        Err(error) => Err(Error::file("enable controllers in", &file)(error)),
    }
}

/// A new v1 cpuset is empty and takes no process before it has both lists, cpuset(7).
fn inherit_cpuset(folder: &Path) -> Result<()> {
    let Some(parent) = folder.parent() else {
        return Ok(());
    };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(name), folder.join(name));
        if file::read(&to)
            .map_err(Error::file("read", &to))?
            .is_empty()
        {
            let value = file::read(&from).map_err(Error::file("read", &from))?;
            file::write(&to, &value).map_err(Error::file("write", &to))?;
        }
    }
    Ok(())
}

/// The folders that one `create` has made, in order.
#[derive(Debug, Default)]
struct Made {
    folders: Vec<PathBuf>,
}

impl Made {
    /// Makes `base/path`; the last part must be new, or empty and then made anew.
    fn path(
        &mut self,
        base: &Path,
        path: &Path,
        parent: impl Fn(&Path) -> Result<()>,
        made: impl Fn(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mut folder = base.to_owned();
        let mut parts = path.iter().peekable();
        while let Some(name) = parts.next() {
            parent(&folder)?;
            folder.push(name);
            if parts.peek().is_none() {
                match std::fs::remove_dir(&folder) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        return Err(Error::InUse { path: folder });
                    }
                    Err(error) => return Err(Error::file("replace", &folder)(error)),
                }
            }
            self.folder(&folder)?;
            made(&folder)?;
        }
        Ok(folder)
    }

    fn folder(&mut self, folder: &Path) -> Result<()> {
        match std::fs::create_dir(folder) {
            Ok(()) => self.folders.push(folder.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("make", folder)(error)),
        }
        Ok(())
    }

    /// Removes them again. An outer folder that somebody else uses by now stays,
    /// which is not an error.
    fn undo(self) {
        for folder in self.folders.iter().rev() {
            std::fs::remove_dir(folder).unwrap_or_default();
        }
    }
}

/// The line that `MAJ:MIN` of `reset` has in a file, or else `reset` itself.
fn device_line(content: &str, reset: &str) -> String {
    let key = reset.split(' ').next().unwrap_or_default();
    let same = |line: &&str| line.split(' ').next() == Some(key);
    content.lines().find(same).unwrap_or(reset).to_owned()
}

/// Whether every number of `inner` is in `outer`, both lists as in cpuset(7).
fn covers(outer: &str, inner: &str) -> bool {
    let (Some(outer), Some(inner)) = (settings::parse_list(outer), settings::parse_list(inner))
    else {
        return false;
    };
    let inside = |number: u32| outer.iter().any(|range| range.contains(&number));
    inner.into_iter().flatten().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_compared_by_what_they_contain() {
        assert!(covers("0-3,7", "1,2-3,7"));
        assert!(!covers("0-3", "3-4"));
        assert!(!covers("0", ""), "an unreadable list proves nothing");
    }

    #[test]
    fn the_old_line_of_a_device_is_found_or_its_reset_used() {
        let file = "8:0 rbps=1 wbps=max\n18:0 rbps=2 wbps=max";
        assert_eq!(device_line(file, "8:0 rbps=max"), "8:0 rbps=1 wbps=max");
        assert_eq!(device_line(file, "8:1 rbps=max"), "8:1 rbps=max");
    }
}
