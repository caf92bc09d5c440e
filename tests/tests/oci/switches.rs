//! What callers may want of a container in another way than usual: how its root is
//! changed, whose keyring it has, who makes its cgroup.

use std::process::{Command, Output, Stdio};

use dyno_tests::bundle::Bundle;
use dyno_tests::machine::Machine;
use serde_json::json;

fn run(bundle: &Bundle, words: &[&str]) -> Output {
    bundle.command(words).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_pivot_root_the_containers_root_is_all_that_it_sees() {
    const SCRIPT: &str = "ls /; ls /..; cd /; cd ../..; pwd; cat /proc/self/mounts | wc -l; \
        test -e /proc/1/root/etc/shadow || echo hidden";
    for bundle in [
        Bundle::script(SCRIPT),
        Bundle::script(SCRIPT).as_host_root(),
    ] {
        let usual = stdout(&run(&bundle, &["run"]));
        assert!(usual.contains("hidden"), "{usual}");
        assert_eq!(stdout(&run(&bundle, &["run", "--no-pivot"])), usual);
    }
}

/// The session keyrings that somebody has who is not their owner: his own.
const KEYRING: &str = "grep ' _ses' /proc/keys | cut -c 1-8; true";

/// One whose program is no root, and has the host's names of users.
fn as_nobody_in_particular(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args).as_host_root();
    bundle.config["process"]["user"] = json!({"uid": 77, "gid": 77});
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle
}

/// What the same program has outside.
fn of_the_caller() -> String {
    let mut outside = Command::new("setpriv");
    outside.args(["--reuid=77", "--clear-groups", "sh", "-c", KEYRING]);
    stdout(&outside.output().unwrap())
}

#[test]
fn a_session_keyring_is_new_unless_the_callers_is_asked_for() {
    let bundle = as_nobody_in_particular(&["sh", "-c", KEYRING]);
    let new = stdout(&run(&bundle, &["run"]));
    assert_eq!(new.lines().count(), 1, "{new}");
    assert_ne!(new, of_the_caller());
    let old = stdout(&run(&bundle, &["run", "--no-new-keyring"]));
    assert_eq!(old, of_the_caller());
}

#[test]
fn a_further_process_has_the_keyring_that_the_first_was_to_have() {
    let execute = |options: &[&str]| {
        let bundle = as_nobody_in_particular(&["sleep", "1000"]);
        let mut run = bundle.command(&[&["run", "--detach"], options].concat());
        assert!(run.stdout(Stdio::null()).status().unwrap().success());
        stdout(&bundle.call(&["exec", bundle.id(), "sh", "-c", KEYRING]))
    };
    assert_eq!(execute(&[]).lines().count(), 1);
    assert_eq!(execute(&["--no-new-keyring"]), of_the_caller());
}

#[test]
fn without_systemd_its_cgroups_are_refused_and_nothing_stays() {
    if std::path::Path::new("/run/systemd/system").is_dir() {
        return dyno_tests::skip("systemd runs here");
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!(":dyno-test:{}", bundle.id()));
    let before = Machine::look(bundle.id(), &[]);
    let message = refused(&run(&bundle, &["--systemd-cgroup", "run"]));
    assert!(message.contains("systemd does not run here"), "{message}");
    let left = Machine::look(bundle.id(), &[]).difference(&before);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_form_of_the_path_is_the_drivers() {
    let mut bundle = Bundle::new(&["true"]);
    let message = refused(&run(&bundle, &["--systemd-cgroup", "run"]));
    assert!(message.contains("slice:prefix:name"), "{message}");
    bundle.config["linux"]["cgroupsPath"] = json!(format!("system.slice:x:{}", bundle.id()));
    let message = refused(&run(&bundle, &["run"]));
    assert!(message.contains("--systemd-cgroup"), "{message}");
}

#[test]
fn without_a_path_the_group_is_named_after_the_container() {
    let mut bundle = Bundle::script("cut -d: -f3 /proc/self/cgroup | sort -u");
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("cgroupsPath");
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    let shown = stdout(&run(&bundle, &["run"]));
    let name = format!("dyno-runtime/{}", bundle.id());
    assert!(shown.lines().any(|path| path.ends_with(&name)), "{shown}");
}

#[test]
fn whatever_is_said_about_rootless_who_calls_decides() {
    for rootless in ["auto", "true", "false"] {
        let bundle = Bundle::new(&["echo", "it runs"]);
        let output = run(&bundle, &["--rootless", rootless, "run"]);
        assert_eq!(stdout(&output), "it runs\n");
    }
}
