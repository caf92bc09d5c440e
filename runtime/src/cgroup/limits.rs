//! Writing limits, all or none of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::create::controllers;
use super::error::{Error, Result};
use super::settings::{self, Absent, Current, Setting, Shows, Version};
use super::{Cgroup, devices, file};
use crate::device_filter::Policy;

impl Cgroup {
    /// Changes limits; what `resources` does not mention stays. Device rules, if there
    /// are any, replace all earlier ones but the default devices'; of processes in the
    /// group none ever meets a moment without rules.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; a failed update puts back what it had changed.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let mut v2 = BTreeSet::new();
        if let Some(folder) = &self.record.v2 {
            v2 = controllers(folder)?;
        }
        let version = |controller| match self.record.v1.contains_key(&controller) {
            true => Some(Version::V1),
            false => v2.contains(&controller).then_some(Version::V2),
        };
        self.check_memory(resources)?;
        let settings = settings::plan(resources, &version, Some(&self.current()))?;
        if settings.monitor_kills_on_oom && !self.record.monitor_kills_on_oom {
            let reason = "on cgroup v1 it has to be asked for when the container is created";
            return Err(Error::unenforceable("unified[memory.oom.group]", 1, reason));
        }
        let devices = match resources.devices().as_deref() {
            None | Some([]) => None,
            Some(_) => Some(devices::policy(resources, self.main_folder())?),
        };
        let mut undo = Vec::new();
        let result = self.change(&settings.writes, devices.as_ref(), &mut undo);
        if result.is_err() {
            self.put_back(&undo);
        }
        result
    }

    fn change(
        &self,
        settings: &[Setting],
        devices: Option<&Policy>,
        undo: &mut Vec<(PathBuf, String)>,
    ) -> Result<()> {
        self.apply(settings, undo)?;
        if self.record.unit.is_some() {
            let files = settings.iter().filter_map(|setting| {
                let (file, value) = setting.choices.first()?;
                Some((file.as_str(), value.as_str()))
            });
            self.tell_systemd(files, devices)?;
            // systemd has written its rounded values over ours.
            self.apply(settings, &mut Vec::new())?;
        }
        match devices {
            Some(devices) => self.restrict_devices(devices).map(drop),
            None => Ok(()),
        }
    }

    /// What the kernel held a moment ago it takes back, but for races with its own
    /// counters; the failure being reported is the one that is the reason for this.
    fn put_back(&self, undo: &[(PathBuf, String)]) {
        let write = || {
            for (file, old) in undo.iter().rev() {
                file::write(file, old).unwrap_or_default();
            }
        };
        write();
        let files = undo.iter().rev().filter_map(|(file, old)| {
            let name = file.file_name()?.to_str()?;
            Some((name, old.as_str()))
        });
        if self.record.unit.is_some() && self.tell_systemd(files, None).is_ok() {
            write();
        }
    }

    /// `memory.checkBeforeUpdate`: v2 would kill to get below a new limit. The bounds
    /// are those of runc's `CheckMemoryUsage`.
    fn check_memory(&self, resources: &LinuxResources) -> Result<()> {
        let memory = resources
            .memory()
            .filter(|memory| memory.check_before_update() == Some(true));
        let Some(memory) = memory else {
            return Ok(());
        };
        let Some(used) = self.stats()?.memory_bytes else {
            return Ok(());
        };
        for (field, limit) in [
            ("memory.swap", memory.swap()),
            ("memory.limit", memory.limit()),
        ] {
            let limit = limit.and_then(|limit| u64::try_from(limit).ok());
            if let Some(limit) = limit.filter(|limit| *limit != 0 && *limit <= used) {
                let reason = format!("{used} bytes are in use");
                return Err(Error::unenforceable(field, limit, reason));
            }
        }
        Ok(())
    }

    /// Writes every setting. Some depend on another (v1 wants memory+swap above
    /// memory at every moment, a burst below its quota), so what fails is tried
    /// again after the rest for as long as something succeeds.
    pub(super) fn apply(
        &self,
        settings: &[Setting],
        undo: &mut Vec<(PathBuf, String)>,
    ) -> Result<()> {
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
        let folder = match (setting.version, setting.controller) {
            (Version::V1, Some(controller)) => self.v1(controller),
            _ => self.record.v2.as_deref(),
        };
        let Some((file, value)) = existing(folder, setting) else {
            return absent(setting);
        };
        // What cannot be read back cannot be put back either.
        let old = file::read(&file).ok().and_then(|old| match &setting.shows {
            Shows::TheValue => Some(old),
            Shows::Lines(reset) => Some(device_line(&old, reset)),
            Shows::Number(name) => Some(file::keyed(&old, name)?.to_string()),
        });
        file::write(&file, value).map_err(|source| Error::Refused {
            field: setting.field.clone(),
            value: value.to_owned(),
            file: file.clone(),
            source,
        })?;
        undo.extend(old.map(|old| (file.clone(), old)));
        if let (Some(name), Some(folder)) = (setting.effective, folder) {
            let shown = folder.join(name);
            let effective = file::read(&shown).map_err(Error::file("read", &shown))?;
            if !covers(value, &effective) {
                let reason = format!("only {effective} can be had here");
                return Err(Error::unenforceable(&setting.field, value, reason));
            }
        }
        Ok(())
    }

    /// What an update of v2 depends on beside what it is given.
    fn current(&self) -> Current {
        let read = |name: &str| file::read(&self.record.v2.as_ref()?.join(name)).ok();
        let limit = |name: &str| match read(name)?.as_str() {
            "max" => Some(None),
            number => number.parse().ok().map(Some),
        };
        let quota = read("cpu.max");
        let quota = quota.as_deref().and_then(|both| both.split(' ').next());
        Current {
            quota: quota.map(str::to_owned),
            memory: limit("memory.max"),
            swap: limit("memory.swap.max"),
        }
    }
}

/// The first of a setting's files that the kernel has.
fn existing<'a>(folder: Option<&Path>, setting: &'a Setting) -> Option<(PathBuf, &'a str)> {
    let folder = folder?;
    let mut files = setting.choices.iter();
    files.find_map(|(name, value)| {
        let file = folder.join(name);
        file.exists().then_some((file, value.as_str()))
    })
}

fn absent(setting: &Setting) -> Result<()> {
    let names: Vec<&str> = setting.choices.iter().map(|(name, _)| &**name).collect();
    let value = setting.choices.first().map_or("", |(_, value)| value);
    let hint = match setting.absent {
        Absent::Harmless => return Ok(()),
        Absent::HarmlessWithoutSwap if !has_swap() => return Ok(()),
        Absent::HarmlessWithoutSwap => "; boot with swapaccount=1",
        Absent::Refused => "",
    };
    let reason = format!("the kernel has no {}{hint}", names.join(" or "));
    Err(Error::unenforceable(&setting.field, value, reason))
}

/// `/proc/swaps` has a heading.
fn has_swap() -> bool {
    file::read(Path::new("/proc/swaps")).is_ok_and(|swaps| swaps.lines().count() > 1)
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
