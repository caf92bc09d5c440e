//! Limits that are enforced, and say so.

use dyno_tests::host::Host;
use dyno_tests::until;

#[test]
fn a_dyno_over_its_memory_is_killed_and_the_reason_recorded() {
    let host = Host::with_busybox();
    // tail keeps what has no line end: the whole of it.
    let eat = "head -c 200000000 /dev/zero | tail";
    let id = host.ok(&["run", "-d", "-m", "32M", "busybox", "sh", "-c", eat]);
    host.until_phase(&id, "exited");
    let exit = host.inspect(&id)["status"]["exit"].clone();
    assert_eq!(exit["oom"], true, "{exit}");
    let peak = exit["memory_peak_bytes"].as_u64().unwrap();
    assert!((30 << 20..=34 << 20).contains(&peak), "{exit}");
    let why = host.ok(&["why", &id]);
    assert!(why.contains("its limit is 32.0 MiB, its peak 3"), "{why}");
    assert_eq!(exit["code"], 137, "{exit}");
}

#[test]
fn a_dyno_within_its_memory_is_left_alone() {
    let host = Host::with_busybox();
    let output = host.run(&[
        "run",
        "--rm",
        "-m",
        "64M",
        "busybox",
        "sh",
        "-c",
        "head -c 20000000 /dev/zero | tail | wc -c",
    ]);
    assert_eq!(output.stdout, b"20000000\n", "{output:?}");
}

#[test]
fn a_fork_bomb_stays_in_its_dyno() {
    let host = Host::with_busybox();
    let bomb = "for n in $(seq 100); do sleep 1000 & done; wait";
    let id = host.ok(&["run", "-d", "--pids", "20", "busybox", "sh", "-c", bomb]);
    until("it hits its limit", || {
        let logs = host.run(&["logs", &id]);
        String::from_utf8_lossy(&logs.stderr).contains("fork")
    });
    assert_eq!(
        host.ok(&["run", "--rm", "busybox", "echo", "others go on"]),
        "others go on"
    );
}

#[test]
fn a_cpu_limit_is_a_share_of_time() {
    let host = Host::with_busybox();
    let id = host.ok(&[
        "run",
        "-d",
        "--cpu",
        "0.2",
        "busybox",
        "sh",
        "-c",
        "while :; do :; done",
    ]);
    until("it is throttled", || {
        let stats = host.ok(&["stats", "--no-stream", "--json", &id]);
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let stats = stats.pointer("/0").unwrap_or(&stats).clone();
        let stats = stats.get("stats").unwrap_or(&stats);
        stats["throttled_usec"].as_u64() > Some(100_000)
    });
}

#[test]
fn a_dyno_sees_its_own_limits() {
    let host = Host::with_busybox();
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
    assert_eq!(
        host.ok(&["run", "--rm", "-m", "64M", "busybox", "sh", "-c", script]),
        "67108864"
    );
}
