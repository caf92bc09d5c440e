//! Device rules against the kernel, as root: a program that is attached decides.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dyno_runtime::cgroup::{Cgroup, Controller, Layout, detect, prune};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsmount, fsopen};
use rustix::process::Pid;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(20);

/// A group with device rules, and a folder with nodes of our own.
struct Fixture {
    layout: Layout,
    outer: String,
    cgroup: Cgroup,
    nodes: PathBuf,
}

impl Fixture {
    fn new(name: &str, layout: Layout, devices: Value) -> Self {
        let outer = format!("/dyno-test-devices-{}-{name}", std::process::id());
        let resources = serde_json::from_value(json!({ "devices": devices })).unwrap();
        let cgroup = Cgroup::create(&layout, &format!("{outer}/a"), &resources).unwrap();
        let nodes = std::env::temp_dir().join(&outer[1..]);
        std::fs::create_dir(&nodes).unwrap();
        // kmsg and null, under names that say nothing.
        for (name, major, minor) in [("kmsg", 1, 11), ("null", 1, 3)] {
            let node = nodes.join(name);
            let mode = Mode::from_raw_mode(0o666);
            let device = makedev(major, minor);
            mknodat(CWD, &node, FileType::CharacterDevice, mode, device).unwrap();
        }
        Self {
            layout,
            outer,
            cgroup,
            nodes,
        }
    }

    /// Whether a shell line succeeds, outside the group and inside it.
    fn succeeds(&self, line: &str) -> (bool, bool) {
        let run = |confined: bool| {
            let mut child = Command::new("/bin/sh")
                .args(["-c", &format!("read go; {line}")])
                .current_dir(&self.nodes)
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            if confined {
                self.cgroup.add(Pid::from_child(&child)).unwrap();
            }
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            child.wait().unwrap().success()
        };
        (run(false), run(true))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.cgroup.kill().unwrap();
        self.cgroup.remove(LONG).unwrap();
        prune(&self.layout, &self.outer).unwrap();
        std::fs::remove_dir_all(&self.nodes).unwrap();
    }
}

/// `(true, …)` is the control: without the rules it works.
fn assert_confined(fixture: &Fixture) {
    assert_eq!(
        fixture.succeeds("exec 3<kmsg"),
        (true, false),
        "kmsg is not in the list"
    );
    assert_eq!(
        fixture.succeeds("exec 3<null && exec 4>null"),
        (true, true),
        "null is"
    );
    let make = |name: &str, numbers: &str| format!("mknod {name} c {numbers} && rm {name}");
    let made = "mknod x c 1 11 && { exec 3<x; s=$?; rm x; exit $s; }";
    assert_eq!(
        fixture.succeeds(&make("x", "1 11")),
        (true, true),
        "it may be made, as under runc"
    );
    assert_eq!(fixture.succeeds(made), (true, false), "which opens nothing");
    assert_eq!(fixture.succeeds(&make("y", "1 3")), (true, true));
}

// P16: deny all, then the list.
#[test]
fn a_device_that_no_rule_allows_cannot_be_opened() {
    let layout = detect().unwrap();
    assert!(layout.v2().is_some(), "this test needs a v2 tree");
    let fixture = Fixture::new("none", layout, json!([]));
    assert_confined(&fixture);
}

#[test]
fn an_allowed_access_works_and_no_other() {
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" },
    ]);
    let fixture = Fixture::new("read", detect().unwrap(), rules);
    assert_eq!(fixture.succeeds("exec 3<kmsg"), (true, true));
    assert_eq!(fixture.succeeds("exec 3>kmsg"), (true, false));
    assert_eq!(
        fixture.succeeds("exec 3<>kmsg"),
        (true, false),
        "both at once need both"
    );
}

/// `BPF_F_REPLACE`, or on v1 only what differs: a program that opens an allowed device
/// all the time sees nothing of it.
fn assert_updated_without_a_gap(fixture: &Fixture) {
    let allow = |minor: u32| json!({ "allow": true, "type": "c", "major": 1, "minor": minor });
    let update = |devices: Value| {
        let resources = serde_json::from_value(json!({ "devices": devices })).unwrap();
        fixture.cgroup.update(&resources)
    };
    let mut child = Command::new("/bin/sh")
        .args([
            "-c",
            "read go; while exec 3<null; do [ -e stop ] && exit 7; done",
        ])
        .current_dir(&fixture.nodes)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    fixture.cgroup.add(Pid::from_child(&child)).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    for round in 0..50 {
        update(json!([allow(11), allow(round)])).unwrap();
        assert_eq!(fixture.succeeds("exec 3<kmsg"), (true, true));
        update(json!([allow(round + 300)])).unwrap();
        assert_eq!(fixture.succeeds("exec 3<kmsg"), (true, false));
    }
    std::fs::File::create(fixture.nodes.join("stop")).unwrap();
    assert_eq!(
        child.wait().unwrap().code(),
        Some(7),
        "null could be opened all the time"
    );

    update(json!([allow(11)])).unwrap();
    let hole = json!({ "allow": false, "type": "c", "major": 5, "minor": 0, "access": "m" });
    assert!(update(json!([{ "allow": true, "type": "c", "major": 5 }, hole])).is_err());
    assert_eq!(
        fixture.succeeds("exec 3<kmsg"),
        (true, true),
        "a refusal changes nothing"
    );
    update(json!([{ "allow": true, "access": "rwm" }])).unwrap();
    assert_eq!(fixture.succeeds("exec 3<kmsg && exec 3>kmsg"), (true, true));
    update(json!([allow(300)])).unwrap();
    assert_confined(fixture);
}

#[test]
fn an_update_replaces_the_rules_without_a_gap() {
    let fixture = Fixture::new("update", detect().unwrap(), json!([]));
    assert_updated_without_a_gap(&fixture);
}

#[test]
fn hundreds_of_rules_still_load() {
    let rules: Vec<Value> = (0..500)
        .map(|minor| json!({ "allow": true, "type": "c", "major": 300, "minor": minor, "access": "rw" }))
        .collect();
    let fixture = Fixture::new("many", detect().unwrap(), json!(rules));
    assert_confined(&fixture);
}

/// The v1 devices controller, which v2 does not have, on a mount of our own.
fn v1_fixture(name: &str, mounts: &[OwnedFd; 2]) -> Fixture {
    let base = |fd: &OwnedFd| Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string());
    let controllers = [
        (Controller::Devices, base(&mounts[0])),
        (Controller::Freezer, base(&mounts[1])),
    ];
    let layout = Layout::Legacy {
        controllers: controllers.into(),
    };
    Fixture::new(name, layout, json!([]))
}

fn v1_mounts() -> [OwnedFd; 2] {
    ["devices", "freezer"].map(|name| {
        let context = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_flag(&context, name).unwrap();
        fsconfig_create(&context).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        fsmount(&context, flags, MountAttrFlags::empty()).unwrap()
    })
}

#[test]
fn the_v1_controller_confines_where_there_is_no_v2() {
    let mounts = v1_mounts();
    assert_confined(&v1_fixture("v1", &mounts));
}

#[test]
fn the_v1_controller_is_updated_without_a_gap() {
    let mounts = v1_mounts();
    assert_updated_without_a_gap(&v1_fixture("v1-update", &mounts));
}
