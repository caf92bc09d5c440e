//! Requests that meet each other.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::until;

use crate::rig::{
    CONFLICT, NOT_FOUND, assert_nothing_left, at_once, dyno_cgroups, get, names, stderr,
};

const CLIENTS: u16 = 5;
const EACH: u16 = 4;

#[test]
fn many_clients_at_once_share_nothing_and_leave_nothing() {
    let host = Host::with_busybox();
    // The second round takes the same names and ports: each was given back.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let host = &host;
                scope.spawn(move || run_some(host, client));
            }
        });
        assert_each_has_its_own(&host);
        let ids = host.ids();
        // Every client removes some that another one made.
        std::thread::scope(|scope| {
            for some in ids.chunks(EACH.into()) {
                let host = &host;
                scope.spawn(move || {
                    for id in some {
                        host.ok(&["rm", "-f", id]);
                    }
                });
            }
        });
        until("the kernel has let go of all groups", || {
            dyno_cgroups(&host).is_empty()
        });
        until("no name leads to any of them", || {
            published(&host).is_empty()
        });
        assert_nothing_left(&host);
    }
}

fn run_some(host: &Host, client: u16) {
    for number in 0..EACH {
        let port = format!("{}:80", 9000 + client * EACH + number);
        let name = format!("client-{client}-{number}");
        host.ok(&[
            "run", "-d", "--name", &name, "-p", &port, "busybox", "sleep", "1000",
        ]);
    }
}

#[track_caller]
fn assert_each_has_its_own(host: &Host) {
    let count = usize::from(CLIENTS * EACH);
    let dynos = get(host, "/v1/dynos").remove(0);
    let dynos = dynos.as_array().unwrap();
    assert_eq!(dynos.len(), count);
    let own = |what: &str, of: &dyn Fn(&serde_json::Value) -> String| {
        let all: BTreeSet<String> = dynos.iter().map(of).collect();
        assert_eq!(all.len(), count, "{what} are shared: {all:?}");
    };
    let all: BTreeSet<String> = dynos
        .iter()
        .map(|dyno| dyno["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(published(host), all, "names that the edge answers");
    own("addresses", &|dyno| dyno["status"]["ipv4"].to_string());
    own("monitors", &|dyno| {
        dyno["status"]["monitor_pid"].to_string()
    });
    own("user ids", &|dyno| {
        let pid = &dyno["status"]["pid"];
        std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap()
    });
    own("network namespaces", &|dyno| {
        let pid = &dyno["status"]["pid"];
        let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        link.display().to_string()
    });
}

/// The names that the edge answers.
fn published(host: &Host) -> BTreeSet<String> {
    let tables = std::fs::read(host.path().join("run/edge/tables.json")).unwrap();
    let tables: serde_json::Value = serde_json::from_slice(&tables).unwrap();
    let names = tables["networks"]["default"]["names"].as_object().unwrap();
    names.keys().cloned().collect()
}

#[test]
fn of_starts_at_once_one_starts_it_and_the_others_are_told() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    for _ in 0..3 {
        host.ok(&["stop", "-t", "0s", &id]);
        let outputs = at_once(&host, 6, &["start", &id]);
        let started = outputs.iter().filter(|o| o.status.success()).count();
        assert_eq!(started, 1, "{outputs:?}");
        for refused in outputs.iter().filter(|o| !o.status.success()) {
            assert_eq!(refused.status.code(), Some(CONFLICT), "{refused:?}");
            assert!(stderr(refused).contains("running"), "{refused:?}");
        }
        host.until_phase(&id, "running");
        assert_eq!(monitors(&host).len(), 1);
    }
}

/// Processes that are monitors of this host's dynos.
fn monitors(host: &Host) -> Vec<String> {
    let run = host.path().join("run/dynos").display().to_string();
    let commands = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ")
    });
    commands
        .filter(|command| command.contains(" monitor ") && command.contains(&run))
        .collect()
}

#[test]
fn of_creations_with_one_name_one_wins_and_nothing_is_left_of_the_others() {
    let host = Host::with_busybox();
    for _ in 0..3 {
        let arguments = [
            "run", "-d", "--name", "only", "-p", "8080:80", "busybox", "sleep", "1000",
        ];
        let outputs = at_once(&host, 6, &arguments);
        let made = outputs.iter().filter(|o| o.status.success()).count();
        assert_eq!(made, 1, "{outputs:?}");
        for refused in outputs.iter().filter(|o| !o.status.success()) {
            assert!(stderr(refused).contains("only"), "{refused:?}");
        }
        let id = host.ids();
        assert_eq!(id.len(), 1);
        let only: BTreeSet<String> = id.into_iter().collect();
        assert_eq!(names(&host, "state/dynos"), only);
        assert_eq!(names(&host, "run/dynos"), only);
        host.ok(&["rm", "-f", "only"]);
        assert_nothing_left(&host);
    }
}

#[test]
fn a_dyno_that_many_remove_is_removed_once() {
    let host = Host::with_busybox();
    for _ in 0..3 {
        host.ok(&["run", "-d", "--name", "only", "busybox", "sleep", "1000"]);
        let outputs = at_once(&host, 6, &["rm", "-f", "only"]);
        let done = outputs.iter().filter(|o| o.status.success()).count();
        assert!(done >= 1, "{outputs:?}");
        for other in outputs.iter().filter(|o| !o.status.success()) {
            assert_eq!(other.status.code(), Some(NOT_FOUND), "{other:?}");
        }
        assert_nothing_left(&host);
    }
    let events = get(&host, "/v1/events?since=0&follow=false");
    let told = |event: &str| events.iter().filter(|e| e["event"] == event).count();
    assert_eq!((told("dyno_created"), told("dyno_removed")), (3, 3));
}

#[test]
fn a_removal_that_meets_a_start_leaves_nothing() {
    let host = Host::with_busybox();
    for round in 0..6 {
        let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
        host.ok(&["stop", "-t", "0s", &id]);
        std::thread::scope(|scope| {
            let start = scope.spawn(|| host.run(&["start", &id]));
            std::thread::sleep(Duration::from_millis(round * 8));
            host.ok(&["rm", "-f", &id]);
            let started = start.join().unwrap();
            let code = started.status.code();
            assert!(
                matches!(code, Some(0) | Some(NOT_FOUND)),
                "round {round}: {started:?}"
            );
        });
        assert_nothing_left(&host);
    }
}

#[test]
fn an_exec_that_meets_a_stop_works_or_is_refused_and_never_hangs() {
    let host = Host::with_busybox();
    let deaf = "trap '' TERM; while :; do sleep 0.1; done";
    let id = host.ok(&["run", "-d", "busybox", "sh", "-c", deaf]);
    host.until_phase(&id, "running");
    let begin = Instant::now();
    let (mut worked, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| host.ok(&["stop", "-t", "1500ms", &id]));
        while !stop.is_finished() {
            let output = host.run(&["exec", &id, "echo", "in"]);
            if output.status.success() {
                assert_eq!(output.stdout, b"in\n");
                worked += 1;
            } else {
                assert!(!stderr(&output).is_empty(), "{output:?}");
                refused += 1;
            }
        }
        stop.join().unwrap();
    });
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}: {worked} worked, {refused} were refused",
        begin.elapsed()
    );
    let late = host.run(&["exec", &id, "echo", "in"]);
    assert!(stderr(&late).contains("not running"), "{late:?}");
    assert_eq!(host.inspect(&id)["status"]["exit"]["signal"], 9);
}
