//! create, start, state, kill, delete.

use dyno_tests::bundle::Bundle;
use dyno_tests::{machine::Machine, until};
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

#[test]
fn create_stops_before_the_program_and_start_lets_it_go() {
    let bundle = Bundle::script("echo ran > /proof");
    assert!(bundle.create().status.success());
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id());
    assert!(state["pid"].as_i64().unwrap() > 1);
    assert!(!bundle.path().join("upper/proof").exists());
    assert!(bundle.call(&["start", bundle.id()]).status.success());
    until("it stops", || bundle.state()["status"] == "stopped");
    assert!(bundle.path().join("upper/proof").exists());
    assert!(bundle.call(&["delete", bundle.id()]).status.success());
    assert!(!bundle.call(&["state", bundle.id()]).status.success());
}

#[test]
fn a_container_is_killed_by_the_signal_that_was_asked_for() {
    let bundle =
        Bundle::script("trap 'echo got it; exit 0' USR1; echo ready; while :; do sleep 0.01; done");
    assert!(bundle.create().status.success());
    assert!(bundle.call(&["start", bundle.id()]).status.success());
    let stdout = || std::fs::read_to_string(bundle.path().join("stdout")).unwrap();
    until("it is ready", || stdout().contains("ready"));
    assert!(bundle.call(&["kill", bundle.id(), "USR1"]).status.success());
    until("it stops", || bundle.state()["status"] == "stopped");
    assert!(stdout().contains("got it"));
    let again = bundle.call(&["kill", bundle.id(), "KILL"]);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("container not running"),
        "{again:?}"
    );
}

/// What the runtime does for a container is hardly charged to it. runc 1.1 needs
/// 2.2 MB before a limit can be set.
#[test]
fn a_container_of_half_a_mebibyte_starts() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 512 << 10}});
    assert!(bundle.create().status.success());
    assert!(bundle.call(&["start", bundle.id()]).status.success());
    until("it sleeps", || {
        let pid = &bundle.state()["pid"];
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "sleep\n")
    });
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn a_running_container_is_deleted_only_by_force() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert!(bundle.create().status.success());
    assert!(bundle.call(&["start", bundle.id()]).status.success());
    let refused = bundle.call(&["delete", bundle.id()]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("--force"),
        "{refused:?}"
    );
    assert!(
        bundle
            .call(&["delete", "--force", bundle.id()])
            .status
            .success()
    );
    assert!(
        bundle
            .call(&["delete", "--force", bundle.id()])
            .status
            .success(),
        "there is none, as asked"
    );
}

#[test]
fn two_containers_cannot_have_one_id() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert!(bundle.create().status.success());
    let again = bundle.create();
    assert!(!again.status.success());
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("exists already"),
        "{again:?}"
    );
    assert_eq!(bundle.state()["status"], "created");
}

#[test]
fn a_failed_create_says_what_it_was_about_and_leaves_nothing() {
    for (path, value, complaint) in [
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/mounts/1/options", json!(["tmpcopyup"]), "tmpcopyup"),
        (
            "/mounts/5/type",
            json!("nosuchfs"),
            "mount nosuchfs on /sys",
        ),
        (
            "/linux/resources",
            json!({"memory": {"limit": 1024}}),
            "memory",
        ),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "vm.swappiness",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "bin/true"}]}),
            "hooks",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}]),
            "mount namespace",
        ),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        let before = Machine::look(bundle.id(), &[&bundle.path().join("state")]);
        match bundle.config.pointer_mut(path) {
            Some(place) => *place = value,
            None => {
                let (parent, name) = path.rsplit_once('/').unwrap();
                bundle.config.pointer_mut(parent).unwrap()[name] = value;
            }
        }
        let create = bundle.create();
        let message = String::from_utf8_lossy(&create.stderr).into_owned();
        assert!(!create.status.success(), "{path}");
        assert!(message.contains(complaint), "{path}: {message}");
        let left = Machine::look(bundle.id(), &[&bundle.path().join("state")]).difference(&before);
        let left: Vec<_> = left
            .iter()
            .filter(|thing| !thing.starts_with("+ process"))
            .collect();
        assert!(left.is_empty(), "{path} left {left:?}");
    }
}

#[test]
fn a_missing_program_is_named_before_anybody_starts_it() {
    for name in ["nosuchprogram", "/bin/nosuchprogram"] {
        let bundle = Bundle::new(&[name]);
        let create = bundle.create();
        assert!(!create.status.success());
        let message = String::from_utf8_lossy(&create.stderr);
        assert!(
            message.contains(&format!("find its program {name:?}")),
            "{message}"
        );
        assert!(!bundle.call(&["state", bundle.id()]).status.success());
    }
}

#[test]
fn no_container_leaves_a_mount_a_cgroup_or_a_process() {
    let bundle = Bundle::new(&["true"]);
    let before = Machine::look(bundle.id(), &[]);
    for _ in 0..20 {
        let run = bundle.run();
        assert!(run.create.status.success(), "{run:?}");
    }
    let left = Machine::look(bundle.id(), &[]).difference(&before);
    let ours: Vec<_> = left
        .iter()
        .filter(|thing| thing.contains(bundle.id()))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

/// Also where the caller blocks the signal that tells of a child's end.
#[test]
fn start_after_start_comes_to_its_end() {
    let soak = std::env::var_os("DYNO_SOAK").is_some();
    let rounds = if soak { 10_000 } else { 100 };
    let bundle = Bundle::new(&["true"]);
    for round in 0..rounds {
        // A child begins with the mask of who spawns it.
        let mut blocked = SigSet::empty();
        if round % 2 == 1 {
            blocked.add(Signal::SIGCHLD);
            blocked.add(Signal::SIGTERM);
        }
        blocked.thread_set_mask().unwrap();
        let mut run = bundle.command(&["run"]).spawn().unwrap();
        let mut code = None;
        until(&format!("container {round} has ended"), || {
            code = run.try_wait().unwrap();
            code.is_some()
        });
        assert!(code.unwrap().success(), "round {round}: {code:?}");
    }
}
