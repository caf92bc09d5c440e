//! What a configuration must be before anything is made of it.
//!
//! Refused is what is malformed, what would silently be less than was asked
//! for (P18), and what would change the host instead of the container.
//!
//! Long because it is a list: a short function for each property, with the words
//! that refuse it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Kind, LinuxNetDevice, PosixRlimit,
    Process, Spec,
};

use super::SpecError;

/// Checks a container's whole configuration.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    if !spec.version().starts_with("1.") {
        return Err(SpecError::Invalid {
            property: "ociVersion",
            value: spec.version().clone(),
            expected: "a version 1.x of the runtime spec",
        });
    }
    if spec.root().is_none() {
        return Err(SpecError::Missing("root"));
    }
    check_strings(spec)?;
    let process = spec
        .process()
        .as_ref()
        .ok_or(SpecError::Missing("process"))?;
    check_process(process)?;
    let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
    if linux.intel_rdt().is_some() {
        return Err(intel_rdt());
    }
    super::process::check_linux(linux)?;
    check_net_devices(linux)?;
    check_hooks(spec)?;
    for mount in spec.mounts().iter().flatten() {
        for (property, mappings) in [
            ("mounts.uidMappings", mount.uid_mappings()),
            ("mounts.gidMappings", mount.gid_mappings()),
        ] {
            check_mappings(property, mappings.as_deref().unwrap_or_default())?;
        }
    }
    check_namespaces(linux)?;
    check_host_is_left_alone(spec, linux)
}

/// No string with a NUL byte can reach the kernel.
fn check_strings(spec: &Spec) -> Result<(), SpecError> {
    let text = |text: &Option<String>| text.iter().cloned().collect();
    let list = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let root = spec.root().iter().map(|root| path(root.path()));
    let mut strings: Vec<(&'static str, Vec<String>)> = vec![
        ("hostname", text(spec.hostname())),
        ("domainname", text(spec.domainname())),
        ("root.path", root.collect()),
    ];
    for mount in spec.mounts().iter().flatten() {
        let source = mount.source().iter().map(|source| path(source));
        strings.extend([
            ("mounts.destination", vec![path(mount.destination())]),
            ("mounts.type", text(mount.typ())),
            ("mounts.source", source.collect()),
            ("mounts.options", list(mount.options())),
        ]);
    }
    if let Some(linux) = spec.linux() {
        let devices = linux.devices().iter().flatten();
        let sysctls = linux.sysctl().iter().flatten();
        strings.extend([
            (
                "linux.devices.path",
                devices.map(|device| path(device.path())).collect(),
            ),
            (
                "linux.sysctl",
                sysctls
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect(),
            ),
            ("linux.maskedPaths", list(linux.masked_paths())),
            ("linux.readonlyPaths", list(linux.readonly_paths())),
            ("linux.mountLabel", text(linux.mount_label())),
        ]);
    }
    refuse_nul(strings)
}

fn refuse_nul(strings: Vec<(&'static str, Vec<String>)>) -> Result<(), SpecError> {
    for (property, texts) in strings {
        if let Some(value) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(SpecError::Invalid {
                property,
                value,
                expected: "a text without NUL bytes",
            });
        }
    }
    Ok(())
}

/// A relative path would depend on whoever calls us; time only goes forward.
fn check_hooks(spec: &Spec) -> Result<(), SpecError> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    let prestart = hooks.prestart();
    let kinds = [
        prestart,
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    for hook in kinds.into_iter().flatten().flatten() {
        let invalid = |property, value, expected| SpecError::Invalid {
            property,
            value,
            expected,
        };
        if !hook.path().is_absolute() {
            let path = hook.path().display().to_string();
            return Err(invalid("hooks.path", path, "an absolute path"));
        }
        if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
            let expected = "a number of seconds above 0";
            return Err(invalid("hooks.timeout", timeout.to_string(), expected));
        }
    }
    Ok(())
}

/// The checks that also bind a process executed in a running container.
pub(crate) fn check_process(process: &Process) -> Result<(), SpecError> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(SpecError::Missing("process.args"));
    }
    if !process.cwd().is_absolute() {
        return Err(SpecError::Invalid {
            property: "process.cwd",
            value: process.cwd().display().to_string(),
            expected: "an absolute path",
        });
    }
    refuse_nul(vec![
        ("process.args", process.args().clone().unwrap_or_default()),
        ("process.env", process.env().clone().unwrap_or_default()),
        (
            "process.cwd",
            vec![process.cwd().to_string_lossy().into_owned()],
        ),
    ])?;
    let rlimits = process.rlimits().as_deref().unwrap_or_default();
    if let Some(limit) = rlimits.iter().find(|limit| limit.soft() > limit.hard()) {
        return Err(SpecError::Invalid {
            property: "process.rlimits",
            value: format!("{} {} {}", limit.typ(), limit.soft(), limit.hard()),
            expected: "a soft limit that is at most the hard one",
        });
    }
    if let Some(twice) = repeated(rlimits, PosixRlimit::typ) {
        return Err(SpecError::Invalid {
            property: "process.rlimits",
            value: twice.to_string(),
            expected: "each type once",
        });
    }
    check_user(process)?;
    check_capabilities(process)?;
    super::process::check(process)
}

/// The kernel takes -1 for "as it was": whoever asks for that user would stay root.
fn check_user(process: &Process) -> Result<(), SpecError> {
    let user = process.user();
    let groups = user.additional_gids().iter().flatten();
    let groups = groups.map(|gid| ("process.user.additionalGids", *gid));
    let ids = [
        ("process.user.uid", user.uid()),
        ("process.user.gid", user.gid()),
    ];
    for (property, id) in ids.into_iter().chain(groups) {
        if id == u32::MAX {
            return Err(SpecError::Invalid {
                property,
                value: id.to_string(),
                expected: "an id, which 4294967295 is not",
            });
        }
    }
    match user.umask() {
        Some(umask) if umask > 0o777 => Err(SpecError::Invalid {
            property: "process.user.umask",
            value: umask.to_string(),
            expected: "at most 511, which is 0777",
        }),
        _ => Ok(()),
    }
}

fn check_capabilities(process: &Process) -> Result<(), SpecError> {
    let Some(capabilities) = process.capabilities() else {
        return Ok(());
    };
    let permitted = capabilities.permitted().clone().unwrap_or_default();
    let mut effective = capabilities.effective().iter().flatten();
    match effective.find(|capability| !permitted.contains(capability)) {
        None => Ok(()),
        Some(capability) => Err(SpecError::Invalid {
            property: "process.capabilities.effective",
            value: capability.to_string(),
            expected: "what is permitted, too",
        }),
    }
}

fn check_namespaces(linux: &Linux) -> Result<(), SpecError> {
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

/// Classes of cache and memory bandwidth are not made, wherever they could be.
fn intel_rdt() -> SpecError {
    let property = "linux.intelRdt";
    match Path::new("/sys/fs/resctrl/schemata").exists() {
        true => SpecError::Unsupported(property),
        false => SpecError::Host {
            property,
            needed: "a resctrl file system on /sys/fs/resctrl",
        },
    }
}

/// The name of a device in the container; without one it keeps the host's.
pub(crate) fn inside_name<'a>(host: &'a str, device: &'a LinuxNetDevice) -> &'a str {
    let name = device.name().as_deref().filter(|name| !name.is_empty());
    name.unwrap_or(host)
}

fn check_net_devices(linux: &Linux) -> Result<(), SpecError> {
    let invalid = |value: &str, expected| {
        Err(SpecError::Invalid {
            property: "linux.netDevices",
            value: value.to_owned(),
            expected,
        })
    };
    let mut names = Vec::new();
    for (host, device) in linux.net_devices().iter().flatten() {
        if find(linux, Kind::Network).is_none() {
            return invalid(host, "a network namespace of the container's own for it");
        }
        let inside = inside_name(host, device);
        if !is_device_name(host) {
            return invalid(host, "the name of a network device");
        }
        let plain = inside.strip_suffix("%d").unwrap_or(inside);
        if inside.len() > 15 || !(is_device_name(plain) || inside == "%d") {
            return invalid(inside, "a name of at most 15 bytes, or one that ends in %d");
        }
        if plain == inside && names.contains(&inside) {
            return invalid(inside, "each name once");
        }
        names.push(inside);
    }
    Ok(())
}

/// What the kernel takes for a name.
fn is_device_name(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c);
    (1..16).contains(&name.len()) && ![".", ".."].contains(&name) && !name.contains(odd)
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

/// What the kernel would take for a mapping; it says no more than "invalid".
fn check_mappings(property: &'static str, mappings: &[LinuxIdMapping]) -> Result<(), SpecError> {
    let invalid = |value: &LinuxIdMapping, expected| {
        let (inside, outside) = (value.container_id(), value.host_id());
        let value = format!("{inside} {outside} {}", value.size());
        Err(SpecError::Invalid {
            property,
            value,
            expected,
        })
    };
    if let Some(first) = mappings.get(MAPPINGS_MAX) {
        return invalid(first, "at most 340 ranges");
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let end = |begin: u32| begin.checked_add(mapping.size());
        if mapping.size() == 0 {
            return invalid(mapping, "a range of at least one id");
        }
        let (Some(inside), Some(outside)) = (end(mapping.container_id()), end(mapping.host_id()))
        else {
            return invalid(mapping, "a range that ends before 4294967295");
        };
        let overlap = |other: &LinuxIdMapping, begin: u32, end: u32, others: u32| {
            begin < others.saturating_add(other.size()) && others < end
        };
        for other in &mappings[..index] {
            if overlap(other, mapping.container_id(), inside, other.container_id())
                || overlap(other, mapping.host_id(), outside, other.host_id())
            {
                return invalid(mapping, "ranges that do not overlap");
            }
        }
    }
    Ok(())
}

/// `UID_GID_MAP_MAX_EXTENTS` of the kernel.
const MAPPINGS_MAX: usize = 340;

/// Names and sysctls belong to namespaces; without one of its own the
/// container would set those of the host.
fn check_host_is_left_alone(spec: &Spec, linux: &Linux) -> Result<(), SpecError> {
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

fn find(linux: &Linux, kind: Kind) -> Option<&LinuxNamespace> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    namespaces.iter().find(|namespace| namespace.typ() == kind)
}

/// The first kind that more than one of `items` has.
fn repeated<T, K: PartialEq>(items: &[T], kind: impl Fn(&T) -> K) -> Option<K> {
    let mut rest = items;
    while let Some((first, others)) = rest.split_first() {
        if others.iter().any(|other| kind(other) == kind(first)) {
            return Some(kind(first));
        }
        rest = others;
    }
    None
}

fn refuse_first(asked: &[(bool, &'static str)]) -> Result<(), SpecError> {
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(SpecError::Unsupported(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config() -> Value {
        let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "hostname": "box",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "uts"}],
                "uidMappings": mapping,
                "gidMappings": mapping,
            },
        })
    }

    fn checked(config: Value) -> Result<(), String> {
        let spec: Spec = serde_json::from_value(config).unwrap();
        check(&spec).map_err(|error| error.to_string())
    }

    /// The complaint about a configuration with one value set.
    fn complaint(pointer: &str, value: Value) -> String {
        let mut config = config();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        checked(config).expect_err(pointer)
    }

    #[test]
    fn a_plain_configuration_is_accepted() {
        checked(config()).unwrap();
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (pointer, value, expected) in [
            ("/ociVersion", json!("2.0.0"), "ociVersion"),
            ("/process/args", json!([]), "process.args"),
            ("/process/cwd", json!("here"), "process.cwd"),
            ("/hooks", json!({"poststop": [{"path": "x"}]}), "hooks.path"),
            (
                "/hooks",
                json!({"poststart": [{"path": "/x", "timeout": 0}]}),
                "hooks.timeout",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "uts", "path": "ns/uts"}]),
                "linux.namespaces.path",
            ),
            ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
            (
                "/linux/timeOffsets",
                json!({"monotonic": {"secs": 1}}),
                "time namespace",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "uts"}, {"type": "uts"}]),
                "each type once",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount", "path": "/x"}, {"type": "uts"}]),
                "mount namespace by path",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "uts"}]),
                "mount namespace",
            ),
            (
                "/process/rlimits",
                json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
                    {"type": "RLIMIT_CPU", "soft": 2, "hard": 2}]),
                "RLIMIT_CPU",
            ),
        ] {
            let message = complaint(pointer, value);
            assert!(message.contains(expected), "{pointer}: {message}");
        }
    }

    #[test]
    fn empty_labels_ask_for_nothing() {
        let mut config = config();
        config["process"]["apparmorProfile"] = json!("");
        checked(config).unwrap();
    }

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
    fn a_network_device_has_a_name_and_somewhere_to_go() {
        let message = |devices: Value| {
            let mut config = config();
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "network"}));
            config["linux"]["netDevices"] = devices;
            checked(config).err().unwrap_or_default()
        };
        for (devices, expected) in [
            (json!({"": {}}), "the name of a network device"),
            (json!({"a/b": {}}), "the name of a network device"),
            (json!({"eth%d": {}}), "the name of a network device"),
            (
                json!({"a234567890123456": {}}),
                "the name of a network device",
            ),
            (json!({"eth0": {"name": "a b"}}), "at most 15"),
            (json!({"eth0": {"name": "a234567890123%d"}}), ""),
            (json!({"eth0": {"name": "a2345678901234%d"}}), "at most 15"),
            (json!({"eth0": {"name": "%d%d"}}), "at most 15"),
            (json!({"eth0": {"name": ".."}}), "at most 15"),
            (
                json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}}),
                "each name once",
            ),
            (
                json!({"eth0": {"name": "e%d"}, "eth1": {"name": "e%d"}}),
                "",
            ),
            (json!({"eth0": {}, "eth1": {"name": ""}}), ""),
        ] {
            let message = message(devices.clone());
            assert_eq!(
                message.is_empty(),
                expected.is_empty(),
                "{devices}: {message}"
            );
            assert!(message.contains(expected), "{devices}: {message}");
        }
        let message = complaint("/linux/netDevices", json!({"eth0": {}}));
        assert!(message.contains("network namespace"), "{message}");
    }

    #[test]
    fn a_nul_byte_is_refused_wherever_it_is() {
        let nul = "a\0b";
        for (pointer, value) in [
            ("/hostname", json!(nul)),
            ("/domainname", json!(nul)),
            ("/root/path", json!(nul)),
            ("/process/args", json!(["x", nul])),
            ("/process/env", json!([nul])),
            ("/process/cwd", json!("/a\0b")),
            ("/mounts", json!([{"destination": "/a\0b"}])),
            ("/mounts", json!([{"destination": "/", "type": nul}])),
            ("/mounts", json!([{"destination": "/", "source": nul}])),
            ("/mounts", json!([{"destination": "/", "options": [nul]}])),
            ("/linux/devices", json!([{"path": "/a\0b", "type": "p"}])),
            ("/linux/sysctl", json!({"net.x": nul})),
            ("/linux/maskedPaths", json!([nul])),
            ("/linux/readonlyPaths", json!([nul])),
            ("/linux/mountLabel", json!(nul)),
        ] {
            let message = complaint(pointer, value);
            let field = pointer.trim_start_matches('/').replace('/', ".");
            assert!(
                message.contains("NUL") && message.contains(&field),
                "{message}"
            );
        }
    }

    #[test]
    fn mappings_that_the_kernel_cannot_take_are_refused_by_their_values() {
        let range = |inside: u32, host: u32, size: u32| json!({"containerID": inside, "hostID": host, "size": size});
        for (mappings, expected) in [
            (json!([range(0, 1000, 0)]), "at least one id"),
            (json!([range(0, u32::MAX, 2)]), "4294967295"),
            (json!([range(u32::MAX, 0, 1)]), "4294967295"),
            (json!([range(0, 1000, 10), range(9, 2000, 10)]), "overlap"),
            (json!([range(0, 1000, 10), range(10, 1009, 1)]), "overlap"),
            (json!([range(0, 1000, 10), range(0, 1000, 10)]), "overlap"),
            (
                json!((0..341).map(|n| range(n, 1000 + n, 1)).collect::<Vec<_>>()),
                "340",
            ),
        ] {
            for name in ["uidMappings", "gidMappings"] {
                let message = complaint(&format!("/linux/{name}"), mappings.clone());
                assert!(
                    message.contains(expected) && message.contains(name),
                    "{message}"
                );
                let mount = json!([{"destination": "/x", "source": "/x", "options": ["bind"],
                    name: mappings}]);
                let message = complaint("/mounts", mount);
                assert!(
                    message.contains(expected) && message.contains(name),
                    "{message}"
                );
            }
        }
        let ranges = json!([range(0, 1000, 10), range(10, 500, 10), range(20, 1010, 1)]);
        let mut config = config();
        config["linux"]["uidMappings"] = ranges;
        checked(config).unwrap();
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
