//! What a dyno prints can be read, whatever happens to its log meanwhile.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use dyno_tests::host::Host;
use dyno_tests::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Files of the log in this folder whose names end so.
fn files(folder: &Path, end: &str) -> usize {
    let names = fs::read_dir(folder).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("log.0") && name.ends_with(end))
        .count()
}

/// The numbers from 1 on, as seq(1) writes them.
fn seq(last: u64) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

#[test]
fn no_line_is_lost_or_doubled_when_hostd_is_killed_while_it_compresses() {
    const LINES: u64 = 40_000;
    let mut host = Host::with_busybox();
    let script = format!("seq 1 {LINES}; sleep 1000");
    let limits = ["--log-max-size", "64K", "--log-max-files", "100"];
    let run = [
        &["run", "-d"],
        &limits[..],
        &["busybox", "sh", "-c", &script],
    ]
    .concat();
    let id = host.ok(&run);
    let folder = host.path().join("state/dynos").join(&id);
    for compressed in [1, 7, 16] {
        until("it compresses", || files(&folder, ".gz") >= compressed);
        host.kill_and_restart();
    }
    until("all but the last file are compressed", || {
        files(&folder, "") == files(&folder, ".gz") + 1
    });
    assert!(files(&folder, ".gz") > 20);
    let logs = host.run(&["logs", &id]);
    assert_eq!(String::from_utf8_lossy(&logs.stdout), seq(LINES));
    // More than the last file holds.
    let tail = host.ok(&["logs", "-n", "5000", &id]);
    assert_eq!(tail.lines().count(), 5000);
    assert!(tail.starts_with(&format!("{}\n", LINES - 4999)), "{tail}");
}

#[test]
fn a_follower_sees_restarts_and_rotations_through_to_the_end() {
    const LINES: u64 = 2_000;
    let host = Host::with_busybox();
    let script = format!("seq 1 {LINES}; exit 1");
    let limits = ["--log-max-size", "64K", "--log-max-files", "100"];
    let run = [
        &["run", "-d", "--restart", "on-failure:2"],
        &limits[..],
        &["busybox", "sh", "-c", &script],
    ]
    .concat();
    let id = host.ok(&run);
    let follower = host
        .dyno(&["logs", "-f", &id])
        .stdout(Stdio::piped())
        .spawn();
    let seen = follower.unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), seq(LINES).repeat(3));
}

#[test]
fn lines_are_chosen_by_stream_and_time() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    host.until_phase(&id, "exited");
    for (choice, out, err) in [
        (&[][..], "out\n", "err\n"),
        (&["--stream", "stdout"], "out\n", ""),
        (&["--stream", "stderr"], "", "err\n"),
        (&["--since", "1h"], "out\n", "err\n"),
        (&["--until", "1h"], "", ""),
        (&["-f", "--until", "0s"], "out\n", "err\n"),
    ] {
        let logs = host.run(&[&["logs", &id][..], choice].concat());
        let said = [logs.stdout, logs.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(said, [out, err], "{choice:?}");
    }
}

/// The process that writes the log of a dyno which does not wait for the disk.
fn writer(monitor: &str) -> Option<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.map(|entry| fs::read_to_string(entry.path().join("stat")));
    // proc_pid_stat(5): pid, name, state, parent.
    let found = stats.flatten().find_map(|stat| {
        let (pid, rest) = stat.split_once(" (dyno-log) ")?;
        (rest.split(' ').nth(1) == Some(monitor)).then(|| pid.parse().ok())?
    });
    found.and_then(Pid::from_raw)
}

#[test]
fn dropped_lines_are_told_by_logs_inspect_and_stats() {
    const LINES: usize = 100_000;
    let host = Host::with_busybox();
    let script = format!("read x; seq 1 {LINES}; exec sleep 1000");
    let id = host.ok(&[
        "run",
        "-di",
        "--log-mode",
        "drop",
        "busybox",
        "sh",
        "-c",
        &script,
    ]);
    let monitor = host.inspect(&id)["status"]["monitor_pid"].to_string();
    until("there is a writer", || writer(&monitor).is_some());
    let writer = writer(&monitor).unwrap();
    kill_process(writer, Signal::STOP).unwrap();
    host.ok(&["exec", &id, "sh", "-c", "echo go >/proc/1/fd/0"]);
    let init = host.inspect(&id)["status"]["pid"].to_string();
    until("it has written all of it", || {
        fs::read_to_string(format!("/proc/{init}/cmdline"))
            .unwrap()
            .starts_with("sleep")
    });
    kill_process(writer, Signal::CONT).unwrap();
    let mut dropped = 0;
    until("what was dropped is told", || {
        let logs = host.run(&["logs", &id]);
        let notes = String::from_utf8(logs.stderr).unwrap();
        dropped = notes
            .lines()
            .map(|note| note.split(' ').nth(1).unwrap().parse::<usize>().unwrap())
            .sum();
        let lines = String::from_utf8(logs.stdout).unwrap().lines().count();
        dropped > 0 && lines + dropped == LINES
    });
    assert_eq!(host.inspect(&id)["status"]["log_dropped"], dropped);
    let stats: Value =
        serde_json::from_str(&host.ok(&["stats", "--no-stream", "--json", &id])).unwrap();
    assert_eq!(stats[0]["log_dropped"], dropped);
}
