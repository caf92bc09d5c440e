//! Device rules of a cgroup: put in force, changed, put back.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::error::{Error, Result};
use super::layout::Controller;
use super::{Cgroup, file};
use crate::device_filter::{self, Policy, Rule};

/// What was in force before.
#[derive(Debug)]
pub(crate) enum Before {
    /// Nothing of ours, or nothing was changed.
    Nothing,
    Program(OwnedFd),
    Lists(Policy),
}

/// What the rules of this group come to.
pub(super) fn policy(resources: &LinuxResources, group: &Path) -> Result<Policy> {
    let rules = resources.devices().as_deref().unwrap_or_default();
    device_filter::policy(rules).map_err(|source| Error::Devices {
        path: group.to_owned(),
        source,
    })
}

impl Cgroup {
    /// Puts a policy in force. On v2 the program before it is replaced in one step, on
    /// v1 only what differs is written.
    pub(crate) fn restrict_devices(&self, policy: &Policy) -> Result<Before> {
        let path = self.main_folder().to_owned();
        let failed = |source| Error::Devices { path, source };
        if let Some(folder) = self.v2_folder() {
            return match device_filter::attach(&device_filter::compile(policy), folder) {
                Ok(old) => Ok(old.map_or(Before::Nothing, Before::Program)),
                Err(error) if is_needless(&error) => Ok(Before::Nothing),
                Err(error) => Err(failed(error)),
            };
        }
        let Some(folder) = self.v1(Controller::Devices) else {
            let reason = "this host has neither cgroup v2 nor the v1 devices controller; \
                          mount one of them";
            return Err(Error::unenforceable("devices", "rules", reason));
        };
        let current = listed(folder)?;
        let result = write(folder, &current.transition(policy)).and_then(|()| {
            let now = listed(folder)?;
            let holds = if policy.allow_by_default {
                now.allow_by_default
            } else {
                now == *policy
            };
            holds
                .then_some(())
                .ok_or_else(|| failed(device_filter::Error::NotInForce))
        });
        match result {
            Ok(()) => Ok(Before::Lists(current)),
            Err(error) => {
                self.put_back_devices(Before::Lists(current));
                Err(error)
            }
        }
    }

    /// Undoes [`Cgroup::restrict_devices`], as far as the kernel lets us: the failure
    /// that is the reason for it is what is reported.
    pub(super) fn put_back_devices(&self, before: Before) {
        match (before, self.v2_folder(), self.v1(Controller::Devices)) {
            (Before::Program(old), Some(folder), _) => {
                device_filter::reattach(&old, folder).unwrap_or_default();
            }
            (Before::Lists(old), _, Some(folder)) => {
                if let Ok(now) = listed(folder) {
                    write(folder, &now.transition(&old)).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
}

fn listed(folder: &Path) -> Result<Policy> {
    let list = folder.join("devices.list");
    let text = file::read(&list).map_err(Error::file("read", &list))?;
    Policy::from_list(&text).map_err(|source| Error::Devices { path: list, source })
}

fn write(folder: &Path, rules: &[Rule]) -> Result<()> {
    for rule in rules {
        let (file, value) = (folder.join(rule.v1_file()), rule.line());
        file::write(&file, &value).map_err(|source| Error::Refused {
            field: "devices".into(),
            value,
            file,
            source,
        })?;
    }
    Ok(())
}

/// In a user namespace other than the host's nobody may attach a program, nor is it
/// needed: no node can be made there (`mknod(2)`: EPERM), and none opened but those
/// that the host has put there. runc and crun do without there, too.
fn is_needless(error: &device_filter::Error) -> bool {
    let device_filter::Error::Bpf { source, .. } = error else {
        return false;
    };
    let map = file::read(Path::new("/proc/self/uid_map")).unwrap_or_default();
    let hosts = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    source.kind() == std::io::ErrorKind::PermissionDenied && !hosts
}
