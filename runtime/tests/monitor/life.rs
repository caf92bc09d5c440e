//! Created, started, restarted, stopped, ended.

use std::fs;
use std::time::{Duration, Instant};

use dyno_runtime::monitor::protocol::Phase;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::rig::{LONG, Rig, is_alive, read_lines, wait_gone};

fn namespace(pid: u32, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

#[test]
fn a_created_dyno_has_its_network_namespace_and_runs_nothing_yet() {
    let mut rig = Rig::new("echo ran");
    let pid = rig.create();
    assert_ne!(namespace(pid, "net"), namespace(std::process::id(), "net"));
    let status = rig.ask(json!({"op": "status"}));
    assert_eq!(status["ok"]["phase"], "created");
    assert_eq!(status["ok"]["pid"], pid);
    assert_eq!(rig.state().init.unwrap().pid, pid);
    assert!(rig.log().is_empty());
    assert_eq!(rig.ask(json!({"op": "start"}))["ok"]["phase"], "running");
    assert_eq!(rig.exit_code(), 0);
    assert_eq!(rig.log(), ["stdout F ran"]);
}

#[test]
fn the_exit_code_is_recorded() {
    let mut rig = Rig::new("exit 42");
    rig.start();
    assert_eq!(rig.exit_code(), 42);
}

#[test]
fn a_watcher_hears_of_every_phase_until_the_end() {
    let mut rig = Rig::new("exit 3");
    rig.create();
    let (first, socket) = rig.open(json!({"op": "watch"}));
    assert_eq!(first["ok"]["phase"], "created");
    rig.ask(json!({"op": "start"}));
    let lines = read_lines(socket);
    let phases: Vec<&str> = lines
        .iter()
        .map(|line| line["ok"]["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases.first(), Some(&"running"), "{lines:?}");
    assert_eq!(phases.last(), Some(&"exited"), "{lines:?}");
    assert_eq!(lines.last().unwrap()["ok"]["exit"]["code"], 3);
    rig.finished();
}

#[test]
fn a_missing_command_is_not_found_and_final() {
    let mut rig = Rig::new("");
    rig.spec["process"]["args"] = json!(["/bin/nothing"]);
    rig.config["restart"] = json!({"policy": "always"});
    rig.create();
    let answer = rig.ask(json!({"op": "start"}));
    assert_eq!(answer["err"]["kind"], "not_found", "{answer}");
    assert!(
        answer["err"]["message"]
            .as_str()
            .unwrap()
            .contains("/bin/nothing")
    );
    let state = rig.finished();
    assert_eq!(state.status.phase, Phase::Failed);
    assert_eq!(state.status.exit.unwrap().code, 127);
}

#[test]
fn a_command_that_is_not_executable_is_forbidden() {
    let mut rig = Rig::new("");
    rig.spec["process"]["args"] = json!(["/bin/plain"]);
    rig.create();
    let answer = rig.ask(json!({"op": "start"}));
    assert_eq!(answer["err"]["kind"], "forbidden", "{answer}");
    assert_eq!(rig.finished().status.exit.unwrap().code, 126);
}

#[test]
fn a_bundle_that_cannot_be_created_is_announced_and_leaves_nothing() {
    let mut rig = Rig::new("");
    rig.spec["root"]["path"] = json!("no-such-folder");
    let told = rig.announce();
    assert!(told["failed"]["message"].is_string(), "{told}");
    assert_eq!(rig.monitor_exit().code(), Some(1));
    assert!(!rig.dir.join("monitor.sock").exists());
}

#[test]
fn an_unknown_field_in_the_configuration_is_refused() {
    let mut rig = Rig::new("");
    rig.config["stop_grace"] = json!(5);
    let told = rig.announce();
    assert_eq!(told["failed"]["kind"], "invalid", "{told}");
}

#[test]
fn a_failing_dyno_is_restarted_with_growing_delays_in_the_same_network() {
    let mut rig = Rig::new("readlink /proc/self/ns/net; readlink /proc/self/ns/user; exit 1");
    rig.config["restart"] = json!({"policy": "on_failure", "max_retries": 3});
    let begin = Instant::now();
    rig.start();
    let state = rig.finished();
    // At least 80 + 160 + 320 ms: the jitter takes a fifth at most.
    assert!(
        begin.elapsed() >= Duration::from_millis(560),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(state.status.restarts, 3);
    assert_eq!(state.status.exit.unwrap().code, 1, "{state:?}");
    assert!(state.status.reason.unwrap().contains("4 times"));
    let lines = rig.log();
    assert_eq!(lines.len(), 8, "{lines:?}");
    for pair in lines.chunks(2) {
        assert_eq!(pair, &lines[..2]);
    }
}

#[test]
fn a_stop_during_back_off_ends_it() {
    let mut rig = Rig::new("exit 1");
    rig.config["restart"] = json!({"policy": "always"});
    rig.start();
    let backoff = rig.wait_for("back-off", |state| {
        state.status.phase == Phase::Backoff && state.status.restarts > 0
    });
    assert!(backoff.status.next_start.is_some());
    let answer = rig.ask(json!({"op": "stop"}));
    assert_eq!(answer["ok"]["phase"], "exited", "{answer}");
    assert_eq!(rig.exit_code(), 1);
}

#[test]
fn a_stop_asks_with_the_configured_signal() {
    let mut rig =
        Rig::new("trap 'echo bye; exit 7' USR1; echo ready; while :; do sleep 0.05; done");
    rig.config["stop_signal"] = json!(10);
    rig.config["restart"] = json!({"policy": "always"});
    rig.start();
    rig.wait_for_line("stdout F ready");
    let answer = rig.ask(json!({"op": "stop"}));
    assert_eq!(answer["ok"]["phase"], "exited", "{answer}");
    assert_eq!(answer["ok"]["exit"]["code"], 7);
    assert_eq!(rig.exit_code(), 7);
    assert_eq!(rig.log(), ["stdout F ready", "stdout F bye"]);
}

#[test]
fn a_real_time_signal_may_ask_it_to_stop() {
    // SIGRTMIN+3, as systemd wants it.
    let mut rig = Rig::new("trap 'echo bye; exit 7' 37; echo ready; while :; do sleep 0.05; done");
    rig.config["stop_signal"] = json!(37);
    rig.start();
    rig.wait_for_line("stdout F ready");
    let answer = rig.ask(json!({"op": "stop"}));
    assert_eq!(answer["ok"]["exit"]["code"], 7, "{answer}");
    assert_eq!(rig.exit_code(), 7);
    assert_eq!(rig.log(), ["stdout F ready", "stdout F bye"]);
}

#[test]
fn a_stop_that_is_ignored_kills_after_the_grace() {
    let mut rig = Rig::new("trap '' TERM; echo ready; while :; do sleep 1; done");
    rig.start();
    rig.wait_for_line("stdout F ready");
    let begin = Instant::now();
    let answer = rig.ask(json!({"op": "stop", "grace_ms": 400}));
    assert!(
        begin.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(answer["ok"]["exit"]["signal"], 9, "{answer}");
    assert_eq!(answer["ok"]["exit"]["oom"], false);
    assert!(answer["ok"]["reason"].as_str().unwrap().contains("killed"));
    assert_eq!(rig.exit_code(), 137);
}

#[test]
fn what_was_created_and_never_started_can_be_stopped() {
    let mut rig = Rig::new("echo ran");
    let pid = rig.create();
    let answer = rig.ask(json!({"op": "stop"}));
    assert_eq!(answer["ok"]["phase"], "exited", "{answer}");
    assert!(!is_alive(pid));
    rig.finished();
    assert!(rig.log().is_empty());
}

#[test]
fn a_signal_reaches_init_alone_or_everybody() {
    let script = "(trap 'echo child; exit' USR1; echo child ready; while :; do sleep 0.02; done) &
        trap 'echo init' USR1; echo init ready; while :; do sleep 0.02; done";
    let mut rig = Rig::new(script);
    rig.start();
    rig.wait_for_line("stdout F child ready");
    rig.wait_for_line("stdout F init ready");
    assert!(rig.ask(json!({"op": "signal", "signal": 10}))["ok"].is_object());
    rig.wait_for_line("stdout F init");
    assert!(!rig.log().contains(&"stdout F child".to_owned()));
    // sleep(1), which has no trap, dies of it, too: the loops go on.
    assert!(rig.ask(json!({"op": "signal", "signal": 10, "all": true}))["ok"].is_object());
    rig.wait_for_line("stdout F child");
    for number in [0, 65] {
        let refused = rig.ask(json!({"op": "signal", "signal": number}));
        assert_eq!(refused["err"]["kind"], "invalid", "{refused}");
    }
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn requests_that_do_not_fit_are_conflicts() {
    let mut rig = Rig::new("sleep 100");
    rig.create();
    let early = rig.ask(json!({"op": "signal", "signal": 1}));
    assert_eq!(early["err"]["kind"], "conflict", "{early}");
    rig.ask(json!({"op": "start"}));
    let twice = rig.ask(json!({"op": "start"}));
    assert_eq!(twice["err"]["kind"], "conflict", "{twice}");
    let odd = rig.ask(json!({"op": "signal", "signal": 99}));
    assert_eq!(odd["err"]["kind"], "invalid", "{odd}");
    rig.ask(json!({"op": "stop", "grace_ms": 0}));
    rig.finished();
}

#[test]
fn the_end_of_init_is_the_end_of_its_children() {
    let mut rig = Rig::new("sleep 1000 & (sleep 1000 & sleep 1000 &) ; exit 5");
    let begin = Instant::now();
    rig.start();
    // They hold the pipe open; nobody waits for them.
    assert_eq!(rig.exit_code(), 5);
    assert!(begin.elapsed() < LONG);
}

#[test]
fn sigterm_to_the_monitor_stops_the_dyno() {
    let mut rig = Rig::new("trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done");
    rig.start();
    rig.wait_for_line("stdout F ready");
    let monitor = Pid::from_raw(rig.monitor_pid()).unwrap();
    kill_process(monitor, Signal::HUP).unwrap();
    kill_process(monitor, Signal::INT).unwrap();
    assert_eq!(rig.ask(json!({"op": "status"}))["ok"]["phase"], "running");
    kill_process(monitor, Signal::TERM).unwrap();
    assert_eq!(rig.exit_code(), 4);
    // Nobody who may want it has asked for its end.
    assert!(rig.state().status.by_system);
}

#[test]
fn a_killed_monitor_takes_its_dyno_with_it_and_leaves_no_final_state() {
    let mut rig = Rig::new("sleep 1000 & sleep 1000");
    let pid = rig.start();
    let monitor = Pid::from_raw(rig.monitor_pid()).unwrap();
    kill_process(monitor, Signal::KILL).unwrap();
    rig.monitor_exit();
    wait_gone(pid);
    let state = rig.state();
    assert_eq!(state.status.phase, Phase::Running);
    assert_eq!(i64::from(state.monitor.pid), i64::from(rig.monitor_pid()));
}
