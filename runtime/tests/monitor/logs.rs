//! What a dyno prints is in its log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dyno_runtime::monitor::frame::Kind;
use dyno_runtime::monitor::log::folder;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::rig::{Rig, send_frame};

#[test]
fn a_hundred_thousand_lines_survive_rotation() {
    let mut rig = Rig::new("seq 1 100000");
    rig.config["log"]["max_bytes"] = json!(500_000);
    rig.config["log"]["keep"] = json!(100);
    rig.start();
    assert_eq!(rig.exit_code(), 0);
    let lines = whole(rig.log());
    assert_eq!(lines.len(), 100_000);
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(*line, format!("stdout F {number}"));
    }
    let oldest = fs::metadata(rig.dir.join("log.00000001")).unwrap();
    assert!(oldest.len() <= 500_000);
    assert_eq!(oldest.permissions().mode() & 0o777, 0o600);
}

/// Lines whose parts are put together again: seq writes blocks, which end within a
/// line, and on a slow machine the next one comes too late for it to be waited for.
fn whole(lines: Vec<String>) -> Vec<String> {
    let mut begun = String::new();
    let joined = lines
        .into_iter()
        .filter_map(|line| match line.strip_prefix("stdout P ") {
            Some(part) => {
                begun.push_str(part);
                None
            }
            None => {
                let rest = line.strip_prefix("stdout F ").expect("a line");
                Some(format!("stdout F {}{rest}", std::mem::take(&mut begun)))
            }
        });
    joined.collect()
}

#[test]
fn a_line_of_a_megabyte_is_cut_into_parts() {
    let mut rig = Rig::new("dd if=/dev/zero bs=1000 count=1000 2>/dev/null; echo; echo next");
    rig.start();
    assert_eq!(rig.exit_code(), 0);
    let lines = rig.log();
    assert_eq!(lines.len(), 63, "{:?}", lines.last());
    let (parts, rest) = lines.split_at(61);
    let part = "\0".repeat(16_384);
    assert!(parts.iter().all(|line| *line == format!("stdout P {part}")));
    let end = "\0".repeat(1_000_000 - 61 * 16_384);
    assert_eq!(rest[0], format!("stdout F {end}"));
    assert_eq!(rest[1], "stdout F next");
}

#[test]
fn a_prompt_without_newline_is_logged_while_it_waits() {
    let mut rig = Rig::new("echo -n 'name? '; read name");
    rig.config["stdin"] = json!(true);
    rig.start();
    rig.wait_for_line("stdout P name? ");
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
    assert_eq!(rig.log(), ["stdout P name? ", "stdout F "]);
}

#[test]
fn a_second_monitor_continues_the_log() {
    let mut rig = Rig::new("echo hello");
    for round in 1..=2 {
        rig.start();
        assert_eq!(rig.exit_code(), 0);
        assert_eq!(rig.log().len(), round);
    }
}

/// A small file system, unmounted with the test.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_drops_lines_counts_them_and_never_stops_the_dyno() {
    let script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done";
    let mut rig = Rig::new(script);
    let folder = rig.dir.join("small");
    fs::create_dir(&folder).unwrap();
    mount(
        "tmpfs",
        &folder,
        "tmpfs",
        MountFlags::empty(),
        Some(c"size=64k"),
    )
    .unwrap();
    let small = Small(folder.clone());
    let ballast = folder.join("ballast");
    fs::File::create(&ballast).unwrap().set_len(0).unwrap();
    rig.config["log"] = json!({"path": folder.join("log"), "max_bytes": 1 << 20, "keep": 1});
    let fill = std::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "count=100"])
        .arg(format!("of={}", ballast.display()))
        .stderr(std::process::Stdio::null())
        .status();
    assert!(!fill.unwrap().success(), "the disk is not full");
    rig.start();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rig.ask(json!({"op": "status"}))["ok"]["phase"], "running");
    fs::remove_file(&ballast).unwrap();
    let log = || fs::read_to_string(folder.join("log")).unwrap();
    let begin = std::time::Instant::now();
    // The note comes as soon as there is room, and a line after it in its time.
    while !log().contains("log entries were dropped") || log().lines().count() < 2 {
        assert!(begin.elapsed() < crate::rig::LONG, "{}\n{rig}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
    let text = log();
    let mut lines = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap());
    let note = lines.next().unwrap();
    let dropped: usize = note.split(' ').nth(1).unwrap().parse().unwrap();
    // What follows the note is what follows the dropped lines.
    assert_eq!(lines.next().unwrap(), dropped.to_string());
    drop(small);
}

/// What the notes of dropped entries add up to, and the lines that are none.
fn accounted(lines: &[String]) -> (u64, Vec<u64>) {
    let mut dropped = 0;
    let mut numbers = Vec::new();
    for line in lines {
        match line.strip_prefix("stderr F [dyno: ") {
            Some(note) => dropped += note.split(' ').next().unwrap().parse::<u64>().unwrap(),
            None => numbers.push(line.rsplit(' ').next().unwrap().parse().unwrap()),
        }
    }
    (dropped, numbers)
}

#[test]
fn a_dyno_that_shall_not_wait_for_the_disk_loses_lines_that_are_counted() {
    // A write for each, so that none is ever read in two parts.
    const LINES: u64 = 20_000;
    let text = "x".repeat(100);
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo {text} $i; done; exec sleep 1000"
    );
    let mut rig = Rig::new(&script);
    rig.config["log"]["mode"] = json!("drop");
    let init = rig.create();
    let writer = Pid::from_raw(rig.log_writer()).unwrap();
    // As slow as a disk can be.
    kill_process(writer, Signal::STOP).unwrap();
    rig.ask(json!({"op": "start"}));
    let command = format!("/proc/{init}/cmdline");
    let begin = std::time::Instant::now();
    while !fs::read_to_string(&command).unwrap().starts_with("sleep") {
        assert!(begin.elapsed() < crate::rig::LONG, "the dyno waits\n{rig}");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(writer, Signal::CONT).unwrap();
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
    let (dropped, numbers) = accounted(&rig.log());
    assert!(dropped > 0 && !numbers.is_empty(), "{dropped} dropped");
    assert_eq!(dropped + numbers.len() as u64, LINES);
    assert!(numbers.is_sorted(), "not in order");
    assert_eq!(folder::dropped(&rig.dir.join("log")).unwrap(), dropped);
}

#[test]
fn a_writer_that_is_killed_is_followed_by_another() {
    let mut rig = Rig::new("echo 1; read x; echo 2");
    rig.config["log"]["mode"] = json!("drop");
    rig.config["stdin"] = json!(true);
    rig.start();
    rig.wait_for_line("stdout F 1");
    let writer = rig.log_writer();
    kill_process(Pid::from_raw(writer).unwrap(), Signal::KILL).unwrap();
    let mut client = rig.frames(json!({"op": "attach", "stdin": true}));
    send_frame(&mut client, Kind::Stdin, b"\n");
    rig.finished();
    assert_eq!(rig.log(), ["stdout F 1", "stdout F 2"]);
}
