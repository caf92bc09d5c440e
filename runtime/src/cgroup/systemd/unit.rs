//! A container's group that is a scope of systemd.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

use super::super::create::{Wanted, controllers, limited, version, wanted};
use super::super::devices;
use super::super::error::{Error, Result};
use super::super::folders::{Made, enable_controllers, inherit_cpuset};
use super::super::layout::{Controller, Layout, detect_mounts};
use super::super::place::Unit;
use super::super::settings::{self, Settings, Version};
use super::super::{Cgroup, Record, UnitRecord};
use super::wire::Value;
use super::{Holder, Property, Systemd, properties};
use crate::device_filter::Policy;

/// What is asked for, thought out.
struct Request<'a> {
    layout: Layout,
    unit: &'a Unit,
    settings: Settings,
    devices: Policy,
    wanted: BTreeSet<Controller>,
}

impl Cgroup {
    /// Makes a scope with all of `resources` in force. A process of ours is in it until
    /// [`Cgroup::admit`] lets init in.
    pub(in super::super) fn create_unit(
        unit: &Unit,
        user: bool,
        annotations: &[(String, String)],
        resources: &LinuxResources,
    ) -> Result<Self> {
        let layout = detect_mounts()?;
        let available = match layout.v2() {
            Some(base) => controllers(base)?,
            None => BTreeSet::new(),
        };
        let version = |controller| version(&layout, &available, controller);
        let settings = settings::plan(resources, &version, None)?;
        let devices = devices::policy(resources, Path::new(&unit.name))?;
        let mut annotated = Vec::new();
        for (name, value) in annotations {
            annotated.push(properties::of_annotation(name, value)?);
        }
        let wanted = wanted(&layout, &settings, &version, Wanted::Usual);
        let mut systemd = Systemd::connect(user)?;
        let holder = Holder::new().map_err(super::Error::Holder)?;
        let request = Request {
            layout,
            unit,
            settings,
            devices,
            wanted,
        };
        let mut all = request.properties(holder.pid(), systemd.version);
        all.extend(annotated);
        systemd.start_unit(&unit.name, &all)?;
        let made = request.settle(&mut systemd, user, holder);
        if made.is_err() {
            systemd.stop_unit(&unit.name).unwrap_or_default();
        }
        made
    }

    /// Lets a process in that could not be born in the group, and the one out that has
    /// held it open until now.
    ///
    /// # Errors
    /// When the kernel or systemd refuses.
    pub fn admit(&self, pid: Pid) -> Result<()> {
        if self.v2_dir_fd().is_none() && self.record.v2.is_some() {
            match &self.record.unit {
                Some(unit) if unit.user => {
                    let pid = pid.as_raw_nonzero().get().unsigned_abs();
                    Systemd::connect(true)?.attach(&unit.name, pid)?;
                }
                _ => self.enter_v2(pid)?,
            }
        }
        drop(self.holder.take());
        Ok(())
    }

    /// Tells systemd what was written to files.
    pub(in super::super) fn tell_systemd<'a>(
        &self,
        files: impl Iterator<Item = (&'a str, &'a str)>,
        devices: Option<&Policy>,
    ) -> Result<()> {
        let Some(unit) = &self.record.unit else {
            return Ok(());
        };
        let mut systemd = Systemd::connect(unit.user)?;
        let mut all = properties::of_files(files, systemd.version);
        if let Some(devices) = devices {
            all.extend(properties::of_devices(devices, self.devices_version()));
        }
        Ok(systemd.set_properties(&unit.name, &all)?)
    }

    fn devices_version(&self) -> Version {
        if self.record.v1.contains_key(&Controller::Devices) {
            Version::V1
        } else {
            Version::V2
        }
    }

    /// Stops the scope, if it is one.
    pub(in super::super) fn stop_unit(&self) -> Result<()> {
        drop(self.holder.take());
        match &self.record.unit {
            Some(unit) => Ok(Systemd::connect(unit.user)?.stop_unit(&unit.name)?),
            None => Ok(()),
        }
    }
}

impl Request<'_> {
    /// As runc has them, `UnifiedManager.Apply` and `LegacyManager.Apply`.
    fn properties(&self, holder: u32, version: u32) -> Vec<Property> {
        let flag = |name: &str, value| (name.to_owned(), Value::Bool(value));
        let description = format!("dyno container {}", self.unit.name);
        let pids = Value::Array("u".into(), vec![Value::U32(holder)]);
        let on_v1 = |controller| self.layout.v1(controller).is_some();
        let io = if on_v1(Controller::Io) {
            "BlockIOAccounting"
        } else {
            "IOAccounting"
        };
        let mut all = vec![
            ("Description".to_owned(), Value::Str(description)),
            ("Slice".to_owned(), Value::str(&self.unit.slice)),
            flag("Delegate", true),
            ("PIDs".to_owned(), pids),
            flag("MemoryAccounting", true),
            flag("CPUAccounting", true),
            flag(io, true),
            flag("TasksAccounting", true),
            flag("DefaultDependencies", false),
        ];
        let devices = if on_v1(Controller::Devices) && self.layout.v2().is_none() {
            Version::V1
        } else {
            Version::V2
        };
        all.extend(properties::of_devices(&self.devices, devices));
        all.extend(properties::of_settings(&self.settings.writes, version));
        let group = |setting: &&settings::Setting| {
            let (file, _) = &setting.choices[0];
            file == "memory.oom.group"
        };
        let kills = self.settings.writes.iter().find(group);
        // Of scopes since 253.
        if let Some(kills) = kills.filter(|_| version >= 253) {
            let policy = match kills.choices[0].1.trim() {
                "1" => "kill",
                _ => "continue",
            };
            all.push(("OOMPolicy".to_owned(), Value::str(policy)));
        }
        all
    }

    /// Folders that systemd does not make, and the limits.
    fn settle(self, systemd: &mut Systemd, user: bool, holder: Holder) -> Result<Cgroup> {
        let group = systemd.control_group(&self.unit.name)?;
        let group = super::super::layout::relative(&group)?;
        let mut record = Record {
            monitor_kills_on_oom: self.settings.monitor_kills_on_oom,
            unit: Some(UnitRecord {
                name: self.unit.name.clone(),
                user,
            }),
            ..Record::default()
        };
        if let Some(base) = self.layout.v2() {
            self.enable(base, &group)?;
            record.v2 = Some(base.join(&group));
        }
        let mut done: BTreeMap<&Path, PathBuf> = BTreeMap::new();
        for controller in &self.wanted {
            let Some(base) = self.layout.v1(*controller) else {
                continue;
            };
            if !done.contains_key(base) {
                let cpusets = self.layout.v1(Controller::Cpuset) == Some(base);
                let mut made = Made::default();
                let mut folder = base.to_owned();
                for part in &group {
                    folder.push(part);
                    made.folder(&folder)?;
                }
                if cpusets {
                    inherit_cpuset(base, &folder)?;
                }
                done.insert(base, folder);
            }
            record.v1.insert(*controller, done[base].clone());
        }
        let cgroup = limited(record, &self.settings, Some(holder))?;
        cgroup.restrict_devices(&self.devices)?;
        Ok(cgroup)
    }

    /// systemd hands down the controllers that it knows. Others (hugetlb, rdma) we hand
    /// down, as far as we may: a limit that needs one says so itself.
    fn enable(&self, base: &Path, group: &Path) -> Result<()> {
        let there = controllers(&base.join(group))?;
        let missing = self.wanted.iter().copied().filter(|controller| {
            self.layout.v1(*controller).is_none() && !there.contains(controller)
        });
        let missing: Vec<Controller> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut folder = base.to_owned();
        for part in group {
            if let Err(Error::File { source, .. }) = enable_controllers(&folder, &missing)
                && source.kind() != std::io::ErrorKind::PermissionDenied
                && source.kind() != std::io::ErrorKind::NotFound
            {
                return Err(Error::file("enable controllers in", &folder)(source));
            }
            folder.push(part);
        }
        Ok(())
    }
}
