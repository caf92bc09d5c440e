//! What is asked of hostd when it is killed, and what may be there afterwards.

use std::path::Path;
use std::process::{Command, Output};

use dyno_tests::host::Host;
use dyno_tests::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::curl;

/// One operation with crash points.
pub(super) struct Case {
    /// What its points begin with.
    pub(super) name: &'static str,
    /// Makes what it is done to.
    pub(super) before: fn(&Host),
    /// Asks for it; it is acknowledged where this succeeds.
    pub(super) ask: fn(&Host) -> Output,
    /// Whole or gone, and whole where it was acknowledged.
    pub(super) after: fn(&Host, bool),
    /// Removes what is left on purpose.
    pub(super) clean: fn(&Host),
}

/// Every operation.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "create",
        before: |_| {},
        ask: |host| host.run(&RUN),
        after: |host, done| match exists(host) {
            // The client asks for the creation, then for the start.
            true => until("it has come to something", || {
                let phase = host.inspect("subject")["status"]["phase"].clone();
                phase == "running" || phase == "created" && !done
            }),
            false => assert!(!done, "it was acknowledged and is gone"),
        },
        clean: remove,
    },
    Case {
        name: "start",
        before: |host| {
            run(host);
            host.ok(&["stop", "-t", "0", "subject"]);
        },
        ask: |host| host.run(&["start", "subject"]),
        after: |host, done| {
            let mut phase = Value::Null;
            until("it has come to something", || {
                phase = host.inspect("subject")["status"]["phase"].clone();
                phase == "running" || phase == "exited" && !done
            });
            if phase == "running" {
                host.ok(&["exec", "subject", "true"]);
            }
        },
        clean: remove,
    },
    Case {
        name: "exec",
        before: run,
        ask: |host| host.run(&["exec", "subject", "sleep", "0.3"]),
        after: |host, _| {
            host.until_phase("subject", "running");
            host.ok(&["exec", "subject", "true"]);
        },
        clean: remove,
    },
    Case {
        name: "stop",
        before: run,
        ask: |host| host.run(&["stop", "-t", "0", "subject"]),
        after: |host, _| host.until_phase("subject", "exited"),
        clean: remove,
    },
    Case {
        name: "end",
        before: run,
        ask: |host| host.run(&["kill", "subject"]),
        after: |host, _| {
            host.until_phase("subject", "exited");
            assert_eq!(host.inspect("subject")["status"]["exit"]["signal"], 9);
        },
        clean: remove,
    },
    Case {
        name: "lost",
        before: run,
        ask: |host| {
            let pid = &host.inspect("subject")["status"]["monitor_pid"];
            let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            Command::new("true").output().unwrap()
        },
        after: |host, _| host.until_phase("subject", "lost"),
        clean: remove,
    },
    Case {
        name: "remove",
        before: run,
        ask: |host| host.run(&["rm", "-f", "subject"]),
        after: |host, done| assert!(!(done && exists(host)), "it was acknowledged and is there"),
        clean: remove,
    },
    Case {
        name: "limit",
        before: run,
        ask: |host| host.run(&["limit", "--pids", "77", "--nofile", "64", "subject"]),
        after: limited,
        clean: remove,
    },
    Case {
        name: "record",
        before: run,
        ask: |host| host.run(&["limit", "--pids", "77", "subject"]),
        after: limited,
        clean: remove,
    },
    Case {
        name: "pause",
        before: run,
        ask: |host| host.run(&["pause", "subject"]),
        after: |host, done| {
            let paused = host.inspect("subject")["status"]["paused"] == true;
            assert!(paused || !done, "it was acknowledged and goes on");
        },
        clean: remove,
    },
    Case {
        // Where CRIU does not know the kernel it is refused, at the same points.
        name: "checkpoint",
        before: run,
        ask: |host| answered(host.run(&["checkpoint", "subject", "one"])),
        after: |host, done| {
            let mut phase = Value::Null;
            until("it runs on or can be brought back", || {
                phase = host.inspect("subject")["status"]["phase"].clone();
                let is_there = lists(host, &["checkpoints", "subject"], "one");
                let refused = !done || !criu_works();
                phase == "running" && refused || phase == "exited" && is_there
            });
            match phase == "running" {
                true => host.ok(&["exec", "subject", "true"]),
                false => host.ok(&["restore", "subject"]),
            };
        },
        clean: remove,
    },
    Case {
        name: "checkpoint_remove",
        before: with_checkpoint,
        ask: |host| host.run(&["rm", "subject@one"]),
        after: |host, done| {
            let is_there = lists(host, &["checkpoints", "subject"], "one");
            assert!(!is_there || !done, "it was acknowledged and is there");
        },
        clean: remove,
    },
    Case {
        // From what is no checkpoint: it is never started anew instead.
        name: "restore",
        before: with_checkpoint,
        ask: |host| answered(host.run(&["restore", "subject"])),
        after: |host, _| {
            let mut phase = Value::Null;
            until("it has come to something", || {
                phase = host.inspect("subject")["status"]["phase"].clone();
                phase == "exited" || phase == "failed"
            });
            assert!(lists(host, &["checkpoints", "subject"], "one"));
            // And an ordinary start is one.
            host.ok(&["start", "subject"]);
        },
        clean: remove,
    },
    Case {
        name: "drain",
        before: |_| {},
        ask: |host| host.run(&["drain", "add", "--name", "away", "http://127.0.0.1:9/"]),
        after: |host, done| assert!(!done || lists(host, &["drain", "ls"], "away")),
        clean: |host| {
            host.run(&["drain", "rm", "away"]);
        },
    },
    Case {
        name: "drain_remove",
        before: |host| {
            host.ok(&["drain", "add", "--name", "away", "http://127.0.0.1:9/"]);
        },
        ask: |host| host.run(&["drain", "rm", "away"]),
        after: |host, done| assert!(!(done && lists(host, &["drain", "ls"], "away"))),
        clean: |host| {
            host.run(&["drain", "rm", "away"]);
        },
    },
    Case {
        name: "volume",
        before: |_| {},
        ask: |host| host.run(&["volume", "create", "data"]),
        after: |host, done| assert!(!done || lists(host, &["volume", "ls"], "data")),
        clean: |host| {
            host.run(&["volume", "rm", "data"]);
        },
    },
    Case {
        name: "volume_remove",
        before: with_snapshot,
        ask: |host| host.run(&["volume", "rm", "-f", "data"]),
        after: |host, done| match lists(host, &["volume", "ls"], "data") {
            true => {
                assert!(!done, "it was acknowledged and is there");
                assert!(lists(host, &["volume", "snapshots", "data"], "then"));
            }
            // Nothing of it is in another one of that name.
            false => {
                host.ok(&["volume", "create", "data"]);
                assert!(!lists(host, &["volume", "snapshots", "data"], "then"));
            }
        },
        clean: |host| {
            host.ok(&["volume", "rm", "-f", "data"]);
        },
    },
    Case {
        name: "snapshot",
        before: |host| {
            host.ok(&[
                "run",
                "-d",
                "--name",
                "subject",
                "-v",
                "data:/data",
                "busybox",
                "sleep",
                "1000",
            ]);
        },
        ask: |host| host.run(&["volume", "snapshot", "data", "then"]),
        after: |host, done| {
            assert!(!done || lists(host, &["volume", "snapshots", "data"], "then"));
            until("the dyno goes on", || {
                host.inspect("subject")["status"]["paused"] != true
            });
            host.ok(&["exec", "subject", "true"]);
        },
        clean: |host| {
            remove(host);
            host.ok(&["volume", "rm", "-f", "data"]);
        },
    },
    Case {
        name: "backup",
        before: |host| {
            let run = ["run", "-d", "--name", "subject", "-v", "data:/data"];
            host.ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
            let command = |word: &str| format!("sh -c 'echo {word} >> /tmp/log'");
            let before = ["volume", "set", "--before-backup", &command("before")];
            let after = ["--after-backup", &command("after"), "data"];
            host.ok(&[&before[..], &after].concat());
        },
        ask: |host| host.run(&["volume", "snapshot", "data", "then"]),
        after: |host, done| {
            assert!(!done || lists(host, &["volume", "snapshots", "data"], "then"));
            let notes = host.path().join("state/volumes/.backups");
            until("the backup has ended", || {
                std::fs::read_dir(&notes).unwrap().count() == 0
            });
            until("the dyno goes on", || {
                host.inspect("subject")["status"]["paused"] != true
            });
            // At least once: what was killed after it had run is run again.
            let log = host.ok(&["exec", "subject", "cat", "/tmp/log"]);
            assert!(log.ends_with("after"), "{log}");
        },
        clean: |host| {
            remove(host);
            host.ok(&["volume", "rm", "-f", "data"]);
        },
    },
    Case {
        name: "volume_set",
        before: |host| {
            host.ok(&["volume", "create", "--after-backup", "true", "data"]);
        },
        ask: |host| host.run(&["volume", "set", "--after-backup", "false", "data"]),
        after: |host, done| {
            let info = host.ok(&["volume", "info", "data"]);
            let info: Value = serde_json::from_str(&info).unwrap();
            let after = &info["backup"]["after"][0];
            assert!(after == "false" || after == "true" && !done, "{info}");
        },
        clean: |host| {
            host.ok(&["volume", "rm", "data"]);
        },
    },
    Case {
        name: "snapshot_remove",
        before: with_snapshot,
        ask: |host| host.run(&["volume", "rm", "data@then"]),
        after: |host, done| {
            assert!(!(done && lists(host, &["volume", "snapshots", "data"], "then")));
        },
        clean: |host| {
            host.ok(&["volume", "rm", "-f", "data"]);
        },
    },
    Case {
        name: "rollback",
        before: |host| {
            with_snapshot(host);
            in_volume(host, "echo new > /data/file");
        },
        ask: |host| host.run(&["volume", "rollback", "data@then"]),
        after: |host, done| {
            let file = in_volume(host, "cat /data/file");
            assert!(file == "old" || file == "new" && !done, "{file}");
        },
        clean: |host| {
            host.ok(&["volume", "rm", "-f", "data"]);
        },
    },
    Case {
        name: "secret",
        before: |host| {
            host.ok(&["secret", "set", "word", "--file", &value(host, "one")]);
        },
        ask: |host| host.run(&["secret", "set", "word", "--file", &value(host, "two")]),
        after: |host, done| {
            let word = word(host);
            assert!(word == "two" || word == "one" && !done, "{word}");
        },
        clean: |host| {
            host.ok(&["secret", "rm", "word"]);
        },
    },
    Case {
        name: "secret_remove",
        before: |host| {
            host.ok(&["secret", "set", "word", "--file", &value(host, "one")]);
        },
        ask: |host| host.run(&["secret", "rm", "word"]),
        after: |host, done| {
            if lists(host, &["secret", "ls"], "word") {
                assert!(!done && word(host) == "one");
            }
        },
        clean: |host| {
            host.run(&["secret", "rm", "word"]);
        },
    },
    Case {
        name: "rotate",
        before: |host| {
            host.ok(&["secret", "set", "other", "--file", &value(host, "two")]);
            host.ok(&["secret", "set", "word", "--file", &value(host, "one")]);
        },
        ask: |host| host.run(&["secret", "rotate"]),
        after: |host, _| {
            assert_eq!(word(host), "one");
            host.ok(&["secret", "rotate"]);
            assert_eq!(word(host), "one");
        },
        clean: |host| {
            host.ok(&["secret", "rm", "word", "other"]);
        },
    },
    Case {
        name: "image",
        before: |host| other_root(host),
        ask: |host| host.run(&["import", &other(host), "other"]),
        after: |host, done| match lists(host, &["images"], "other") {
            true => assert_eq!(
                host.ok(&["run", "--rm", "other", "cat", "/tmp/which"]),
                "other"
            ),
            false => assert!(!done, "it was acknowledged and is gone"),
        },
        // What an import that was cut short has brought is collected with the next image.
        clean: |host| {
            host.ok(&["import", &other(host), "other"]);
            host.ok(&["rmi", "other"]);
        },
    },
    Case {
        name: "image_remove",
        before: |host| {
            other_root(host);
            host.ok(&["import", &other(host), "other"]);
        },
        ask: |host| host.run(&["rmi", "other"]),
        after: |host, done| {
            if lists(host, &["images"], "other") {
                assert!(!done, "it was acknowledged and is there");
                assert_eq!(
                    host.ok(&["run", "--rm", "other", "cat", "/tmp/which"]),
                    "other"
                );
            }
        },
        clean: |host| {
            host.run(&["rmi", "other"]);
        },
    },
    Case {
        name: "recover",
        before: |host| {
            run(host);
            host.ok(&["run", "-d", "--name", "ended", "busybox", "true"]);
            host.until_phase("ended", "exited");
            // Whatever there may be of it is taken down at each start.
            let spec = r#"{"name": "created", "image": "busybox", "command": ["true"]}"#;
            let json = ["--fail", "-H", "content-type: application/json", "-d", spec];
            let made = curl(host, "/v1/dynos").args(json).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        },
        ask: |_| Command::new("true").output().unwrap(),
        after: |host, _| {
            host.until_phase("subject", "running");
            let status = &host.inspect("created")["status"];
            assert_eq!(status["phase"], "created", "{status}");
            assert_eq!(host.inspect("subject")["status"]["restarts"], 0);
            assert_eq!(host.inspect("ended")["status"]["phase"], "exited");
            host.ok(&["exec", "subject", "true"]);
        },
        clean: |host| {
            host.ok(&["rm", "-f", "subject", "ended", "created"]);
        },
    },
];

const RUN: [&str; 11] = [
    "run",
    "-d",
    "--name",
    "subject",
    "-p",
    "8081:80",
    "--stop-grace",
    "100ms",
    "busybox",
    "sleep",
    "1000",
];

/// An answer is one that says that the host cannot do it, too.
fn answered(output: Output) -> Output {
    match output.status.code() {
        Some(7) => Command::new("true").output().unwrap(),
        _ => output,
    }
}

fn criu_works() -> bool {
    Command::new("criu")
        .arg("check")
        .output()
        .unwrap()
        .status
        .success()
}

/// Something in the place of a checkpoint.
fn with_checkpoint(host: &Host) {
    run(host);
    host.ok(&["stop", "-t", "0", "subject"]);
    let id = host.inspect("subject")["id"].as_str().unwrap().to_owned();
    let dyno = host.path().join("state/dynos").join(id);
    std::fs::create_dir_all(dyno.join("checkpoints/one")).unwrap();
    dyno_tests::write_file(&dyno.join("checkpoints/one/dyno-runtime.json"), "{}");
}

fn run(host: &Host) {
    host.ok(&RUN);
    host.until_phase("subject", "running");
}

pub(super) fn exists(host: &Host) -> bool {
    lists(host, &["ps", "-a"], "subject")
}

pub(super) fn remove(host: &Host) {
    if exists(host) {
        host.ok(&["rm", "-f", "subject"]);
    }
}

fn limited(host: &Host, done: bool) {
    let recorded = host.inspect("subject")["spec"]["limits"]["pids"].clone();
    assert!(recorded == 77 || !done, "it was acknowledged and is gone");
    let expected = match recorded == 77 {
        true => "77",
        false => "4096",
    };
    let applied = || host.ok(&["exec", "subject", "cat", "/sys/fs/cgroup/pids.max"]);
    if host
        .run(&["exec", "subject", "test", "-e", "/sys/fs/cgroup/pids.max"])
        .status
        .success()
    {
        until("the limit is the recorded one", || applied() == expected);
    }
    let recorded = host.inspect("subject")["spec"]["ulimits"]["nofile"]["soft"].clone();
    let applied = || host.ok(&["exec", "subject", "sh", "-c", "ulimit -n"]);
    until("so is the one on open files", || {
        (recorded == 64) == (applied() == "64")
    });
}

/// Whether a list has this: by itself, as `volume@snapshot` or as `registry/image:tag`.
fn lists(host: &Host, command: &[&str], name: &str) -> bool {
    let listed = host.ok(command);
    let mut words = listed.split(|c: char| c.is_whitespace() || "@/:".contains(c));
    words.any(|word| word == name)
}

fn in_volume(host: &Host, script: &str) -> String {
    host.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        script,
    ])
}

fn with_snapshot(host: &Host) {
    in_volume(host, "echo old > /data/file");
    host.ok(&["volume", "snapshot", "data", "then"]);
}

/// A file with a secret's value.
fn value(host: &Host, text: &str) -> String {
    let path = host.path().join(text);
    dyno_tests::write_file(&path, text);
    path.display().to_string()
}

fn word(host: &Host) -> String {
    host.ok(&[
        "run",
        "--rm",
        "--secret",
        "word",
        "busybox",
        "cat",
        "/run/secrets/word",
    ])
}

fn other(host: &Host) -> String {
    host.path().join("other.tar").display().to_string()
}

/// An archive of another root.
fn other_root(host: &Host) {
    if Path::new(&other(host)).exists() {
        return;
    }
    let root = host.path().join("other");
    std::fs::create_dir(&root).unwrap();
    dyno_tests::root::fill(&root);
    dyno_tests::write_file(&root.join("tmp/which"), "other");
    let tar = Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .arg(&root)
        .args(["-cf", &other(host), "."])
        .status();
    assert!(tar.unwrap().success());
}
