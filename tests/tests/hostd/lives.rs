//! Upgrades and reboots.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use dyno_tests::host::{Host, http_get};
use dyno_tests::until;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::rig::{assert_no_request_fails, assert_nothing_left, processes, stderr};

const SERVE: &str = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done";

fn pid(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().unwrap()).unwrap()).unwrap()
}

#[test]
fn an_upgrade_of_hostd_fails_no_request_to_a_dyno() {
    let mut host = Host::with_busybox();
    host.ok(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE,
    ]);
    host.ok(&[
        "run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT,
    ]);
    let before = processes(&host);
    assert_no_request_fails(&mut host, |host| (0..3).for_each(|_| upgrade(host)));
    assert_eq!(processes(&host), before, "something was started again");
    let logs = host.ok(&["logs", "counter"]);
    let lines: Vec<usize> = logs.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (1..=lines.len()).collect::<Vec<_>>());
}

/// Ends hostd as systemd does, in the middle of a followed log and an exec,
/// and starts it again.
fn upgrade(host: &mut Host) {
    let follower = host
        .dyno(&["logs", "-f", "-n", "0", "counter"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut executing = host
        .dyno(&["exec", "counter", "sh", "-c", "echo begun; sleep 1000"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0; 6];
    executing
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut begun)
        .unwrap();
    assert_eq!(&begun, b"begun\n");
    let begin = Instant::now();
    let hostd = Pid::from_raw(i32::try_from(host.pid()).unwrap()).unwrap();
    kill_process(hostd, Signal::TERM).unwrap();
    // Clients notice, rather than wait for ever; this also reaps hostd.
    for (what, client) in [("logs -f", follower), ("exec", executing)] {
        let output = client.wait_with_output().unwrap();
        assert!(
            !output.status.success() || what == "logs -f",
            "{what} says that all went well: {output:?}"
        );
        assert!(
            output.status.success() || !stderr(&output).is_empty(),
            "{what} says nothing"
        );
    }
    host.kill();
    assert!(begin.elapsed() < Duration::from_secs(10), "hostd lingers");
    host.spawn_again();
    host.until_it_answers();
    assert_eq!(host.ok(&["exec", "counter", "echo", "again"]), "again");
}

#[test]
fn after_a_reboot_there_is_what_shall_run_and_nothing_else() {
    let mut host = Host::with_busybox();
    let run = |name: &str, extra: &[&str], command: &[&str]| {
        let arguments = [&["run", "-d", "--name", name], extra, &["busybox"], command].concat();
        host.ok(&arguments);
    };
    let sleep = ["sleep", "1000"];
    run(
        "web",
        &["--restart", "always", "-p", "8080:80"],
        &["sh", "-c", SERVE],
    );
    run("failing", &["--restart", "on-failure"], &sleep);
    run("stopped", &["--restart", "always"], &sleep);
    run("once", &[], &sleep);
    run("passing", &["--rm"], &sleep);
    host.ok(&["stop", "-t", "0s", "stopped"]);
    let before: BTreeMap<_, _> = ["web", "failing", "stopped", "once"]
        .map(|name| (name, host.inspect(name)))
        .into();
    reboot(&mut host);
    for name in ["web", "failing"] {
        host.until_phase(name, "running");
        let (old, new) = (&before[name], host.inspect(name));
        for what in ["id", "created", "spec"] {
            assert_eq!(old[what], new[what], "{name}: {what}");
        }
        assert_eq!(old["status"]["ipv4"], new["status"]["ipv4"], "{name}");
        assert_ne!(old["status"]["pid"], new["status"]["pid"], "{name}");
    }
    until("it serves again", || {
        http_get("127.0.0.1:8080".parse().unwrap(), "/").is_ok_and(|body| body == "page\n")
    });
    assert_eq!(host.inspect("stopped")["status"]["phase"], "exited");
    // Nobody knows how it ended, and nobody asked for it to come back.
    assert_eq!(host.inspect("once")["status"]["phase"], "lost");
    let (error, _) = host.fails(&["inspect", "passing"]);
    assert!(error.contains("passing"), "{error}");
    for name in before.keys() {
        host.ok(&["rm", "-f", name]);
    }
    until("the one that was passing is gone", || host.ids().is_empty());
    assert_nothing_left(&host);
}

/// What a reboot does to a host: no process and no run folder is left. Its
/// links and rules are still there, which a start must bear as well.
fn reboot(host: &mut Host) {
    let all = processes(host);
    host.kill();
    for (own, monitor) in all.values().filter(|(own, _)| own.is_number()) {
        kill_process(pid(monitor), Signal::KILL).unwrap();
        until("the dyno died with its monitor", || {
            test_kill_process(pid(own)).is_err()
        });
    }
    let edge = host.path().join("run/edge/edge.sock");
    if let Ok(mut edge) = std::os::unix::net::UnixStream::connect(edge) {
        std::io::Write::write_all(&mut edge, b"{\"op\":\"stop\"}\n").unwrap();
        std::io::Read::read(&mut edge, &mut [0; 1024]).unwrap();
    }
    std::fs::remove_dir_all(host.path().join("run")).unwrap();
    host.spawn_again();
    host.until_it_answers();
}

#[test]
fn dynos_do_not_inherit_how_hostd_is_spared_when_memory_runs_out() {
    let host = Host::with_busybox();
    // Its systemd unit gives it -900, which not every machine lets a test do.
    let score = format!("/proc/{}/oom_score_adj", host.pid());
    let mut file = std::fs::OpenOptions::new().write(true).open(score).unwrap();
    std::io::Write::write_all(&mut file, b"77").unwrap();
    let print = ["cat", "/proc/self/oom_score_adj"];
    let id = host.ok(&[
        "run",
        "-d",
        "busybox",
        "sh",
        "-c",
        "cat /proc/self/oom_score_adj; sleep 1000",
    ]);
    until("it told", || host.ok(&["logs", &id]) == "0");
    assert_eq!(host.ok(&["exec", &id, print[0], print[1]]), "0");
}

#[test]
fn a_fresh_start_warns_of_nothing() {
    let host = Host::start();
    let log = || std::fs::read_to_string(host.path().join("hostd.log")).unwrap();
    until("the network was compared", || {
        log().contains("DNS for dynos answers")
    });
    assert!(!log().contains("not as it should be"), "{}", log());
    // What somebody turns off later is another matter.
    let mut sysctl = std::process::Command::new("sysctl");
    let done = sysctl.args(["-q", "-w", "net.ipv4.ip_forward=0"]).status();
    assert!(done.unwrap().success());
    until("hostd warns", || {
        let warns = |line: &str| line.contains("WARN") && line.contains("ip_forward");
        log().lines().any(warns)
    });
}

#[test]
fn who_has_an_address_keeps_it_whatever_another_one_needs() {
    let mut host = Host::with_busybox();
    let address = |host: &Host, name: &str| host.inspect(name)["status"]["ipv4"].clone();
    for name in ["older", "younger"] {
        host.ok(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
        host.ok(&["stop", "-t", "0s", name]);
    }
    let lowest = address(&host, "older");
    let ids = ["older", "younger"].map(|name| host.inspect(name)["id"].clone());
    host.kill();
    // As after a change of the subnet: one address is of another, and the first
    // that is free belongs to whose record is read later.
    let addresses = [Value::from("192.0.2.9"), lowest.clone()];
    for (id, address) in ids.iter().zip(addresses) {
        let folder = host.path().join("state/dynos").join(id.as_str().unwrap());
        let record = std::fs::read(folder.join("dyno.json")).unwrap();
        let mut record: Value = serde_json::from_slice(&record).unwrap();
        record["ipv4"] = address;
        dyno_tests::write_file(&folder.join("dyno.json"), &record.to_string());
    }
    host.spawn_again();
    host.until_it_answers();
    assert_eq!(address(&host, "younger"), lowest);
    assert_ne!(address(&host, "older"), lowest);
}
