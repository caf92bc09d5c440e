//! What a dyno prints is in its log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use crate::rig::Rig;

#[test]
fn a_hundred_thousand_lines_survive_rotation() {
    let mut rig = Rig::new("seq 1 100000");
    rig.config["log"]["max_bytes"] = json!(500_000);
    rig.config["log"]["keep"] = json!(100);
    rig.start();
    assert_eq!(rig.exit_code(), 0);
    let lines = rig.log();
    assert_eq!(lines.len(), 100_000);
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(*line, format!("stdout F {number}"));
    }
    let oldest = fs::metadata(rig.dir.join("log.9")).unwrap();
    assert!(oldest.len() <= 500_000);
    assert_eq!(oldest.permissions().mode() & 0o777, 0o600);
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
    while !log().contains("log entries were dropped") {
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
