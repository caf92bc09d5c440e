//! A monitor killed at each of its own crash points, while hostd lives and while it is
//! away: its dyno is whole, or it is lost, or it has ended once and as it did.

use std::collections::{BTreeMap, BTreeSet};

use dyno_tests::host::Host;
use dyno_tests::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::cases::{Case, exists, remove};
use super::{Stage, points};

/// Each case, and whose points it passes.
pub(super) const CASES: &[(Case, &[&str])] = &[
    (
        Case {
            name: "monitor_create",
            before: |_| {},
            ask: |host| host.run(&run("no", &["sleep", "1000"])),
            after: refused_or_runs,
            clean: remove,
        },
        &["monitor_create", "monitor_init", "monitor_record"],
    ),
    (
        Case {
            name: "monitor_start",
            before: |host| {
                host.ok(&run("no", &["sleep", "1000"]));
                host.ok(&["stop", "-t", "0", "subject"]);
            },
            ask: |host| host.run(&["start", "subject"]),
            after: refused_or_runs,
            clean: remove,
        },
        &[
            "monitor_create",
            "monitor_init",
            "monitor_execute",
            "monitor_start",
            "monitor_record",
        ],
    ),
    (
        Case {
            name: "monitor_stop",
            before: |host| {
                host.ok(&run("always", &["sleep", "1000"]));
                host.until_phase("subject", "running");
            },
            ask: |host| host.run(&["stop", "-t", "0", "subject"]),
            after: |host, _| {
                ended_once(host, 137);
                // Nobody starts again what was to stop.
                assert_eq!(host.inspect("subject")["status"]["restarts"], 0);
            },
            clean: remove,
        },
        &["monitor_stop", "monitor_end", "monitor_record"],
    ),
    (
        Case {
            name: "monitor_end",
            before: |host| run_until_told(host, "no"),
            ask: |host| host.run(&["kill", "-s", "TERM", "subject"]),
            after: |host, _| ended_once(host, 7),
            clean: remove,
        },
        &["monitor_end", "monitor_record"],
    ),
    (
        Case {
            name: "monitor_restart",
            before: |host| run_until_told(host, "always"),
            ask: |host| host.run(&["kill", "-s", "TERM", "subject"]),
            after: |host, _| runs_again(host),
            clean: remove,
        },
        &[
            "monitor_restart",
            "monitor_init",
            "monitor_execute",
            "monitor_record",
        ],
    ),
    (
        Case {
            name: "monitor_exec",
            before: |host| run_until_told(host, "always"),
            ask: |host| host.run(&["exec", "subject", "sleep", "1000"]),
            after: |host, done| {
                assert!(!done, "what it executed is dead");
                runs_again(host);
            },
            clean: remove,
        },
        &["monitor_exec"],
    ),
    (
        Case {
            name: "monitor_log",
            before: |host| {
                let counts = "trap 'seq 20000' USR1; while :; do sleep 0.1; done";
                let size = ["--log-max-size", "64k"];
                host.ok(&[
                    &["run", "-d", "--name", "subject"][..],
                    &size,
                    &["busybox", "sh", "-c", counts],
                ]
                .concat());
                host.until_phase("subject", "running");
            },
            ask: |host| host.run(&["kill", "-s", "USR1", "subject"]),
            after: |host, _| {
                ended_once(host, 137);
                let logs = host.ok(&["logs", "subject"]);
                let lines: Vec<usize> = logs.lines().map(|line| line.parse().unwrap()).collect();
                assert!(lines.len() > 1000, "{}", lines.len());
                assert_eq!(lines, (1..=lines.len()).collect::<Vec<_>>());
                host.ok(&["start", "subject"]);
                host.until_phase("subject", "running");
                assert_eq!(host.ok(&["logs", "subject"]), logs);
            },
            clean: remove,
        },
        &["monitor_log"],
    ),
];

#[test]
fn a_monitor_killed_at_each_step_of_a_creation_or_start_leaves_a_whole_dyno_or_none() {
    try_all(&["monitor_create", "monitor_start"]);
}

#[test]
fn a_monitor_killed_at_each_step_of_a_stop_or_an_end_leaves_it_lost_or_ended_once() {
    try_all(&["monitor_stop", "monitor_end"]);
}

#[test]
fn a_monitor_killed_at_each_step_of_a_restart_or_exec_is_followed_by_another() {
    try_all(&["monitor_restart", "monitor_exec"]);
}

#[test]
fn a_monitor_killed_at_each_step_of_a_new_log_file_loses_and_doubles_no_line() {
    try_all(&["monitor_log"]);
}

/// What of a dyno goes on without hostd is tried without it, too.
const WITHOUT_HOSTD: [&str; 2] = ["monitor_end", "monitor_restart"];

fn try_all(names: &[&str]) {
    let mut stage = Stage::set();
    let points = points();
    for (case, passes) in CASES.iter().filter(|(case, _)| names.contains(&case.name)) {
        // What is there once one has come and gone is what always is.
        (case.before)(&stage.host);
        (case.clean)(&stage.host);
        stage.until_at_rest();
        let bare = stage.look();
        for point in passed(&points, passes) {
            stage.kill_a_monitor(case, point, false);
            stage.assert_all_as_before(case, point, &bare);
            if WITHOUT_HOSTD.contains(&case.name) {
                stage.kill_a_monitor(case, point, true);
                stage.assert_all_as_before(case, point, &bare);
            }
        }
    }
}

fn passed<'a>(
    points: &'a BTreeMap<String, BTreeSet<String>>,
    operations: &'a [&str],
) -> impl Iterator<Item = &'a String> {
    operations.iter().flat_map(|operation| &points[*operation])
}

impl Stage {
    fn kill_a_monitor(&mut self, case: &Case, point: &str, is_hostd_away: bool) {
        (case.before)(&self.host);
        let asked = match is_hostd_away {
            true => {
                let init = pid(&self.host);
                self.host.kill();
                self.host.arm(point);
                kill_process(init, Signal::TERM).unwrap();
                None
            }
            false => {
                self.host.arm(point);
                Some((case.ask)(&self.host))
            }
        };
        self.host.until_somebody_is_killed_at(point);
        if is_hostd_away {
            self.host.spawn_again();
            self.host.until_it_answers();
        }
        assert_eq!(self.host.last_words(), None, "{point}: hostd lives");
        let done = asked.as_ref().is_some_and(|output| output.status.success());
        eprintln!(
            "{} at {point}: away {is_hostd_away}, acknowledged {done} {asked:?}",
            case.name
        );
        (case.after)(&self.host, done);
    }
}

fn run<'a>(restart: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    let options = ["run", "-d", "--name", "subject", "-p", "8081:80"];
    [&options[..], &["--restart", restart, "busybox"], command].concat()
}

/// One that ends with code 7 when it is told to.
fn run_until_told(host: &Host, restart: &str) {
    let script = "trap 'exit 7' TERM; while :; do sleep 0.1; done";
    host.ok(&run(restart, &["sh", "-c", script]));
    host.until_phase("subject", "running");
    // Its trap is set once it has a child.
    until("it can be told", || {
        let children = format!("/proc/{0}/task/{0}/children", pid(host).as_raw_nonzero());
        std::fs::read_to_string(children).is_ok_and(|children| !children.is_empty())
    });
}

fn pid(host: &Host) -> Pid {
    let pid = host.inspect("subject")["status"]["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Its client was told that it does not run, or it does.
fn refused_or_runs(host: &Host, done: bool) {
    if !exists(host) {
        assert!(!done, "it was acknowledged and is gone");
        return;
    }
    let mut phase = Value::Null;
    until("it has come to something", || {
        phase = host.inspect("subject")["status"]["phase"].clone();
        phase == "running" || !done && (phase == "lost" || phase == "failed")
    });
    if phase == "running" {
        host.ok(&["exec", "subject", "true"]);
    } else {
        // Nothing of it is in the way of another start.
        host.ok(&["start", "subject"]);
        host.ok(&["exec", "subject", "true"]);
    }
}

/// It has ended, with this code; or nobody knows with which.
fn ended_once(host: &Host, code: u8) {
    let mut status = Value::Null;
    until("it has ended", || {
        status = host.inspect("subject")["status"].clone();
        status["phase"] == "exited" || status["phase"] == "lost"
    });
    let ended = &status["exit"];
    assert!(
        ended["code"] == code || ended.is_null() && status["phase"] == "lost",
        "{status}"
    );
    assert!(status["pid"].is_null(), "{status}");
}

/// Its policy has it run again, with another monitor or the same.
fn runs_again(host: &Host) {
    until("it runs again", || {
        let status = &host.inspect("subject")["status"];
        status["phase"] == "running" && status["restarts"].as_u64() >= Some(1)
    });
    host.ok(&["exec", "subject", "true"]);
}
