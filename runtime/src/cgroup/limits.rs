//! Writing limits, all or none of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use super::create::controllers;
use super::error::{Error, Result};
use super::layout::Controller;
use super::settings::{self, Setting, Version};
use super::{Cgroup, file};

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
        self.check_update(resources, version(Controller::Cpu))?;
        let settings = settings::plan(resources, &version)?;
        if settings.monitor_kills_on_oom && !self.record.monitor_kills_on_oom {
            let reason = "on cgroup v1 it has to be asked for when the container is created";
            return Err(Error::unenforceable("unified[memory.oom.group]", 1, reason));
        }
        let devices = match resources.devices().as_deref() {
            None | Some([]) => None,
            Some(rules) => Some(self.policy(rules)?),
        };
        let mut undo = Vec::new();
        let mut result = self.apply(&settings.writes, &mut undo);
        if let (Ok(()), Some(devices)) = (&result, devices) {
            result = self.restrict_devices(&devices).map(drop);
        }
        if result.is_err() {
            for (file, old) in undo.into_iter().rev() {
                // The failure being reported is the first one; what the kernel held
                // a moment ago it takes back, but for races with its own counters.
                file::write(&file, &old).unwrap_or_default();
            }
        }
        result
    }

    /// Refuses what can be had at creation only, or not at this moment.
    fn check_update(&self, resources: &LinuxResources, cpu: Option<Version>) -> Result<()> {
        if let (Some(Version::V2), Some(time)) = (cpu, resources.cpu()) {
            let period = time.period().filter(|period| *period != 0);
            let quota = time.quota().filter(|quota| *quota != 0);
            if let (Some(period), None) = (period, quota) {
                let reason = "on cgroup v2 both are one value: give cpu.quota too";
                return Err(Error::unenforceable("cpu.period", period, reason));
            }
        }
        let memory = resources
            .memory()
            .filter(|memory| memory.check_before_update() == Some(true));
        let limit = memory.and_then(|memory| u64::try_from(memory.limit()?).ok());
        if let Some(limit) = limit {
            let used = self.stats()?.memory_bytes.unwrap_or(0);
            if limit < used {
                let reason = format!("{used} bytes are in use");
                return Err(Error::unenforceable("memory.limit", limit, reason));
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
