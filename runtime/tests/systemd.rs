//! Scopes of the systemd that runs here, if one does.
//!
//! The runtime has one thread and does not clone with more; so this has no harness, and
//! speaks nextest's few words itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use dyno_runtime::cgroup::{Cgroup, Controller, Place, systemd};
use rustix::process::Pid;
use serde_json::json;

const LONG: Duration = Duration::from_secs(20);
const NAME: &str = "a_scope_is_made_changed_and_gone";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    if has("--list") {
        if !has("--ignored") {
            writeln!(std::io::stdout(), "{NAME}: test").unwrap();
        }
        return;
    }
    if !systemd::is_running() {
        return skip("systemd does not run here (/run/systemd/system is missing)");
    }
    // Whoever starts a systemd for this test starts the user's.
    if std::env::var_os("DYNO_TEST_USER_SYSTEMD_ONLY").is_none() {
        live_as_a_scope(false);
    }
    if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some() {
        live_as_a_scope(true);
    }
}

/// As `dyno_tests::skip`, which is no dependency of this crate.
fn skip(reason: &str) {
    writeln!(std::io::stderr(), "SKIPPED {NAME}: {reason}").unwrap();
    if let Some(path) = std::env::var_os("DYNO_TEST_SKIPS") {
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        writeln!(file, "{NAME}: {reason}").unwrap();
    }
}

fn live_as_a_scope(user: bool) {
    let id = std::process::id();
    let path = format!(":dyno-test:{id}");
    let annotations = [("CollectMode", "'inactive-or-failed'")];
    let annotations: HashMap<String, String> = annotations
        .map(|(name, value)| (format!("org.systemd.property.{name}"), value.to_owned()))
        .into();
    let place = Place::unit(Some(path.as_ref()), "x", user, &annotations).unwrap();
    let cgroup = Cgroup::create_in(&place, &resources(json!({}))).unwrap();
    let folder = cgroup.record().v2.clone().unwrap();
    let unit = cgroup.record().unit.clone().unwrap();
    assert_eq!(unit.name, format!("dyno-test-{id}.scope"));
    assert!(folder.ends_with(&unit.name), "{}", folder.display());
    assert_eq!(cgroup.procs().unwrap().len(), 1, "the one that holds it");
    assert!(
        Cgroup::create_in(&place, &resources(json!({}))).is_err(),
        "it lives"
    );

    let mut sleeper = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_child(&sleeper);
    cgroup.add(pid).unwrap();
    cgroup.admit(pid).unwrap();
    assert_eq!(cgroup.procs().unwrap(), [pid], "who held it open has gone");

    let again = Cgroup::open(cgroup.record().clone()).unwrap();
    if let Ok(()) = again.update(&resources(json!({ "pids": { "limit": 17 } }))) {
        assert_eq!(again.usage().unwrap().pids.limit, 17);
        assert_eq!(show(user, &unit.name, "TasksMax"), "17");
    } else {
        let controllers = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap();
        let v1 = again.record().v1.contains_key(&Controller::Pids);
        assert!(!v1 && !controllers.contains("pids"), "{controllers}");
    }
    assert_eq!(show(user, &unit.name, "Delegate"), "yes");
    assert_eq!(show(user, &unit.name, "CollectMode"), "inactive-or-failed");

    again.kill().unwrap();
    assert!(!sleeper.wait().unwrap().success());
    again.remove(LONG).unwrap();
    assert!(!folder.exists());
    assert_eq!(show(user, &unit.name, "LoadState"), "not-found");
    again.remove(LONG).unwrap();
}

fn resources(resources: serde_json::Value) -> oci_spec::runtime::LinuxResources {
    serde_json::from_value(resources).unwrap()
}

fn show(user: bool, unit: &str, property: &str) -> String {
    let whose = if user { "--user" } else { "--system" };
    let shown = Command::new("systemctl")
        .args([whose, "show", "--value", "-p", property, unit])
        .output()
        .unwrap();
    String::from_utf8(shown.stdout).unwrap().trim().to_owned()
}
