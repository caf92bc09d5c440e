//! Dynos that take all they can get (P15, P16).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::until;

use super::rig::assert_sane;

/// A neighbour starts, runs and answers within this, however the others behave.
const PATIENCE: Duration = Duration::from_secs(20);

#[track_caller]
fn assert_neighbours_live(host: &Host) {
    let begin = Instant::now();
    assert_eq!(
        host.ok(&["run", "--rm", "busybox", "echo", "alive"]),
        "alive"
    );
    assert!(begin.elapsed() < PATIENCE, "it took {:?}", begin.elapsed());
    assert_sane(host);
}

/// Removes a dyno, which must be gone with all its processes in time.
#[track_caller]
fn assert_gone_in_time(host: &Host, id: &str) {
    let pid = host.inspect(id)["status"]["pid"].as_u64();
    let begin = Instant::now();
    host.ok(&["rm", "-f", id]);
    // It has left its cgroup and holds nothing; the kernel may still be waiting
    // for the rest of its pid namespace, which takes no time of ours.
    let path = pid.map(|pid| format!("/proc/{pid}")).unwrap_or_default();
    until("its init is gone", || !Path::new(&path).exists());
    assert!(begin.elapsed() < PATIENCE, "it took {:?}", begin.elapsed());
}

/// The bytes in the files of a folder whose names begin so.
fn size(folder: &Path, prefix: &str) -> u64 {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

/// The most memory that the parent of a dyno's init ever had, in KiB.
fn monitor_peak(host: &Host, id: &str) -> u64 {
    let pid = host.inspect(id)["status"]["pid"].as_u64().unwrap();
    let field = |pid: u64, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    field(field(pid, "PPid:"), "VmHWM:")
}

#[test]
fn a_fork_bomb_that_multiplies_stays_inside() {
    let host = Host::with_busybox();
    let bomb = "b() { b | b & }; echo lit; b; while :; do b; sleep 0.1; done";
    let run = [
        "run", "-d", "--pids", "100", "--cpu", "0.5", "busybox", "sh", "-c", bomb,
    ];
    let id = host.ok(&run);
    until("it is lit", || host.ok(&["logs", &id]).contains("lit"));
    assert_neighbours_live(&host);
    assert_gone_in_time(&host, &id);
}

#[test]
fn a_hog_of_descriptors_takes_only_its_own() {
    let host = Host::with_busybox();
    let hog = "my @f; while (open(my $f, '<', '/dev/null')) { push @f, $f } \
        print 'full ', scalar @f, \"\\n\"; $| = 1; print ''; sleep 1000";
    let id = host.ok(&[
        "run",
        "-d",
        "--ulimit",
        "nofile=2000:2000",
        "host",
        "perl",
        "-e",
        hog,
    ]);
    until("it has all it gets", || {
        host.ok(&["logs", &id]).contains("full 199")
    });
    assert_neighbours_live(&host);
    assert_gone_in_time(&host, &id);
}

#[test]
fn a_flood_of_output_fills_neither_disk_nor_memory() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "yes"]);
    let folder = host.path().join("state/dynos").join(&id);
    until("the log was rotated", || {
        folder.join("log.00000002").exists()
    });
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        assert_neighbours_live(&host);
        let bytes = size(&folder, "log");
        assert!(bytes < 64 << 20, "{bytes} bytes of logs");
    }
    let peak = monitor_peak(&host, &id);
    assert!(peak < 64 << 10, "the monitor had {peak} KiB");
    assert_eq!(host.ok(&["logs", "--tail", "3", &id]), "y\ny\ny");
    assert_gone_in_time(&host, &id);
}

/// A quarter of it, but in `make soak`.
#[test]
fn one_line_of_one_gib_is_cut() {
    let host = Host::with_busybox();
    let quarters = match std::env::var_os("DYNO_SOAK") {
        Some(_) => 4,
        None => 1,
    };
    let script = format!(
        "for n in $(seq {quarters}); do head -c 268435456 /dev/zero; echo quarter $n >&2; \
         until test -e /tmp/$n; do sleep 0.1; done; done; echo; sleep 1000"
    );
    let id = host.ok(&["run", "-d", "busybox", "sh", "-c", &script]);
    for quarter in 1..=quarters {
        let told = format!("quarter {quarter}\n");
        until(&told, || {
            let logs = host.run(&["logs", "--stream", "stderr", "--tail", "1", &id]);
            logs.stderr.ends_with(told.as_bytes())
        });
        host.ok(&["exec", &id, "touch", &format!("/tmp/{quarter}")]);
    }
    let folder = host.path().join("state/dynos").join(&id);
    let bytes = size(&folder, "log");
    assert!(bytes < 64 << 20, "{bytes} bytes of logs");
    let peak = monitor_peak(&host, &id);
    assert!(peak < 64 << 10, "the monitor had {peak} KiB");
    assert_neighbours_live(&host);
    assert_gone_in_time(&host, &id);
}

#[test]
fn ten_thousand_zombies_go_with_their_dyno() {
    let host = Host::with_busybox();
    let script = "$| = 1; my $n = 0; while ($n < 10000) { my $p = fork; last if !defined $p; \
        exit if !$p; $n++ } print \"made $n\\n\"; sleep 1000";
    let id = host.ok(&["run", "-d", "--pids", "12000", "host", "perl", "-e", script]);
    until("they are made", || {
        host.ok(&["logs", &id]).contains("made 10000")
    });
    assert_neighbours_live(&host);
    assert_gone_in_time(&host, &id);
}

#[test]
fn one_that_ignores_every_signal_is_killed_after_its_grace() {
    let host = Host::with_busybox();
    let script = "for s in $(seq 31) $(seq 34 64); do trap '' $s 2>/dev/null; done; \
        (while :; do sleep 1; done) & echo deaf; while :; do sleep 1; done";
    let id = host.ok(&["run", "-d", "busybox", "sh", "-c", script]);
    until("it is deaf", || host.ok(&["logs", &id]).contains("deaf"));
    let begin = Instant::now();
    host.ok(&["stop", "-t", "1", &id]);
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < PATIENCE,
        "{took:?}"
    );
    assert_eq!(host.inspect(&id)["status"]["exit"]["code"], 137);
}

/// P15: checks read what a dyno answers, and what it says by itself.
#[test]
fn who_answers_checks_with_a_flood_or_not_at_all_holds_nobody_up() {
    let host = Host::with_busybox();
    let notify = dyno_tests::programs().join("notify");
    let notify = format!("{}:/notify:ro", notify.display());
    let serve = |what: &str| format!("while :; do {what} | nc -l -p 80; done");
    let answer = r"{ printf 'HTTP/1.1 200 OK\r\n\r\n'; yes; }";
    let cases = [
        (
            "head",
            "http://:80",
            serve("yes"),
            "more than 16384 bytes of headers",
        ),
        (
            "body",
            "contains=needle http://:80",
            serve(answer),
            "does not contain",
        ),
        (
            "mute",
            "timeout=200ms http://:80",
            // It accepts everybody, not the first alone.
            "nc -ll -p 80 -e sleep 1000".to_owned(),
            "no answer within 200ms",
        ),
        (
            "loud",
            "sh:yes",
            "sleep 1000".to_owned(),
            "wrote more than 262144 bytes",
        ),
    ];
    for (name, check, script, _) in &cases {
        let check = format!("interval=100ms {check}");
        let flags = ["run", "-d", "--name", name, "--readiness", &check];
        host.ok(&[&flags[..], &["busybox", "sh", "-c", script]].concat());
    }
    let says = "while :; do /notify $(seq 1 1000 | sed s/^/STATUS=/); done";
    let flags = ["run", "-d", "--name", "says", "--notify", "-v", &notify];
    host.ok(&[&flags[..], &["busybox", "sh", "-c", says]].concat());
    for (name, _, _, expected) in &cases {
        until(&format!("{name} failed for: {expected}"), || {
            let reason = host.inspect(name)["status"]["failed_check"]["reason"].clone();
            reason
                .as_str()
                .is_some_and(|reason| reason.contains(expected))
        });
    }
    until("what it says is heard", || {
        host.inspect("says")["status"]["status_text"].is_string()
    });
    assert_eq!(host.inspect("says")["status"]["health"], "starting");
    // A monitor that the dyno keeps busy serves others all the same.
    assert_eq!(host.ok(&["exec", "says", "echo", "here"]), "here");
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = resident
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(kib < 100 << 10, "hostd has {kib} KiB");
}
