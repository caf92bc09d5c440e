//! Many lives, and nothing left of any.

use dyno_tests::host::Host;
use dyno_tests::machine::Machine;
use dyno_tests::until;

#[test]
fn a_thousand_lives_leave_the_machine_as_it_was() {
    let rounds = if std::env::var_os("DYNO_SOAK").is_some() {
        1000
    } else {
        100
    };
    let host = Host::with_busybox();
    let mark = host.path().to_string_lossy().into_owned();
    let id = host.ok(&["info", "--json"]);
    let id: serde_json::Value = serde_json::from_str(&id).unwrap();
    let host_mark = format!("dyno-{}", id["id"].as_str().unwrap());
    let folders = [
        host.path().join("run"),
        host.path().join("state/dynos"),
        host.path().join("state/images"),
    ];
    let folders: Vec<_> = folders.iter().map(std::path::PathBuf::as_path).collect();
    let look = || {
        (
            Machine::look(&mark, &folders).with_network(),
            Machine::look(&host_mark, &[]),
        )
    };
    // The first life may set up what stays.
    host.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    until("the first is gone", || host.ids().is_empty());
    let before = look();
    for round in 0..rounds {
        let name = format!("life-{round}");
        host.ok(&[
            "run", "-d", "--name", &name, "-p", "8080:80", "busybox", "sleep", "1000",
        ]);
        host.ok(&["kill", &name]);
        host.ok(&["rm", "-f", &name]);
    }
    let mut left = Vec::new();
    until("nothing is left", || {
        let after = look();
        left = after.0.difference(&before.0);
        left.extend(after.1.difference(&before.1));
        // What hostd keeps of its own accord may grow; a log and its events.
        left.retain(|thing| !thing.contains("/run/events") && !thing.contains("hostd.log"));
        left.is_empty()
    });
    assert!(left.is_empty(), "{left:?}");
}
