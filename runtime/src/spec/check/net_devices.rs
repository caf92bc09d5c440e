//! Network devices of the host's and their names in the container.

use oci_spec::runtime::{Linux, LinuxNamespaceType as Kind, LinuxNetDevice};

use super::super::SpecError;
use super::find;

/// The name of a device in the container; without one it keeps the host's.
pub(crate) fn inside_name<'a>(host: &'a str, device: &'a LinuxNetDevice) -> &'a str {
    let name = device.name().as_deref().filter(|name| !name.is_empty());
    name.unwrap_or(host)
}

pub(super) fn check_net_devices(linux: &Linux) -> Result<(), SpecError> {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{checked, complaint, config};

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
}
