//! Delegation: the group of a container that manages groups of its own.
//!
//! `config-linux.md`, "Cgroup ownership": where a new cgroup namespace is asked for, and
//! the hierarchy is mounted writable, the container's user owns the group's folder and
//! those of its files that the kernel names (cgroups(7), "Cgroup delegation: delegating
//! a hierarchy"). No other, or the container could lift its own limits. As runc does,
//! only in a user namespace: otherwise root owns it anyway.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{AtFlags, CWD, Uid, chownat};

use super::error::{Error, Result};
use super::{Cgroup, file};

const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// What the spec names for a kernel that names none.
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

/// The host's id of the user that the container's group shall belong to, if to any.
#[must_use]
pub fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let new = |kind| {
        let mut of_kind = namespaces
            .iter()
            .filter(|namespace| namespace.typ() == kind);
        of_kind.any(|namespace| namespace.path().is_none())
    };
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let kind = mount.typ().as_deref();
        let cgroup = mount.source().as_deref() == Some(Path::new("cgroup"))
            || matches!(kind, Some("cgroup" | "cgroup2"));
        let options = mount.options().as_deref().unwrap_or_default();
        cgroup
            && mount.destination() == Path::new("/sys/fs/cgroup")
            && !options.iter().any(|option| option == "ro")
    });
    if !new(LinuxNamespaceType::Cgroup) || !new(LinuxNamespaceType::User) || !writable {
        return None;
    }
    let user = spec.process().as_ref()?.user().uid();
    let mappings = linux.uid_mappings().as_deref().unwrap_or_default();
    mappings.iter().find_map(|mapping| {
        let offset = user.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then_some(())?;
        mapping.host_id().checked_add(offset)
    })
}

impl Cgroup {
    /// Gives the group to a user of the host, for a container that [`owner`] says so of.
    /// Where any controller is v1 nothing happens: handing those down is not safe, says
    /// the spec, and a part of them would be of no use.
    ///
    /// # Errors
    /// When a file that exists cannot be given away.
    pub fn delegate_to(&self, uid: u32) -> Result<()> {
        let Some(folder) = self
            .record
            .v2
            .as_deref()
            .filter(|_| self.record.v1.is_empty())
        else {
            return Ok(());
        };
        let names = file::read(Path::new(DELEGATE)).unwrap_or_else(|_| FILES.into());
        let own = |path: &Path| {
            let done = chownat(
                CWD,
                path,
                Some(Uid::from_raw(uid)),
                None,
                AtFlags::SYMLINK_NOFOLLOW,
            );
            match done {
                // Not every group has every file.
                Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
                Err(error) => Err(Error::file("give away", path)(error)),
            }
        };
        own(folder)?;
        let plain = |name: &&str| !name.is_empty() && !name.contains('/');
        let mut names = names.lines().filter(plain);
        names.try_for_each(|name| own(&folder.join(name)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec() -> Value {
        json!({
            "ociVersion": "1.3.0",
            "process": { "user": { "uid": 5, "gid": 0 }, "args": ["x"], "cwd": "/" },
            "mounts": [{
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "rw"],
            }],
            "linux": {
                "namespaces": [{ "type": "user" }, { "type": "cgroup" }],
                "uidMappings": [
                    { "containerID": 0, "hostID": 1000, "size": 1 },
                    { "containerID": 1, "hostID": 100_000, "size": 65_536 },
                ],
            },
        })
    }

    #[test]
    fn a_group_belongs_to_the_containers_user_only_where_the_spec_says_so() {
        let of = |spec: Value| owner(&serde_json::from_value(spec).unwrap());
        assert_eq!(of(spec()), Some(100_004));
        let changes = [
            ("/mounts/0/options", json!(["ro"])),
            ("/mounts", json!([])),
            ("/mounts/0/destination", json!("/sys/fs/cgroup/x")),
            ("/linux/namespaces", json!([{ "type": "user" }])),
            ("/linux/namespaces", json!([{ "type": "cgroup" }])),
            (
                "/linux/namespaces/1",
                json!({ "type": "cgroup", "path": "/proc/1/ns/cgroup" }),
            ),
            ("/process/user/uid", json!(70_000)),
        ];
        for (path, value) in changes {
            let mut spec = spec();
            *spec.pointer_mut(path).unwrap() = value.clone();
            assert_eq!(of(spec), None, "{path} {value}");
        }
    }
}
