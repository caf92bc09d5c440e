//! Who the payload is: capability sets as bit masks.

use oci_spec::runtime::{Capability, LinuxCapabilities};
use rustix::thread::CapabilitySet;

/// The five capability sets of `capabilities(7)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capabilities {
    /// What execve may ever grant.
    pub(crate) bounding: CapabilitySet,
    /// What the kernel checks.
    pub(crate) effective: CapabilitySet,
    /// What may be made effective.
    pub(crate) permitted: CapabilitySet,
    /// What is kept over execve of a file that has it inheritable.
    pub(crate) inheritable: CapabilitySet,
    /// What is kept over execve.
    pub(crate) ambient: CapabilitySet,
}

impl Capabilities {
    /// No capability at all.
    pub(crate) const NONE: Self = Self {
        bounding: CapabilitySet::empty(),
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
        ambient: CapabilitySet::empty(),
    };

    /// The sets of a configuration; absent ones are empty.
    pub(crate) fn from_spec(capabilities: Option<&LinuxCapabilities>) -> Self {
        let Some(capabilities) = capabilities else {
            return Self::NONE;
        };
        let bits = |set: &Option<std::collections::HashSet<Capability>>| {
            capability_bits(set.iter().flatten())
        };
        let permitted = bits(capabilities.permitted());
        let inheritable = bits(capabilities.inheritable());
        Self {
            bounding: bits(capabilities.bounding()),
            effective: bits(capabilities.effective()),
            permitted,
            inheritable,
            // The kernel lets no other be ambient. Configurations ask for it all
            // the same: since inheritable sets were found to be dangerous their
            // makers leave them out and keep the ambient ones (CVE-2022-29162).
            ambient: bits(capabilities.ambient()) & permitted & inheritable,
        }
    }
}

impl Capabilities {
    /// The first that its holder would have and whoever has these has not:
    /// nobody gives what he does not have.
    pub(crate) fn beyond(&self, own: CapabilitySet) -> Option<&'static str> {
        let held = self.effective | self.permitted | self.inheritable | self.ambient;
        let missing = (held - own).bits();
        let mut known = KNOWN_CAPABILITIES.iter().enumerate();
        let (_, name) = known.find(|(number, _)| missing & (1 << number) != 0)?;
        Some(name)
    }
}

/// The bit mask of these capabilities.
fn capability_bits<'a>(set: impl Iterator<Item = &'a Capability>) -> CapabilitySet {
    set.map(|&capability| bit(capability))
        .fold(CapabilitySet::empty(), CapabilitySet::union)
}

fn bit(capability: Capability) -> CapabilitySet {
    match capability {
        Capability::AuditControl => CapabilitySet::AUDIT_CONTROL,
        Capability::AuditRead => CapabilitySet::AUDIT_READ,
        Capability::AuditWrite => CapabilitySet::AUDIT_WRITE,
        Capability::BlockSuspend => CapabilitySet::BLOCK_SUSPEND,
        Capability::Bpf => CapabilitySet::BPF,
        Capability::CheckpointRestore => CapabilitySet::CHECKPOINT_RESTORE,
        Capability::Chown => CapabilitySet::CHOWN,
        Capability::DacOverride => CapabilitySet::DAC_OVERRIDE,
        Capability::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
        Capability::Fowner => CapabilitySet::FOWNER,
        Capability::Fsetid => CapabilitySet::FSETID,
        Capability::IpcLock => CapabilitySet::IPC_LOCK,
        Capability::IpcOwner => CapabilitySet::IPC_OWNER,
        Capability::Kill => CapabilitySet::KILL,
        Capability::Lease => CapabilitySet::LEASE,
        Capability::LinuxImmutable => CapabilitySet::LINUX_IMMUTABLE,
        Capability::MacAdmin => CapabilitySet::MAC_ADMIN,
        Capability::MacOverride => CapabilitySet::MAC_OVERRIDE,
        Capability::Mknod => CapabilitySet::MKNOD,
        Capability::NetAdmin => CapabilitySet::NET_ADMIN,
        Capability::NetBindService => CapabilitySet::NET_BIND_SERVICE,
        Capability::NetBroadcast => CapabilitySet::NET_BROADCAST,
        Capability::NetRaw => CapabilitySet::NET_RAW,
        Capability::Perfmon => CapabilitySet::PERFMON,
        Capability::Setgid => CapabilitySet::SETGID,
        Capability::Setfcap => CapabilitySet::SETFCAP,
        Capability::Setpcap => CapabilitySet::SETPCAP,
        Capability::Setuid => CapabilitySet::SETUID,
        Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
        Capability::SysBoot => CapabilitySet::SYS_BOOT,
        Capability::SysChroot => CapabilitySet::SYS_CHROOT,
        Capability::SysModule => CapabilitySet::SYS_MODULE,
        Capability::SysNice => CapabilitySet::SYS_NICE,
        Capability::SysPacct => CapabilitySet::SYS_PACCT,
        Capability::SysPtrace => CapabilitySet::SYS_PTRACE,
        Capability::SysRawio => CapabilitySet::SYS_RAWIO,
        Capability::SysResource => CapabilitySet::SYS_RESOURCE,
        Capability::SysTime => CapabilitySet::SYS_TIME,
        Capability::SysTtyConfig => CapabilitySet::SYS_TTY_CONFIG,
        Capability::Syslog => CapabilitySet::SYSLOG,
        Capability::WakeAlarm => CapabilitySet::WAKE_ALARM,
    }
}

/// All capabilities, by the kernel's number.
pub(crate) const KNOWN_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(sets: serde_json::Value) -> Capabilities {
        let sets: LinuxCapabilities = serde_json::from_value(sets).unwrap();
        Capabilities::from_spec(Some(&sets))
    }

    #[test]
    fn absent_sets_are_empty() {
        for capabilities in [Capabilities::from_spec(None), of(json!({}))] {
            assert!(capabilities.bounding.is_empty() && capabilities.permitted.is_empty());
        }
    }

    #[test]
    fn only_what_is_permitted_and_inheritable_is_ambient() {
        let both = json!(["CAP_KILL", "CAP_CHOWN"]);
        let ambient = |inheritable: serde_json::Value| {
            of(json!({"permitted": both, "inheritable": inheritable, "ambient": both})).ambient
        };
        assert_eq!(ambient(json!([])), CapabilitySet::empty());
        assert_eq!(ambient(json!(["CAP_KILL"])), CapabilitySet::KILL);
        assert_eq!(
            ambient(both.clone()),
            CapabilitySet::KILL | CapabilitySet::CHOWN
        );
    }

    #[test]
    fn the_known_capabilities_are_in_the_kernels_order() {
        for (number, name) in KNOWN_CAPABILITIES.into_iter().enumerate() {
            let found = of(json!({"bounding": [name]})).bounding;
            assert_eq!(found.bits(), 1 << number, "{name}");
        }
    }

    #[test]
    fn a_capability_has_the_kernels_number() {
        let all = of(json!({"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]}));
        assert_eq!(all.bounding.bits(), 1 | 1 << 21 | 1 << 40);
    }
}
