//! Namespaces that are new, with what belongs to them, and those that are joined.

use dyno_tests::bundle::{Bundle, ID_BASE};
use dyno_tests::until;
use serde_json::{Value, json};

const KINDS: [(&str, &str); 8] = [
    ("user", "user"),
    ("pid", "pid"),
    ("mount", "mnt"),
    ("network", "net"),
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Adds a namespace, or gives one that is there a path.
fn set(bundle: &mut Bundle, kind: &str, path: Option<String>) {
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
    namespaces.push(match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    });
}

/// A container that sleeps, for others to join.
fn running() -> Bundle {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    set(&mut bundle, "time", None);
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
    let create = bundle.create();
    assert!(create.status.success(), "{create:?}");
    bundle.start();
    bundle
}

fn path_of(bundle: &Bundle, name: &str) -> String {
    format!("/proc/{}/ns/{name}", bundle.state()["pid"])
}

fn link(path: &str) -> String {
    std::fs::read_link(path).unwrap().display().to_string()
}

fn refusal(bundle: &Bundle) -> String {
    let run = bundle.run();
    assert!(!run.create.status.success(), "{run:?}");
    let state = bundle.call(&["state", bundle.id()]);
    assert!(!state.status.success(), "something is left: {state:?}");
    run.stderr
}

fn seconds(uptime: &str) -> i64 {
    let whole = uptime.split('.').next().unwrap();
    whole.trim().parse().unwrap()
}

#[test]
fn the_clocks_of_a_new_time_namespace_are_ahead_as_asked() {
    for user_namespace in [true, false] {
        let mut bundle = Bundle::script(
            "cat /proc/uptime; readlink /proc/self/ns/time; cat /proc/self/timens_offsets",
        );
        if !user_namespace {
            bundle = bundle.as_host_root();
        }
        set(&mut bundle, "time", None);
        bundle.config["linux"]["timeOffsets"] =
            json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": -1, "nanosecs": 5}});
        let output = bundle.output();
        let host = seconds(&std::fs::read_to_string("/proc/uptime").unwrap());
        let mut lines = output.lines();
        let ahead = seconds(lines.next().unwrap()) - host;
        assert!((999_900..1_000_001).contains(&ahead), "{ahead}");
        assert_ne!(lines.next().unwrap(), link("/proc/self/ns/time"));
        let words: Vec<&str> = output.split_whitespace().collect();
        assert!(
            words.ends_with(&["monotonic", "-1", "5", "boottime", "1000000", "0"]),
            "{output}"
        );
    }
}

#[test]
fn a_time_namespace_without_offsets_is_new_all_the_same() {
    let mut bundle = Bundle::script("readlink /proc/self/ns/time");
    set(&mut bundle, "time", None);
    assert_ne!(bundle.output().trim(), link("/proc/self/ns/time"));
}

#[test]
fn an_offset_that_turns_a_clock_negative_is_named() {
    let mut bundle = Bundle::new(&["true"]);
    set(&mut bundle, "time", None);
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": -1_000_000_000}});
    let message = refusal(&bundle);
    assert!(message.contains("linux.timeOffsets"), "{message}");
}

#[test]
fn every_namespace_but_the_mounts_is_joined_by_its_path() {
    let other = running();
    let names = KINDS.iter().filter(|(kind, _)| *kind != "mount");
    let script: String = names
        .clone()
        .map(|(_, name)| format!("readlink /proc/self/ns/{name}; "))
        .collect();
    let mut bundle = Bundle::script(&format!(
        "{script} id -u; stat -c %u /etc; cat /proc/uptime; sleep 1000"
    ));
    for (kind, name) in names.clone() {
        set(&mut bundle, kind, Some(path_of(&other, name)));
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    // The mappings are those of the namespace.
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let create = bundle.create();
    assert!(create.status.success(), "{create:?}");
    bundle.start();
    let stdout = bundle.path().join("stdout");
    until("it has told", || {
        std::fs::read_to_string(&stdout).unwrap().lines().count() == 10
    });
    let told = std::fs::read_to_string(&stdout).unwrap();
    let expected: Vec<String> = names
        .map(|(_, name)| link(&path_of(&other, name)))
        .collect();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..7], expected);
    assert_eq!(lines[7..9], ["0", "0"], "{told}");
    assert!(seconds(lines[9]) > 1_000_000);
    // A further process is where the first one is.
    let exec = bundle.call(&["exec", bundle.id(), "sh", "-c", &script]);
    assert!(exec.status.success(), "{exec:?}");
    let told = String::from_utf8(exec.stdout).unwrap();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    // Its cgroup is its own, whatever namespace it looks through.
    let groups =
        std::fs::read_to_string(format!("/proc/{}/cgroup", bundle.state()["pid"])).unwrap();
    assert!(
        groups.contains(bundle.id()) && !groups.contains(other.id()),
        "{groups}"
    );
    let made = std::fs::metadata(bundle.path().join("upper")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), ID_BASE);
}

#[test]
fn one_namespace_after_the_other_is_joined_with_and_without_a_user_namespace() {
    let other = running();
    for user_namespace in [true, false] {
        for (kind, name) in KINDS {
            if ["mount", "user"].contains(&kind) {
                continue;
            }
            let mut bundle = Bundle::script(&format!("readlink /proc/self/ns/{name}"));
            if !user_namespace {
                bundle = bundle.as_host_root();
            }
            bundle.config.as_object_mut().unwrap().remove("hostname");
            // What may be mounted depends on who owns the namespaces.
            let mounts = bundle.config["mounts"].as_array_mut().unwrap();
            let kernels =
                |mount: &Value| mount["destination"].as_str().unwrap().starts_with("/sys");
            mounts.retain(|mount| kind == "cgroup" || !kernels(mount));
            if kind == "pid" && user_namespace {
                // A procfs is its pid namespace's owner's to mount.
                mounts.retain(|mount| mount["destination"] != "/proc");
                mounts
                    .push(json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]}));
            }
            let path = path_of(&other, name);
            set(&mut bundle, kind, Some(path.clone()));
            let run = bundle.run();
            if !(kind == "pid" && user_namespace) {
                assert_eq!(
                    run.stdout.trim(),
                    link(&path),
                    "{kind} {user_namespace}: {run:?}"
                );
            }
        }
    }
}

#[test]
fn a_path_that_leads_to_no_such_namespace_is_refused() {
    let fifo = Bundle::new(&["true"]);
    let pipe = fifo.path().join("fifo");
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    for (kind, path, expected) in [
        ("network", "/proc/self/ns/uts", "a network namespace"),
        ("uts", "/proc/self/ns/net", "a uts namespace"),
        ("time", "/proc/self/ns/pid", "a time namespace"),
        ("cgroup", "/etc/passwd", "a cgroup namespace"),
        ("user", "/proc/self/ns/mnt", "a user namespace"),
        ("ipc", pipe.to_str().unwrap(), "an ipc namespace"),
        ("pid", "/nosuch", "/nosuch"),
        ("user", "/proc/self/ns/user", "other than the host's"),
        ("network", "relative", "absolute"),
        ("mount", "/proc/self/ns/mnt", "a mount namespace by path"),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        set(&mut bundle, kind, Some(path.to_owned()));
        let message = refusal(&bundle);
        assert!(message.contains(expected), "{kind} {path}: {message}");
    }
}

#[test]
fn what_is_set_in_a_joined_namespace_never_reaches_the_host() {
    // Its own namespace by a path is the host's all the same.
    let file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = [
        std::fs::read_to_string("/proc/sys/kernel/hostname"),
        std::fs::read_to_string(file),
    ]
    .map(Result::unwrap);
    for (kind, name) in [("uts", "uts"), ("network", "net")] {
        let mut bundle = Bundle::new(&["true"]).as_host_root();
        set(&mut bundle, kind, Some(format!("/proc/self/ns/{name}")));
        if kind == "network" {
            bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
        }
        let message = refusal(&bundle);
        assert!(message.contains("linux.namespaces.path"), "{message}");
        let now = [
            std::fs::read_to_string("/proc/sys/kernel/hostname"),
            std::fs::read_to_string(file),
        ];
        assert_eq!(now.map(Result::unwrap), before);
    }
}

#[test]
fn mappings_beside_a_joined_user_namespace_must_be_its_own() {
    let other = running();
    let mut bundle = Bundle::script("cat /proc/self/uid_map | tr -s ' '");
    set(&mut bundle, "user", Some(path_of(&other, "user")));
    assert_eq!(bundle.output().trim(), format!("0 {ID_BASE} 65536"));
    bundle.config["linux"]["uidMappings"][0]["size"] = json!(10);
    let message = refusal(&bundle);
    assert!(message.contains("mappings that are given"), "{message}");
}

#[test]
fn several_ranges_of_ids_make_one_user_namespace() {
    let mut bundle = Bundle::script(
        "cat /proc/self/uid_map | tr -s ' '; touch /made; chown 5000:6000 /made; stat -c %u:%g /made /owned",
    );
    bundle.config["linux"]["uidMappings"] = json!([
        {"containerID": 0, "hostID": ID_BASE, "size": 1000},
        {"containerID": 5000, "hostID": ID_BASE + 50_000, "size": 1},
        {"containerID": 1000, "hostID": ID_BASE + 1000, "size": 1000},
    ]);
    bundle.config["linux"]["gidMappings"] = json!([
        {"containerID": 0, "hostID": ID_BASE, "size": 10},
        {"containerID": 6000, "hostID": ID_BASE + 60_000, "size": 10},
    ]);
    let owned = bundle.path().join("layer/owned");
    std::fs::File::create(&owned).unwrap();
    std::os::unix::fs::chown(&owned, Some(5000), Some(6009)).unwrap();
    let output = bundle.output();
    let expected = format!(
        " 0 {ID_BASE} 1000\n 5000 {} 1\n 1000 {} 1000\n5000:6000\n5000:6009\n",
        ID_BASE + 50_000,
        ID_BASE + 1000
    );
    assert_eq!(output, expected);
    let made = std::fs::metadata(bundle.path().join("upper/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), ID_BASE + 50_000);
}

#[test]
fn a_sysctl_of_its_user_namespace_is_set() {
    let mut bundle = Bundle::script("cat /proc/sys/user/max_net_namespaces");
    bundle.config["linux"]["sysctl"] = json!({"user.max_net_namespaces": "7"});
    let host = std::fs::read_to_string("/proc/sys/user/max_net_namespaces").unwrap();
    assert_eq!(bundle.output(), "7\n");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/user/max_net_namespaces").unwrap(),
        host
    );
}
