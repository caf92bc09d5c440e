//! Namespaces, and what may be set in those of the container's own only.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Kind, Spec};

use super::super::SpecError;
use super::mappings::check_mappings;
use super::{find, refuse_first, repeated};

pub(super) fn check_namespaces(linux: &Linux) -> Result<(), SpecError> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    if let Some(twice) = repeated(namespaces, LinuxNamespace::typ) {
        return Err(SpecError::Invalid {
            property: "linux.namespaces",
            value: twice.to_string(),
            expected: "each type once",
        });
    }
    let by_path = |kind| find(linux, kind).is_some_and(|namespace| namespace.path().is_some());
    refuse_first(&[
        (
            find(linux, Kind::Mount).is_none(),
            "a container without a mount namespace",
        ),
        // It would have its root changed under it.
        (by_path(Kind::Mount), "a mount namespace by path"),
    ])?;
    for namespace in namespaces {
        let relative = |path: &&PathBuf| !path.is_absolute();
        if let Some(path) = namespace.path().as_ref().filter(relative) {
            return Err(SpecError::Invalid {
                property: "linux.namespaces.path",
                value: path.display().to_string(),
                expected: "an absolute path",
            });
        }
    }
    check_time_offsets(linux)?;
    for (property, mappings) in [
        ("linux.uidMappings", linux.uid_mappings()),
        ("linux.gidMappings", linux.gid_mappings()),
    ] {
        check_mappings(property, mappings.as_deref().unwrap_or_default())?;
    }
    let new_user = find(linux, Kind::User).is_some_and(|namespace| namespace.path().is_none());
    if !new_user {
        return Ok(());
    }
    for (property, mappings) in [
        ("linux.uidMappings", linux.uid_mappings()),
        ("linux.gidMappings", linux.gid_mappings()),
    ] {
        let mappings = mappings.as_ref().ok_or(SpecError::Missing(property))?;
        let has_root = |mapping: &LinuxIdMapping| mapping.container_id() == 0 && mapping.size() > 0;
        if !mappings.iter().any(has_root) {
            return Err(SpecError::Invalid {
                property,
                value: format!("{mappings:?}"),
                expected: "among others a mapping of id 0, who sets the container up",
            });
        }
    }
    Ok(())
}

/// Clocks can be set while a time namespace is new and nobody lives in it.
fn check_time_offsets(linux: &Linux) -> Result<(), SpecError> {
    let new = find(linux, Kind::Time).is_some_and(|namespace| namespace.path().is_none());
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let expected = if !new {
            "a time namespace of the container's own for it"
        } else if !["monotonic", "boottime"].contains(&clock.as_str()) {
            "the clock monotonic or boottime"
        } else if offset.nanosecs().is_some_and(|n| n >= 1_000_000_000) {
            "less than 1000000000 nanosecs"
        } else {
            continue;
        };
        return Err(SpecError::Invalid {
            property: "linux.timeOffsets",
            value: clock.clone(),
            expected,
        });
    }
    Ok(())
}

/// Names and sysctls belong to namespaces; without one of its own the
/// container would set those of the host.
pub(super) fn check_host_is_left_alone(spec: &Spec, linux: &Linux) -> Result<(), SpecError> {
    let own = |kind| find(linux, kind).is_some();
    let named = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    refuse_first(&[
        (
            named(spec.hostname()) && !own(Kind::Uts),
            "a hostname without a uts namespace",
        ),
        (
            named(spec.domainname()) && !own(Kind::Uts),
            "a domainname without a uts namespace",
        ),
    ])?;
    for key in linux.sysctl().iter().flat_map(|sysctls| sysctls.keys()) {
        let kind = sysctl_namespace(key);
        if !kind.is_some_and(own) {
            return Err(SpecError::Invalid {
                property: "linux.sysctl",
                value: key.clone(),
                expected: "a sysctl of a namespace that the container has of its own",
            });
        }
    }
    Ok(())
}

/// The namespace that a sysctl belongs to, `namespaces(7)`; `None` for the
/// whole machine's.
pub(crate) fn sysctl_namespace(key: &str) -> Option<Kind> {
    const IPC: [&str; 11] = [
        "auto_msgmni",
        "msgmax",
        "msgmnb",
        "msgmni",
        "msg_next_id",
        "sem",
        "sem_next_id",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    ];
    let key = key.replace('/', ".");
    match key.split_once('.')? {
        ("net", _) => Some(Kind::Network),
        ("fs", name) if name.starts_with("mqueue.") => Some(Kind::Ipc),
        ("kernel", name) if IPC.contains(&name) || name == "shm_next_id" => Some(Kind::Ipc),
        ("kernel", "domainname") => Some(Kind::Uts),
        ("user", _) => Some(Kind::User),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{checked, complaint, config};

    #[test]
    fn the_names_of_the_host_are_not_the_containers_to_set() {
        let namespaces = json!([{"type": "mount"}]);
        let message = complaint("/linux/namespaces", namespaces);
        assert!(message.contains("hostname without"), "{message}");
    }

    #[test]
    fn a_sysctl_needs_the_namespace_that_it_belongs_to() {
        for key in [
            "kernel.core_pattern",
            "kernel/core_pattern",
            "vm.swappiness",
            "net.ipv4.ip_forward",
            "kernel.msgmax",
            "kernel.hostname",
            "fs.mqueuex",
            "net",
            "",
        ] {
            let message = complaint("/linux/sysctl", json!({key: "1"}));
            assert!(message.contains(key), "{key}: {message}");
        }
        let mut config = config();
        config["linux"]["sysctl"] = json!({"kernel.domainname": "x", "net.core.somaxconn": "1"});
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "network"}));
        checked(config).unwrap();
    }

    #[test]
    fn clocks_are_set_in_a_new_time_namespace_only() {
        let message = |namespace: Value, offsets: Value| {
            let mut config = config();
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(namespace);
            config["linux"]["timeOffsets"] = offsets;
            checked(config).err().unwrap_or_default()
        };
        let new = json!({"type": "time"});
        for (namespace, offsets, expected) in [
            (new.clone(), json!({"realtime": {"secs": 1}}), "boottime"),
            (
                new.clone(),
                json!({"boottime": {"nanosecs": 1_000_000_000}}),
                "nanosecs",
            ),
            (
                json!({"type": "time", "path": "/x"}),
                json!({"boottime": {}}),
                "own",
            ),
        ] {
            let message = message(namespace, offsets);
            assert!(message.contains("linux.timeOffsets"), "{message}");
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(
            message(new, json!({"boottime": {"secs": -5}, "monotonic": {}})),
            ""
        );
    }

    #[test]
    fn id_0_must_be_mapped_into_a_new_user_namespace() {
        let without_root = json!([{"containerID": 1, "hostID": 100_000, "size": 10}]);
        for name in ["uidMappings", "gidMappings"] {
            let message = complaint(&format!("/linux/{name}"), without_root.clone());
            assert!(message.contains(name), "{message}");
            let message = complaint(&format!("/linux/{name}"), json!(null));
            assert!(message.contains(name), "{message}");
        }
    }
}
