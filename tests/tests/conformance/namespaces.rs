//! config-linux.md, "Namespaces", "User namespace mappings"; config.md, "Hostname".

use std::process::{Command, Stdio};

use serde_json::json;

use crate::rig::Container;

fn host(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    format!("{}\n", link.to_string_lossy())
}

#[test]
fn each_that_is_listed_is_new_and_no_other() {
    for (kind, file) in [
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("network", "net"),
        ("pid", "pid"),
    ] {
        let script = format!("readlink /proc/self/ns/{file}");
        assert_ne!(Container::script(&script).output(), host(file), "{kind}");
        let mut shared = Container::script(&script);
        shared.without_namespace(kind);
        if kind == "uts" {
            shared.config.as_object_mut().unwrap().remove("hostname");
        }
        if kind == "network" {
            // The kernel shows sysfs only to who owns the network.
            let mounts = shared.config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys");
            let linux = &mut shared.config["linux"];
            linux["maskedPaths"] = json!([]);
        }
        assert_eq!(shared.output(), host(file), "{kind}");
    }
}

#[test]
fn a_cgroup_namespace_begins_at_its_own_group() {
    let mut container = Container::script("cut -d: -f3 /proc/self/cgroup | sort -u");
    container.push("/linux/namespaces", json!({"type": "cgroup"}));
    assert_eq!(container.output(), "/\n");
}

#[test]
fn its_first_process_is_number_one() {
    assert_eq!(Container::script("echo $$").output(), "1\n");
}

#[test]
fn one_by_path_is_joined() {
    for (kind, file, flag) in [
        ("uts", "uts", "--uts"),
        ("ipc", "ipc", "--ipc"),
        ("network", "net", "--net"),
    ] {
        let mut holder = Command::new("unshare")
            .args([flag, "sh", "-c", "echo; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 1];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let path = format!("/proc/{}/ns/{file}", holder.id());
        let theirs = std::fs::read_link(&path).unwrap();
        let mut container = Container::script(&format!("readlink /proc/self/ns/{file}"));
        container.without_namespace(kind);
        container.push("/linux/namespaces", json!({"type": kind, "path": path}));
        let output = container.run();
        holder.kill().unwrap();
        holder.wait().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            told,
            format!("{}\n", theirs.to_string_lossy()),
            "{output:?}"
        );
    }
}

#[test]
fn ids_are_mapped_into_a_user_namespace() {
    let mut container =
        Container::script("cat /proc/self/uid_map | tr -s ' '; id -u; stat -c %u /");
    container.with_user_namespace();
    assert_eq!(container.output(), " 0 1358954496 65536\n0\n0\n");
}

#[test]
fn several_ranges_are_mapped() {
    let mut container = Container::script("cat /proc/self/uid_map | tr -s ' '");
    container.with_user_namespace();
    let ranges = json!([{"containerID": 0, "hostID": 0x5100_0000, "size": 10},
        {"containerID": 10, "hostID": 0x5200_0000, "size": 20}]);
    container.config["linux"]["uidMappings"] = ranges.clone();
    container.config["linux"]["gidMappings"] = ranges;
    assert_eq!(container.output(), " 0 1358954496 10\n 10 1375731712 20\n");
}

#[test]
fn a_time_namespace_has_its_offsets() {
    let mut container = Container::script("cut -d. -f1 /proc/uptime");
    container.push("/linux/namespaces", json!({"type": "time"}));
    container.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    let uptime: u64 = container.output().trim().parse().unwrap();
    assert!(uptime >= 1_000_000_000, "{uptime}");
}

#[test]
fn host_and_domain_name_are_set() {
    let mut container = Container::script("hostname; cat /proc/sys/kernel/domainname");
    container.config["domainname"] = json!("example.org");
    assert_eq!(container.output(), "box\nexample.org\n");
}

#[test]
fn sysctls_of_its_namespaces_are_set() {
    let mut container =
        Container::script("cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward");
    container.config["linux"]["sysctl"] =
        json!({"kernel.msgmax": "4711", "net.ipv4.ip_forward": "1"});
    assert_eq!(container.output(), "4711\n1\n");
}

#[test]
fn a_sysctl_of_the_host_is_refused() {
    let mut container = Container::script("true");
    container.config["linux"]["sysctl"] = json!({"vm.swappiness": "10"});
    container.refused("vm.swappiness");
}

#[test]
fn a_namespace_listed_twice_is_refused() {
    let mut container = Container::script("true");
    container.push("/linux/namespaces", json!({"type": "uts"}));
    container.refused("uts");
}

#[test]
fn a_network_of_its_own_has_loopback_alone_and_up() {
    let told = Container::script("ip -o link | wc -l; ip -o addr | grep -c 127.0.0.1").output();
    assert_eq!(told, "1\n1\n");
}
