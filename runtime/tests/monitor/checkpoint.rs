//! A dyno that is saved and comes back under another monitor. Where CRIU does not work
//! on this kernel that is counted as skipped, and done in a virtual machine; what a
//! failing CRIU leaves is tested with one that is none.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::rig::{Rig, Session, is_alive, process, wait_gone};

const CRIU: &str = "/usr/sbin/criu";

/// Counts the test as skipped where CRIU cannot work. As `dyno_tests::skip`, which is no
/// dependency of this crate.
fn skipped() -> bool {
    let check = Command::new(CRIU)
        .arg("check")
        .stdin(Stdio::null())
        .output();
    let check = check.expect("criu is installed: cargo xtask setup");
    if check.status.success() {
        return false;
    }
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    let said = said.lines().next().unwrap_or_default();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{name}: criu check fails on this kernel: {said}");
    eprintln!("SKIPPED {line}");
    if let Some(path) = std::env::var_os("DYNO_TEST_SKIPS") {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
    true
}

fn images(rig: &Rig) -> PathBuf {
    rig.dir.join("images")
}

fn save(rig: &Rig, criu: &str, more: Value) -> Value {
    let mut request = json!({"op": "checkpoint", "criu": criu, "images": images(rig)});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    rig.ask(request)
}

/// Has the next monitor bring the dyno back.
fn from_images(rig: &mut Rig, criu: &str) {
    rig.config["restore"] = json!({"criu": criu, "images": images(rig)});
}

/// Numbers of the log's lines.
fn numbers(rig: &Rig) -> Vec<u64> {
    let lines = rig.log().into_iter();
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}

fn namespace(pid: u32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

const COUNTING: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";

#[test]
fn it_goes_on_under_another_monitor_and_no_line_is_lost_or_doubled() {
    if skipped() {
        return;
    }
    let mut rig = Rig::new(COUNTING);
    rig.config["restart"] = json!({"policy": "always"});
    rig.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7"});
    rig.start();
    rig.wait_for_line("stdout F 5");
    let ended = save(&rig, CRIU, json!({}));
    assert_eq!(ended["ok"]["phase"], "exited", "{ended}\n{rig}");
    assert_eq!(ended["ok"]["reason"], "saved by a checkpoint");
    // Whatever its policy.
    rig.finished();
    let mode = fs::metadata(images(&rig)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let saved = *numbers(&rig).last().unwrap();

    from_images(&mut rig, CRIU);
    let pid = rig.create();
    // Its network is there, to be plumbed, and it does not run yet.
    let network = namespace(pid, "net");
    assert_ne!(network, namespace(std::process::id(), "net"));
    assert_eq!(*numbers(&rig).last().unwrap(), saved);
    let started = rig.ask(json!({"op": "start"}));
    assert_eq!(started["ok"]["phase"], "running", "{started}\n{rig}");
    rig.wait_for_line(&format!("stdout F {}", saved + 5));
    let all = numbers(&rig);
    let expected: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, expected, "{rig}");
    let said: Vec<String> = rig.log();
    assert_eq!(
        said.len(),
        all.len(),
        "CRIU has no say in its log: {said:?}"
    );
    assert_eq!(namespace(pid, "net"), network);
    // It can be executed in, and has its network as it was set up.
    let script =
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/uid_map /proc/net/if_inet6";
    let session = Session::read(rig.frames(json!({"op": "exec", "process": process(script)})));
    let words: Vec<&str> = session
        .stdout
        .split(|byte| byte.is_ascii_whitespace())
        .map(|word| std::str::from_utf8(word).unwrap())
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(&words[..4], ["7", "0", "1300000000", "65536"], "{words:?}");
    assert_eq!(words.last(), Some(&"lo"), "{words:?}");

    // What restarts it restarts its command, in its network.
    kill_process(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let again = rig.wait_for("restart", |state| {
        state.status.restarts == 1 && state.status.pid.is_some()
    });
    let again = again.status.pid.unwrap();
    assert_eq!(namespace(again, "net"), network);
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn it_dies_with_its_new_monitor() {
    if skipped() {
        return;
    }
    let mut rig = Rig::new(COUNTING);
    rig.start();
    rig.wait_for_line("stdout F 3");
    save(&rig, CRIU, json!({}));
    rig.finished();
    from_images(&mut rig, CRIU);
    // Before it is started, and after.
    for start in [false, true] {
        let pid = rig.create();
        if start {
            let started = rig.ask(json!({"op": "start"}));
            assert_eq!(started["ok"]["phase"], "running", "{started}\n{rig}");
        }
        assert!(is_alive(pid));
        let monitor = Pid::from_raw(rig.monitor_pid()).unwrap();
        kill_process(monitor, Signal::KILL).unwrap();
        rig.monitor_exit();
        wait_gone(pid);
    }
}

#[test]
fn one_that_is_left_running_runs_on_and_can_be_saved_again() {
    if skipped() {
        return;
    }
    let mut rig = Rig::new(COUNTING);
    let pid = rig.start();
    for round in 1..3 {
        rig.wait_for_line(&format!("stdout F {}", round * 5));
        if images(&rig).exists() {
            fs::remove_dir_all(images(&rig)).unwrap();
        }
        let saved = save(&rig, CRIU, json!({"leave_running": true}));
        assert_eq!(saved["ok"]["phase"], "running", "{saved}\n{rig}");
        assert!(images(&rig).join("dyno-runtime.json").exists());
    }
    let before = *numbers(&rig).last().unwrap();
    rig.wait_for_line(&format!("stdout F {}", before + 5));
    assert!(is_alive(pid));
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn one_that_has_an_open_connection_needs_to_be_told() {
    if skipped() {
        return;
    }
    // 7777 is 1E61.
    let script = "sleep 1000 | nc -l -p 7777 >/dev/null & \
        until grep -q :1E61 /proc/net/tcp6; do sleep 0.05; done; echo up; sleep 1000 | nc 127.0.0.1 7777";
    let mut rig = Rig::new(script);
    for applet in ["grep", "nc"] {
        std::os::unix::fs::symlink("busybox", rig.dir.join("rootfs/bin").join(applet)).unwrap();
    }
    rig.start();
    rig.wait_for_line("stdout F up");
    let begin = std::time::Instant::now();
    let connected = |rig: &Rig| {
        let words = process("cat /proc/net/tcp");
        let session = Session::read(rig.frames(json!({"op": "exec", "process": words})));
        // tcp_states.h: established.
        session
            .stdout()
            .lines()
            .any(|line| line.split_whitespace().nth(3) == Some("01"))
    };
    while !connected(&rig) {
        assert!(begin.elapsed() < crate::rig::LONG, "no connection\n{rig}");
    }
    let refused = save(&rig, CRIU, json!({}));
    assert_eq!(refused["err"]["kind"], "conflict", "{refused}\n{rig}");
    assert!(
        refused["err"]["hint"]
            .as_str()
            .unwrap()
            .contains("connections"),
        "{refused}"
    );
    assert!(connected(&rig));
    let saved = save(&rig, CRIU, json!({"tcp_established": true}));
    assert_eq!(saved["ok"]["phase"], "exited", "{saved}\n{rig}");
    rig.finished();
    from_images(&mut rig, CRIU);
    rig.create();
    let started = rig.ask(json!({"op": "start"}));
    assert_eq!(started["ok"]["phase"], "running", "{started}\n{rig}");
    assert!(connected(&rig));
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

/// A program in CRIU's place: `check` finds nothing wrong.
fn impostor(rig: &Rig, script: &str) -> String {
    let path = rig.dir.join("criu");
    let text = format!("#!/bin/sh\n[ \"$1\" = check ] && exit 0\n{script}\n");
    fs::File::create(&path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

fn runs_on(rig: &Rig) {
    let before = *numbers(rig).last().unwrap();
    rig.wait_for_line(&format!("stdout F {}", before + 3));
    let left = |name: &str| rig.dir.join(name).exists();
    assert!(!left("images") && !left("images.partial"), "{rig}");
}

#[test]
fn whatever_criu_does_wrong_it_runs_on_and_nothing_half_made_is_left() {
    let mut rig = Rig::new(COUNTING);
    rig.start();
    rig.wait_for_line("stdout F 2");
    for (script, kind, words) in [
        // It has saved half of it and stopped all of it.
        (
            "for a; do case $a in --images-dir=*) echo half >${a#*=}/pages-1.img;; --log-file=*) log=${a#*=};; \
          --work-dir=*) work=${a#*=};; --tree) tree=1;; [0-9]*) [ \"$tree\" ] && kill -STOP $a;; esac; done; \
          echo '(00.1) Error (criu/x.c:1): it went wrong' >$work/$log; exit 1",
            "conflict",
            "it went wrong",
        ),
        ("kill -9 $$", "conflict", "signal"),
        ("kill -9 $PPID", "internal", "without a word"),
    ] {
        let criu = impostor(&rig, script);
        let refused = save(&rig, &criu, json!({}));
        assert_eq!(refused["err"]["kind"], kind, "{refused}\n{rig}");
        assert!(
            refused["err"]["message"].as_str().unwrap().contains(words),
            "{refused}"
        );
        if kind == "internal" {
            fs::remove_dir_all(rig.dir.join("images.partial")).unwrap();
        }
        runs_on(&rig);
    }
    let refused = save(&rig, "/nowhere/criu", json!({}));
    assert_eq!(refused["err"]["kind"], "unsupported", "{refused}");
    assert!(
        refused["err"]["message"]
            .as_str()
            .unwrap()
            .contains("install"),
        "{refused}"
    );
    runs_on(&rig);
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn who_is_being_saved_can_be_stopped_and_nobody_saves_him_twice() {
    let mut rig = Rig::new(COUNTING);
    rig.start();
    rig.wait_for_line("stdout F 2");
    let criu = impostor(&rig, "echo $$ >$(dirname $0)/began; exec sleep 1000");
    let mut first = rig.connect();
    let request = json!({"op": "checkpoint", "criu": criu, "images": images(&rig)});
    first.write_all(format!("{request}\n").as_bytes()).unwrap();
    let began = rig.dir.join("began");
    let begin = std::time::Instant::now();
    let criu_pid = loop {
        let text = fs::read_to_string(&began).unwrap_or_default();
        if let Ok(pid) = text.trim().parse::<i32>() {
            break Pid::from_raw(pid).unwrap();
        }
        assert!(
            begin.elapsed() < crate::rig::LONG,
            "it does not begin\n{rig}"
        );
    };
    let second = save(&rig, &criu, json!({}));
    assert_eq!(second["err"]["kind"], "conflict", "{second}");
    assert!(
        second["err"]["message"]
            .as_str()
            .unwrap()
            .contains("already"),
        "{second}"
    );
    let stopped = rig.ask(json!({"op": "stop", "grace_ms": 0}));
    assert_eq!(stopped["ok"]["phase"], "exited", "{stopped}\n{rig}");
    kill_process(criu_pid, Signal::KILL).unwrap();
    rig.finished();
    assert!(!images(&rig).exists());
}

#[test]
fn a_dyno_that_cannot_be_brought_back_leaves_nothing() {
    let mut rig = Rig::new(COUNTING);
    let images = images(&rig);
    fs::create_dir(&images).unwrap();
    let note = json!({"version": 1, "mounts": [], "streams": [], "network": false});
    fs::File::create(images.join("dyno-runtime.json"))
        .unwrap()
        .write_all(note.to_string().as_bytes())
        .unwrap();
    for (script, words) in [
        ("exit 1", "criu restore failed"),
        ("exit 0", "without a word"),
    ] {
        let criu = impostor(&rig, script);
        from_images(&mut rig, &criu);
        let told = rig.announce();
        let message = told["failed"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{told}\n{rig}");
        rig.monitor_exit();
        assert!(!rig.dir.join("monitor.sock").exists());
        let mode = fs::metadata(&images).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "they are closed again");
    }
    fs::remove_dir_all(&images).unwrap();
    let criu = impostor(&rig, "exit 0");
    from_images(&mut rig, &criu);
    let told = rig.announce();
    assert!(told["failed"].is_object(), "{told}\n{rig}");
    rig.monitor_exit();
}
