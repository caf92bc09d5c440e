//! What can be changed while a dyno runs, and that it lasts.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dyno_tests::cgroup::limit_of;
use dyno_tests::host::Host;
use dyno_tests::until;
use serde_json::Value;

/// A dyno that counts, a line every hundredth of a second.
fn counter(host: &Host, flags: &[&str]) -> String {
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
    let run = [&["run", "-d"], flags, &["busybox", "sh", "-c", script]].concat();
    let id = host.ok(&run);
    until("it counts", || !host.ok(&["logs", &id]).is_empty());
    id
}

fn lines(host: &Host, id: &str) -> usize {
    host.ok(&["logs", id]).lines().count()
}

fn stats(host: &Host, id: &str) -> Value {
    let stats = host.ok(&["stats", "--no-stream", "--json", id]);
    serde_json::from_str::<Value>(&stats).unwrap()[0].clone()
}

#[test]
fn limits_change_without_a_restart_and_outlive_hostd_and_a_restart() {
    let mut host = Host::with_busybox();
    let id = counter(&host, &[]);
    let pid = host.inspect(&id)["status"]["pid"].clone();
    assert_eq!(stats(&host, &id)["memory_max_bytes"], Value::Null);
    host.ok(&["limit", "-m", "64M", "--cpu", "0.5", "--pids", "50", &id]);
    let inside = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes \
                  2>/dev/null; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; true";
    let limited = |host: &Host| {
        assert_eq!(stats(host, &id)["memory_max_bytes"], 64 << 20);
        assert_eq!(host.ok(&["exec", &id, "sh", "-c", inside]), "67108864\n50");
        assert_eq!(host.inspect(&id)["spec"]["limits"]["cpu_millis"], 500);
    };
    limited(&host);
    host.kill_and_restart();
    limited(&host);
    assert_eq!(host.inspect(&id)["status"]["pid"], pid);
    host.ok(&["restart", "-t", "0", &id]);
    limited(&host);
    // What cannot be had changes nothing.
    let (said, code) = host.fails(&["limit", "--cpu", "10000", &id]);
    assert!(code == 2 && said.contains("CPU"), "{code} {said}");
    limited(&host);
    host.ok(&["limit", "-m", "none", &id]);
    assert_eq!(stats(&host, &id)["memory_max_bytes"], Value::Null);
}

/// What a process of a dyno may have open, soft and hard, from inside.
const OPEN_FILES: &str = "echo $(ulimit -Sn):$(ulimit -Hn)";

/// The limits of all processes in the dyno's cgroup, by the kernel's word.
fn open_files(host: &Host, id: &str) -> Vec<String> {
    let pid = host.inspect(id)["status"]["pid"].as_u64().unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut limits: Vec<String> = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if read("cgroup") == groups {
            let line = read("limits");
            // Who has ended and was not waited for is in no cgroup any more.
            let status = read("status");
            let is_alive = |state: &str| state.starts_with("State:") && !state.contains('Z');
            if !status.lines().any(is_alive) {
                continue;
            }
            let line = line.lines().find(|line| line.starts_with("Max open files"));
            limits.extend(line.map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                format!("{}:{}", words[3], words[4])
            }));
        }
    }
    limits.sort();
    limits.dedup();
    limits
}

#[test]
fn open_files_are_limited_without_a_restart_in_every_process_and_for_good() {
    let mut host = Host::with_busybox();
    // They fork all the time: a child gets what its parent had when it began.
    let storm = "for i in 1 2 3 4; do (while :; do (:); done) & done; wait";
    let run = [
        "run",
        "-d",
        "--restart",
        "always",
        "--ulimit",
        "nofile=900:1000",
    ];
    let id = host.ok(&[&run[..], &["busybox", "sh", "-c", storm]].concat());
    let pid = host.inspect(&id)["status"]["pid"].clone();
    assert_eq!(open_files(&host, &id), ["900:1000"]);

    let limited = |host: &Host, wanted: &str| {
        assert_eq!(open_files(host, &id), [wanted]);
        assert_eq!(host.ok(&["exec", &id, "sh", "-c", OPEN_FILES]), wanted);
    };
    for wanted in ["800:950", "700:900", "650:800", "500:700"] {
        host.ok(&["limit", "--nofile", wanted, &id]);
        limited(&host, wanted);
    }
    let recorded = host.inspect(&id)["spec"]["ulimits"]["nofile"].clone();
    assert_eq!(recorded, serde_json::json!({"soft": 500, "hard": 700}));
    assert_eq!(host.inspect(&id)["status"]["pid"], pid);
    host.kill_and_restart();
    limited(&host, "500:700");
    assert_eq!(host.inspect(&id)["status"]["pid"], pid);

    // One that is held still is given it and stays so.
    host.ok(&["pause", &id]);
    host.ok(&["limit", "--nofile", "400:600", &id]);
    assert_eq!(host.inspect(&id)["status"]["paused"], true);
    assert_eq!(open_files(&host, &id), ["400:600"]);
    host.ok(&["resume", &id]);

    // Its monitor starts it again by itself, hostd does by request.
    let pid = host.inspect(&id)["status"]["pid"].clone();
    host.ok(&["kill", &id]);
    until("its monitor has started it again", || {
        let status = host.inspect(&id)["status"].clone();
        status["phase"] == "running" && status["pid"] != pid
    });
    limited(&host, "400:600");
    host.ok(&["restart", "-t", "0", &id]);
    limited(&host, "400:600");
}

#[test]
fn more_open_files_than_the_machine_gives_are_refused_and_none_is_the_default() {
    let host = Host::with_busybox();
    let sleep = ["busybox", "sleep", "1000"];
    let id = host.ok(&[&["run", "-d"][..], &sleep].concat());
    let default = open_files(&host, &id);
    let (said, code) = host.fails(&["limit", "--nofile", "unlimited", &id]);
    assert!(code == 7 && said.contains("nofile"), "{code} {said}");
    assert_eq!(open_files(&host, &id), default);
    assert_eq!(host.inspect(&id)["spec"]["ulimits"], serde_json::json!({}));

    // A soft limit goes up and down; a hard one is for who has CAP_SYS_RESOURCE.
    let hard = default[0].split(':').nth(1).unwrap();
    host.ok(&["limit", "--nofile", &format!("64:{hard}"), &id]);
    assert_eq!(open_files(&host, &id), [format!("64:{hard}")]);
    host.ok(&["limit", "--nofile", "none", &id]);
    assert_eq!(open_files(&host, &id), default);
    assert_eq!(host.inspect(&id)["spec"]["ulimits"], serde_json::json!({}));

    host.ok(&["limit", "--nofile", "64", &id]);
    let raised = host.run(&["limit", "-m", "64M", "--nofile", "128", &id]);
    if raised.status.success() {
        assert_eq!(open_files(&host, &id), ["128:128"]);
    } else {
        let said = String::from_utf8_lossy(&raised.stderr).into_owned();
        assert!(said.contains("CAP_SYS_RESOURCE"), "{said}");
        assert_eq!(open_files(&host, &id), ["64:64"]);
        assert_eq!(host.inspect(&id)["spec"]["ulimits"]["nofile"]["hard"], 64);
        assert_eq!(stats(&host, &id)["memory_max_bytes"], Value::Null);
    }
    // One that rests has it from its next start on.
    host.ok(&["stop", "-t", "0", &id]);
    host.ok(&["limit", "--nofile", "128", &id]);
    host.ok(&["start", &id]);
    assert_eq!(open_files(&host, &id), ["128:128"]);
}

/// It was not so once: what is done before its command took one for granted.
#[test]
fn a_dyno_that_may_open_nothing_runs() {
    let host = Host::with_busybox();
    for flags in [&[][..], &["--init"]] {
        let run = ["run", "--rm", "--ulimit", "nofile=0"];
        let said = host.ok(&[&run, flags, &["busybox", "echo", "on"]].concat());
        assert_eq!(said, "on", "{flags:?}");
    }
}

#[test]
fn a_limit_on_the_disk_holds_at_once_and_over_hostd_and_goes_again() {
    let mut host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    let state = std::fs::metadata(host.path()).unwrap().dev();
    let disk = format!("{}:{}", rustix::fs::major(state), rustix::fs::minor(state));
    if !Path::new("/sys/dev/block").join(disk).exists() {
        let (said, _) = host.fails(&["limit", "--io", "read=1M", &id]);
        assert!(said.contains("on no disk"), "{said}");
        return;
    }
    let told = |host: &Host| {
        let status = host.inspect(&id)["status"].clone();
        limit_of(&status, "io.max", "blkio", "blkio.throttle.read_bps_device")
    };
    assert_eq!(told(&host), "");
    host.ok(&[
        "exec",
        &id,
        "sh",
        "-c",
        "head -c 3145728 /dev/zero >/file; sync",
    ]);
    host.ok(&["limit", "--io", "read=1M", &id]);
    assert!(told(&host).contains("1048576"), "{}", told(&host));
    host.kill_and_restart();
    assert!(told(&host).contains("1048576"), "{}", told(&host));

    // Not from memory.
    let upper = host.path().join("state/dynos").join(&id).join("upper/file");
    let file = std::fs::File::open(upper).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let begin = Instant::now();
    host.ok(&["exec", &id, "sh", "-c", "cat /file >/dev/null"]);
    let taken = begin.elapsed();
    assert!(taken > Duration::from_millis(1500), "3 MiB in {taken:?}");

    host.ok(&["limit", "--io", "none", &id]);
    assert_eq!(told(&host), "");
}

#[test]
fn a_limit_that_is_given_later_kills_the_whole_dyno_when_it_is_reached() {
    let host = Host::with_busybox();
    let eat = "read x; head -c 200000000 /dev/zero | tail";
    let id = host.ok(&["run", "-di", "busybox", "sh", "-c", eat]);
    host.ok(&["limit", "-m", "32M", &id]);
    host.ok(&["exec", &id, "sh", "-c", "echo go >/proc/1/fd/0"]);
    host.until_phase(&id, "exited");
    assert_eq!(host.inspect(&id)["status"]["exit"]["oom"], true);
}

#[test]
fn a_paused_dyno_stays_so_without_hostd_and_can_be_stopped_and_killed() {
    let mut host = Host::with_busybox();
    let id = counter(&host, &["--restart", "always"]);
    host.ok(&["pause", &id]);
    // What it had written before is on its way into the log.
    let mut still = 0;
    until("it writes no more", || {
        let before = std::mem::replace(&mut still, lines(&host, &id));
        before == still
    });
    assert!(host.ok(&["ps"]).contains("paused"));
    host.kill_and_restart();
    assert_eq!(host.inspect(&id)["status"]["paused"], true);
    let (said, code) = host.fails(&["exec", &id, "true"]);
    assert!(code == 125 && said.contains("paused"), "{code} {said}");
    assert_eq!(lines(&host, &id), still);
    host.ok(&["resume", &id]);
    until("it goes on", || lines(&host, &id) > still);
    // A kill ends it at once, and what its policy starts next runs.
    let pid = host.inspect(&id)["status"]["pid"].clone();
    host.ok(&["pause", &id]);
    host.ok(&["kill", &id]);
    until("another one runs", || {
        let status = host.inspect(&id)["status"].clone();
        status["phase"] == "running" && status["pid"] != pid && status["paused"] == Value::Null
    });
    host.ok(&["pause", &id]);
    host.ok(&["stop", "-t", "1", &id]);
    assert_eq!(host.inspect(&id)["status"]["phase"], "exited");
    assert_eq!(host.fails(&["pause", &id]).1, 4);
}

#[test]
fn a_paused_dyno_is_not_ended_for_the_silence_it_is_held_in() {
    let host = Host::with_busybox();
    let program = dyno_tests::programs().join("notify");
    let program = format!("{}:/notify:ro", program.display());
    let beats = "/notify READY=1; while :; do /notify WATCHDOG=1; sleep 0.1; done";
    let run = |name: &str, flags: &[&str], script: &str| {
        let common = ["run", "-d", "--name", name, "--restart", "always"];
        let command = ["busybox", "sh", "-c", script];
        host.ok(&[&common, flags, &command].concat());
    };
    let (watchdog, timeout) = match std::env::var_os("DYNO_SLOW") {
        Some(_) => ("20s", "10s"),
        None => ("2s", "500ms"),
    };
    let liveness = format!("interval=100ms timeout={timeout} failures=1 exec:true");
    let watched = ["--notify", "--watchdog", watchdog, "-v", &program];
    run("watched", &watched, beats);
    run("checked", &["--liveness", &liveness], "exec sleep 1000");
    let ready = |name: &str| host.inspect(name)["status"]["health"] == "ready";
    until("both work", || ready("watched") && ready("checked"));
    host.ok(&["pause", "watched", "checked"]);
    // The control: one that says nothing more without being held still.
    run("silent", &watched, "/notify READY=1; sleep 1000");
    until("the silent one was ended", || {
        host.inspect("silent")["status"]["restarts"].as_u64() >= Some(1)
    });
    host.ok(&["resume", "watched", "checked"]);
    until("both work again", || ready("watched") && ready("checked"));
    for name in ["watched", "checked"] {
        let status = host.inspect(name)["status"].clone();
        assert_eq!(status["restarts"], 0, "{name}: {status}");
        assert_eq!(status["phase"], "running", "{name}: {status}");
    }
}
