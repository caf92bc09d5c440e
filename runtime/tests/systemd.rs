//! Scopes of the systemd that runs here or, if none does, of one that is started for
//! this test: a user's, in a mount namespace and a group of its own, on the layout that
//! the machine has and on pure v2.
//!
//! The runtime has one thread and does not clone with more; so this has no harness, and
//! speaks nextest's few words itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

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
            let mut output = std::io::stdout().lock();
            writeln!(output, "{NAME}: test").unwrap();
        }
        return;
    }
    if std::env::var_os(OURS).is_some() {
        return live_as_a_scope(true);
    }
    if systemd::is_running() {
        live_as_a_scope(false);
        if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some() {
            live_as_a_scope(true);
        }
        return;
    }
    for program in ["systemd", "systemctl", "busctl", "dbus-daemon"] {
        let there = |folder: &str| Path::new(folder).join(program).exists();
        if !["/usr/bin", "/bin", "/usr/local/bin"]
            .into_iter()
            .any(there)
        {
            return skip(&format!(
                "systemd does not run here, and there is no {program}"
            ));
        }
    }
    for layout in ["as it is", "unified"] {
        let group = format!("dyno-test-systemd-{}", std::process::id());
        let ended = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "/bin/sh",
                "-euc",
                SYSTEMD,
                "sh",
            ])
            .arg(std::env::current_exe().unwrap())
            .args([layout, &group])
            .env(OURS, "1")
            .status()
            .unwrap();
        remove(&group);
        assert!(
            ended.success(),
            "with a systemd of our own, cgroups {layout}"
        );
    }
}

/// Ends what systemd had started of its own, and removes its groups: all of them, where
/// the runtime leaves those of slices.
fn remove(group: &str) {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).unwrap();
    let hierarchies = hierarchies.map(|entry| entry.unwrap().path());
    let folders = hierarchies.chain([top.to_owned()]);
    let folders = folders.map(|hierarchy| hierarchy.join(group));
    let deadline = Instant::now() + LONG;
    for folder in folders.filter(|folder| folder.is_dir()) {
        let kill = folder.join("cgroup.kill");
        if kill.exists() {
            let mut kill = File::options().write(true).open(kill).unwrap();
            kill.write_all(b"1").unwrap();
        }
        while !remove_tree(&folder) {
            assert!(Instant::now() < deadline, "{} is left", folder.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether it is gone; what has just ended may hold it for a moment.
fn remove_tree(folder: &Path) -> bool {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !remove_tree(&path) {
            return false;
        }
    }
    std::fs::remove_dir(folder).is_ok()
}

/// Set where a user's systemd was started for this test.
const OURS: &str = "DYNO_TEST_OWN_SYSTEMD";

/// `$1` is this test, `$2` the layout, `$3` the name of its group. systemd wants to have
/// been booted with, and a group without processes in which it may make others. The bus
/// that it starts of its own leaves a socket in `/tmp`.
const SYSTEMD: &str = r#"
mount -t tmpfs none /run
cp "$1" /run/test
mount -t tmpfs none /tmp
mkdir -p /run/systemd/system /run/user/0 /run/home
export XDG_RUNTIME_DIR=/run/user/0 HOME=/run/home
export DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus
if [ "$2" = unified ]; then
    umount --recursive --lazy /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
root=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)
group=$root/$3
mkdir "$group"
echo $$ > "$group/cgroup.procs"
dbus-daemon --session --nofork --nopidfile --address=$DBUS_SESSION_BUS_ADDRESS 2>/dev/null &
bus=$!
systemd --user --log-target=console 2>/run/log &
systemd=$!
tries=0
# Its own socket answers before it has a name on the bus.
until systemctl --user show --property Version >/dev/null 2>&1 &&
    busctl --user call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
        org.freedesktop.DBus.Peer Ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ $tries = 100 ]; then cat /run/log >&2; exit 1; fi
    sleep 0.1
done
result=0
/run/test || result=$?
kill -KILL $systemd $bus
wait $systemd $bus || true
exit $result
"#;

/// As `dyno_tests::skip`, which is no dependency of this crate.
fn skip(reason: &str) {
    let mut output = std::io::stderr().lock();
    writeln!(output, "SKIPPED {NAME}: {reason}").unwrap();
    if let Some(path) = std::env::var_os("DYNO_TEST_SKIPS") {
        let mut file = File::options().append(true).open(path).unwrap();
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
