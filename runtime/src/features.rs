//! What this runtime supports, as callers ask for it (OCI runtime spec, features.md).

use std::collections::HashMap;

use oci_spec::runtime::{
    Apparmor, Features, IDMap, IntelRdt, LinuxFeature, LinuxNamespaceType as Kind, MemoryPolicy,
    MemoryPolicyFlagType as MemoryFlag, MemoryPolicyModeType as MemoryMode, MountExtensions,
    NetDevices, Selinux,
};

use crate::cgroup::ANNOTATION;
use crate::criu::Criu;
use crate::{cgroup, plan, seccomp};

/// Versions of the spec whose configurations are understood.
pub const OCI_VERSIONS: (&str, &str) = ("1.0.0", "1.3.0");

/// All kinds of hooks.
const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

const NAMESPACES: [Kind; 8] = [
    Kind::Cgroup,
    Kind::Ipc,
    Kind::Mount,
    Kind::Network,
    Kind::Pid,
    Kind::Time,
    Kind::User,
    Kind::Uts,
];

const MEMORY_MODES: [MemoryMode; 7] = [
    MemoryMode::MpolBind,
    MemoryMode::MpolDefault,
    MemoryMode::MpolInterleave,
    MemoryMode::MpolLocal,
    MemoryMode::MpolPreferred,
    MemoryMode::MpolPreferredMany,
    MemoryMode::MpolWeightedInterleave,
];

const MEMORY_FLAGS: [MemoryFlag; 3] = [
    MemoryFlag::MpolFNumaBalancing,
    MemoryFlag::MpolFRelativeNodes,
    MemoryFlag::MpolFStaticNodes,
];

/// Annotations that change what is done; one that ends in a dot is a prefix.
const ANNOTATIONS: [&str; 1] = [ANNOTATION];

/// Everything that this runtime can do, whatever the kernel is that it runs on; but
/// for `seccomp.supportedFlags`, which are the kernel's, and
/// for the annotation about checkpoints.
#[must_use]
pub fn features() -> Features {
    let mut features = Features::default();
    features
        .set_oci_version_min(OCI_VERSIONS.0.to_owned())
        .set_oci_version_max(OCI_VERSIONS.1.to_owned())
        .set_hooks(Some(HOOKS.map(str::to_owned).to_vec()))
        .set_mount_options(Some(mount_options()))
        .set_linux(Some(linux()))
        .set_annotations(Some(annotations()))
        .set_potentially_unsafe_config_annotations(Some(ANNOTATIONS.map(str::to_owned).to_vec()));
    features
}

/// As runc tells callers that containers can be saved: where CRIU's program is.
fn annotations() -> HashMap<String, String> {
    let there = Criu::find().is_some().to_string();
    HashMap::from([(
        "org.opencontainers.runc.checkpoint.enabled".to_owned(),
        there,
    )])
}

/// Every mount option that is not a file system's own, sorted.
#[must_use]
pub fn mount_options() -> Vec<String> {
    plan::known_mount_options()
}

/// Every capability that a configuration may name, by its number.
#[must_use]
pub fn capabilities() -> Vec<String> {
    plan::KNOWN_CAPABILITIES.map(str::to_owned).to_vec()
}

fn linux() -> LinuxFeature {
    let mut memory = MemoryPolicy::default();
    memory
        .set_modes(Some(MEMORY_MODES.map(|mode| mode.to_string()).to_vec()))
        .set_flags(Some(MEMORY_FLAGS.map(|flag| flag.to_string()).to_vec()));
    let mut apparmor = Apparmor::default();
    apparmor.set_enabled(Some(true));
    let mut selinux = Selinux::default();
    selinux.set_enabled(Some(true));
    let mut rdt = IntelRdt::default();
    rdt.set_enabled(Some(true))
        .set_schemata(Some(true))
        .set_monitoring(Some(true));
    let mut idmap = IDMap::default();
    idmap.set_enabled(Some(true));
    let mut mounts = MountExtensions::default();
    mounts.set_idmap(Some(idmap));
    let mut devices = NetDevices::default();
    devices.set_enabled(Some(true));
    let mut linux = LinuxFeature::default();
    linux
        .set_namespaces(Some(NAMESPACES.to_vec()))
        .set_capabilities(Some(capabilities()))
        .set_cgroup(Some(cgroup::features()))
        .set_seccomp(Some(seccomp::support()))
        .set_apparmor(Some(apparmor))
        .set_selinux(Some(selinux))
        .set_intel_rdt(Some(rdt))
        .set_memory_policy(Some(memory))
        .set_mount_extensions(Some(mounts))
        .set_net_devices(Some(devices));
    linux
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_listed_is_in_the_specs_words() {
        let listed = serde_json::to_value(features()).unwrap();
        for (pointer, value) in [
            ("/ociVersionMax", json!("1.3.0")),
            ("/linux/namespaces/2", json!("mount")),
            ("/linux/namespaces/5", json!("time")),
            ("/linux/capabilities/0", json!("CAP_CHOWN")),
            ("/linux/capabilities/40", json!("CAP_CHECKPOINT_RESTORE")),
            ("/linux/memoryPolicy/modes/0", json!("MPOL_BIND")),
            ("/linux/mountExtensions/idmap/enabled", json!(true)),
            ("/linux/netDevices/enabled", json!(true)),
            ("/linux/seccomp/enabled", json!(true)),
            ("/linux/apparmor/enabled", json!(true)),
            ("/linux/intelRdt/enabled", json!(true)),
            ("/linux/intelRdt/monitoring", json!(true)),
            (
                "/potentiallyUnsafeConfigAnnotations/0",
                json!("org.systemd.property."),
            ),
        ] {
            assert_eq!(listed.pointer(pointer), Some(&value), "{pointer}");
        }
        let options = mount_options();
        let once: BTreeSet<_> = options.iter().collect();
        assert_eq!(once.len(), options.len(), "an option is listed twice");
    }
}
