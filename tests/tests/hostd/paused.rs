//! A machine that stands still, as one whose hypervisor pauses it: hostd, monitors and
//! dynos do, and time goes on.

use std::time::Duration;

use dyno_tests::host::Host;
use dyno_tests::until;
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::processes;

#[test]
fn a_machine_that_was_paused_starts_nothing_again() {
    let host = Host::with_busybox();
    let notify = dyno_tests::programs().join("notify");
    let notify = format!("{}:/notify:ro", notify.display());
    let script = "/notify READY=1; while :; do /notify WATCHDOG=1; sleep 0.1; done";
    let options = [
        "run",
        "-d",
        "--name",
        "watched",
        "--restart",
        "always",
        "-v",
        &notify,
    ];
    let checks = [
        "--notify",
        "--watchdog",
        "1s",
        "--liveness",
        "interval=100ms timeout=500ms failures=1 sh:true",
    ];
    host.ok(&[&options[..], &checks, &["busybox", "sh", "-c", script]].concat());
    until("it is ready", || {
        host.inspect("watched")["status"]["health"] == "ready"
    });
    let before = processes(&host);
    for _ in 0..5 {
        let all = still(&host);
        // This is the fault itself, and longer than watchdog and check allow.
        std::thread::sleep(Duration::from_secs(2));
        for pid in all {
            // One that was to end with the pause has.
            kill_process(pid, Signal::CONT).ok();
        }
        // Each is heard of again.
        host.ok(&["exec", "watched", "sleep", "0.5"]);
        assert_eq!(processes(&host), before);
    }
    assert_eq!(host.inspect("watched")["status"]["restarts"], 0);
    assert_eq!(host.inspect("watched")["status"]["health"], "ready");
}

/// Stops hostd, the monitor and all of the dyno, which is in this order again later.
fn still(host: &Host) -> Vec<Pid> {
    let status = &host.inspect("watched")["status"];
    let pid = |value: &serde_json::Value| i32::try_from(value.as_i64().unwrap()).unwrap();
    let init = pid(&status["pid"]);
    let mut all = vec![
        i32::try_from(host.pid()).unwrap(),
        pid(&status["monitor_pid"]),
        init,
    ];
    let stop = |pid: i32| kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP);
    all.iter().for_each(|pid| stop(*pid).unwrap());
    // With init stopped it has no new ones.
    let children = format!("/proc/{init}/task/{init}/children");
    let children = std::fs::read_to_string(children).unwrap();
    for child in children.split_whitespace().map(|pid| pid.parse().unwrap()) {
        stop(child).ok();
        all.push(child);
    }
    all.into_iter().filter_map(Pid::from_raw).collect()
}
