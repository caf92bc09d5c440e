//! Network devices of the host that move into a container (`linux.netDevices`).

use std::process::Command;

use dyno_tests::bundle::Bundle;
use serde_json::json;

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A pair of devices of the host's, of which one may go away.
struct Pair {
    stays: String,
    goes: String,
}

impl Pair {
    fn new(number: u32) -> Self {
        let id = std::process::id();
        let (stays, goes) = (format!("s{number}-{id}"), format!("g{number}-{id}"));
        ip(&["link", "add", &stays, "type", "veth", "peer", "name", &goes]);
        ip(&[
            "link",
            "set",
            &goes,
            "mtu",
            "1333",
            "address",
            "02:00:00:00:00:07",
        ]);
        ip(&[
            "address",
            "add",
            "192.0.2.7/24",
            "broadcast",
            "192.0.2.255",
            "dev",
            &goes,
        ]);
        ip(&["address", "add", "2001:db8::7/64", "dev", &goes, "nodad"]);
        ip(&[
            "address",
            "add",
            "169.254.0.7/16",
            "scope",
            "link",
            "dev",
            &goes,
        ]);
        Self { stays, goes }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // One that went away took the other with it.
        let gone = Command::new("ip")
            .args(["link", "del", &self.stays])
            .output();
        drop(gone.unwrap());
    }
}

#[test]
fn a_device_moves_with_its_name_address_and_mtu() {
    for user_namespace in [true, false] {
        for (name, inside) in [(Some("eth0"), "eth0"), (Some("lan%d"), "lan0"), (None, "")] {
            let pair = Pair::new(0);
            let inside = if inside.is_empty() {
                &pair.goes
            } else {
                inside
            };
            let mut bundle = Bundle::script(&format!(
                "ip link show dev {inside}; ip address show dev {inside}; ls /sys/class/net | sort"
            ));
            if !user_namespace {
                bundle = bundle.as_host_root();
            }
            let device = name.map_or(json!({}), |name| json!({"name": name}));
            bundle.config["linux"]["netDevices"] = json!({ &pair.goes: device });
            let output = bundle.output();
            for word in [
                "mtu 1333",
                "02:00:00:00:00:07",
                ",UP",
                "inet 192.0.2.7/24 brd 192.0.2.255 scope global",
                "inet6 2001:db8::7/64 scope global",
            ] {
                assert!(output.contains(word), "{word}: {output}");
            }
            assert!(!output.contains("169.254"), "of link scope only: {output}");
            assert!(output.ends_with(&format!("{inside}\nlo\n")), "{output}");
            assert!(!ip(&["link"]).contains(&pair.goes));
        }
    }
}

#[test]
fn a_device_of_a_container_that_is_not_made_stays() {
    let pair = Pair::new(0);
    ip(&["link", "set", &pair.goes, "up"]);
    let attempts = [
        // It fails long after the move.
        (
            json!({&pair.goes: {"name": "eth0"}}),
            json!("/nosuch/program"),
            "nosuch",
        ),
        // The second is not there.
        (
            json!({&pair.goes: {}, "nosuch0": {}}),
            json!("true"),
            "nosuch0",
        ),
        (
            json!({&pair.goes: {"name": "lo"}}),
            json!("true"),
            "linux.netDevices",
        ),
    ];
    for (devices, program, expected) in attempts {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["process"]["args"] = json!([program]);
        bundle.config["linux"]["netDevices"] = devices;
        let run = bundle.run();
        assert!(!run.create.status.success(), "{run:?}");
        assert!(run.stderr.contains(expected), "{run:?}");
        let link = ip(&["link", "show", "dev", &pair.goes]);
        assert!(link.contains("mtu 1333") && link.contains(",UP"), "{link}");
        let addresses = ip(&["address", "show", "dev", &pair.goes]);
        for address in ["192.0.2.7/24", "2001:db8::7/64"] {
            assert!(addresses.contains(address), "{addresses}");
        }
    }
}

#[test]
fn devices_need_a_network_namespace_that_is_not_the_hosts() {
    for path in [None, Some("/proc/self/ns/net")] {
        let pair = Pair::new(0);
        let mut bundle = Bundle::new(&["true"]).as_host_root();
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
        if let Some(path) = path {
            namespaces.push(json!({"type": "network", "path": path}));
        }
        bundle.config["linux"]["netDevices"] = json!({&pair.goes: {"name": "eth0"}});
        let run = bundle.run();
        assert!(!run.create.status.success(), "{run:?}");
        assert!(run.stderr.contains("netDevices"), "{run:?}");
        ip(&["link", "show", "dev", &pair.goes]);
    }
}

#[test]
fn several_devices_move_together() {
    let (one, other) = (Pair::new(0), Pair::new(1));
    let mut bundle = Bundle::script("ls /sys/class/net | sort | tr '\\n' ' '");
    bundle.config["linux"]["netDevices"] =
        json!({&one.goes: {"name": "e%d"}, &other.goes: {"name": "e%d"}});
    assert_eq!(bundle.output(), "e0 e1 lo ");
}
