//! config-linux.md, "Control groups".

use dyno_tests::cgroup::limit_of;
use serde_json::json;

use crate::rig::Container;

/// [`limit_of`] its first process.
fn limit(container: &Container, v2: &str, controller: &str, v1: &str) -> String {
    limit_of(&container.state(), v2, controller, v1)
}

fn limited(resources: serde_json::Value) -> Container {
    let mut container = Container::new(&["/bin/sleep", "1000"]);
    container.config["linux"]["resources"] = resources;
    container.start();
    container
}

#[test]
fn memory_is_limited() {
    let container = limited(json!({"memory": {"limit": 64 << 20}}));
    assert_eq!(
        limit(&container, "memory.max", "memory", "memory.limit_in_bytes"),
        "67108864"
    );
}

#[test]
fn processes_are_limited() {
    let container = limited(json!({"pids": {"limit": 33}}));
    assert_eq!(limit(&container, "pids.max", "pids", "pids.max"), "33");
}

#[test]
fn cpu_time_is_limited() {
    let container = limited(json!({"cpu": {"quota": 20000, "period": 100_000}}));
    let told = limit(&container, "cpu.max", "cpu", "cpu.cfs_quota_us");
    assert!(told == "20000 100000" || told == "20000", "{told}");
}

#[test]
fn the_share_of_the_cpu_is_set() {
    let container = limited(json!({"cpu": {"shares": 512}}));
    let told = limit(&container, "cpu.weight", "cpu", "cpu.shares");
    assert!(["512", "20", "59"].contains(&told.as_str()), "{told}");
}

#[test]
fn devices_are_denied_but_for_what_is_allowed() {
    let mut container = Container::script(
        "mknod /n c 1 3; mknod /k c 1 2; echo x 2>&1 >/n && echo null; head -c0 /k 2>/dev/null || echo denied",
    );
    for set in ["bounding", "effective", "permitted"] {
        container.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
    }
    container.config["linux"]["resources"] = json!({"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": true, "type": "c", "access": "m"},
    ]});
    assert_eq!(container.output(), "null\ndenied\n");
}

#[test]
fn paused_is_still_until_resumed() {
    let container = Container::script("while :; do echo tick; sleep 0.01; done");
    container.start();
    dyno_tests::until("it ticks", || !container.told().is_empty());
    assert!(container.call(&["pause", container.id()]).status.success());
    assert_eq!(container.state()["status"], "paused");
    let then = container.told().len();
    assert_eq!(container.told().len(), then);
    assert!(container.call(&["resume", container.id()]).status.success());
    dyno_tests::until("it ticks again", || container.told().len() > then);
}

#[test]
fn its_processes_are_listed() {
    let container = Container::script("sleep 2000 & exec sleep 1000");
    container.start();
    let pids = || -> Vec<i32> {
        let ps = container.call(&["ps", "--format", "json", container.id()]);
        assert!(ps.status.success(), "{ps:?}");
        serde_json::from_slice(&ps.stdout).unwrap()
    };
    dyno_tests::until("both are listed", || pids().len() == 2);
}

#[test]
fn other_limits_can_be_given_to_one_that_runs() {
    let container = limited(json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 33}}));
    let update = |options: &[&str]| {
        let update = container.call(&[&["update"], options, &[container.id()]].concat());
        assert!(update.status.success(), "{update:?}");
    };
    let pids = || limit(&container, "pids.max", "pids", "pids.max");
    let memory = || limit(&container, "memory.max", "memory", "memory.limit_in_bytes");
    update(&["--memory", "33554432", "--pids-limit", "20"]);
    assert_eq!((memory().as_str(), pids().as_str()), ("33554432", "20"));
    dyno_tests::write_file(
        &container.path("limits.json"),
        &json!({"memory": {"limit": 48 << 20}, "pids": {"limit": 21}}).to_string(),
    );
    let file = container.path("limits.json");
    update(&["--resources", &file.to_string_lossy()]);
    assert_eq!((memory().as_str(), pids().as_str()), ("50331648", "21"));
}

#[test]
fn one_that_is_not_there_gets_no_other_limits() {
    let container = Container::new(&["/bin/true"]);
    let update = container.call(&["update", "--pids-limit", "20", container.id()]);
    assert!(!update.status.success(), "{update:?}");
}
