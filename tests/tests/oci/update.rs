//! `update`: the truth is what the kernel's files say.

use std::io::Write;
use std::process::{Output, Stdio};

use dyno_tests::bundle::Bundle;
use dyno_tests::cgroup::limit_of;
use serde_json::{Value, json};

/// One that runs, with these limits.
fn running(resources: Value) -> Bundle {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = resources;
    bundle.run_detached();
    bundle
}

fn update(bundle: &Bundle, options: &[&str]) -> Output {
    bundle.call(&[&["update"], options, &[bundle.id()]].concat())
}

fn updated(bundle: &Bundle, options: &[&str]) {
    let output = update(bundle, options);
    assert!(output.status.success(), "{options:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{options:?}");
}

fn refused(bundle: &Bundle, options: &[&str]) -> String {
    let output = update(bundle, options);
    assert!(!output.status.success(), "{options:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The memory limit, the pids limit, and the CPU quota with its period.
fn limits(bundle: &Bundle) -> [String; 3] {
    let state = bundle.state();
    let of = |v2: &str, controller: &str, v1: &str| limit_of(&state, v2, controller, v1);
    let mut cpu = of("cpu.max", "cpu", "cpu.cfs_quota_us");
    if !cpu.contains(' ') {
        let period = of("cpu.max", "cpu", "cpu.cfs_period_us");
        cpu = format!("{} {period}", cpu.replace("-1", "max"));
    }
    [
        of("memory.max", "memory", "memory.limit_in_bytes"),
        of("pids.max", "pids", "pids.max"),
        cpu,
    ]
}

#[test]
fn each_flag_changes_its_limit_and_no_other() {
    let resources = json!({
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 33},
        "cpu": {"quota": 20000, "period": 100_000},
    });
    let bundle = running(resources);
    let now = || limits(&bundle);
    assert_eq!(now(), ["67108864", "33", "20000 100000"]);
    updated(&bundle, &["--memory", "32M"]);
    assert_eq!(now(), ["33554432", "33", "20000 100000"]);
    updated(&bundle, &["--pids-limit", "20"]);
    assert_eq!(now(), ["33554432", "20", "20000 100000"]);
    updated(&bundle, &["--cpu-quota", "30000"]);
    assert_eq!(now(), ["33554432", "20", "30000 100000"]);
    updated(&bundle, &["--cpu-period", "50000"]);
    assert_eq!(now(), ["33554432", "20", "30000 50000"]);
    updated(&bundle, &["--pids-limit=-1", "--cpu-quota", "-1"]);
    assert_eq!(now(), ["33554432", "max", "max 50000"]);
    updated(&bundle, &[]);
    assert_eq!(now(), ["33554432", "max", "max 50000"]);
}

#[test]
fn weights_bursts_cpus_and_reservations_are_set() {
    let bundle = running(json!({"cpu": {"quota": 20000, "period": 100_000}}));
    let options = [
        ["--cpu-share", "512"],
        ["--cpu-burst", "10000"],
        ["--cpuset-cpus", "0"],
        ["--cpuset-mems", "0"],
        ["--memory-reservation", "16M"],
    ];
    updated(&bundle, &options.concat());
    let state = bundle.state();
    for (v2, controller, v1, one_of) in [
        ("cpu.weight", "cpu", "cpu.shares", &["512", "59"][..]),
        ("cpu.max.burst", "cpu", "cpu.cfs_burst_us", &["10000"]),
        ("cpuset.cpus", "cpuset", "cpuset.cpus", &["0"]),
        ("cpuset.mems", "cpuset", "cpuset.mems", &["0"]),
        (
            "memory.low",
            "memory",
            "memory.soft_limit_in_bytes",
            &["16777216"],
        ),
    ] {
        let set = limit_of(&state, v2, controller, v1);
        assert!(one_of.contains(&set.as_str()), "{v2}: {set}");
    }
    updated(&bundle, &["--cpu-idle", "1"]);
    assert_eq!(limit_of(&state, "cpu.idle", "cpu", "cpu.idle"), "1");
}

#[test]
fn a_file_and_standard_input_say_it_as_config_json_does() {
    let bundle = running(json!({"pids": {"limit": 33}}));
    let file = bundle.path().join("limits.json");
    let text = json!({"pids": {"limit": 21}, "memory": {"limit": 32 << 20}}).to_string();
    dyno_tests::write_file(&file, &text);
    updated(&bundle, &["-r", &file.to_string_lossy()]);
    assert_eq!(limits(&bundle)[..2], ["33554432", "21"]);

    let mut update = bundle.runtime(&["update", "--resources", "-", bundle.id()]);
    let mut update = update.stdin(Stdio::piped()).spawn().unwrap();
    let text = json!({"pids": {"limit": 22}}).to_string();
    update
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(limits(&bundle)[..2], ["33554432", "22"]);
}

#[test]
fn what_runc_shows_as_an_example_changes_nothing() {
    let bundle = running(json!({"memory": {"limit": 64 << 20}, "cpu": {"quota": 20000}}));
    let before = limits(&bundle);
    let example = json!({
        "memory": {"limit": 0, "reservation": 0, "swap": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0,
            "realtimePeriod": 0, "cpus": "", "mems": ""},
        "blockIO": {"weight": 0},
    });
    let file = bundle.path().join("limits.json");
    dyno_tests::write_file(&file, &example.to_string());
    updated(&bundle, &["--resources", &file.to_string_lossy()]);
    assert_eq!(limits(&bundle), before);
}

#[test]
fn an_update_that_is_refused_changes_nothing() {
    let bundle = running(json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 33}}));
    let before = limits(&bundle);
    let file = bundle.path().join("limits.json");
    let path = file.to_string_lossy().into_owned();
    for (text, about) in [
        (r#"{"pids": {"limit": "many"}}"#, "pids.limit"),
        (r#"{"pids": {"limit": 3}"#, "parse"),
        (
            r#"{"pids": {"limit": 3}, "unified": {"no.such": "1"}}"#,
            "no.such",
        ),
    ] {
        dyno_tests::write_file(&file, text);
        let message = refused(&bundle, &["--resources", &path]);
        assert!(message.contains(about), "{text}: {message}");
    }
    for (options, about) in [
        (&["--pids-limit", "3", "--cpuset-cpus", "4000"][..], "4000"),
        (
            &[
                "--pids-limit",
                "3",
                "--memory",
                "1M",
                "--memory-swap",
                "512k",
            ],
            "memory.swap",
        ),
        (&["--pids-limit", "3", "--cpu-idle", "7"], "cpu.idle"),
        (&["--pids-limit", "3", "--blkio-weight", "5"], "weight"),
        (&["--memory", "much"], "much"),
        (
            &["--pids-limit", "3", "--resources", &path],
            "cannot be used",
        ),
        (
            &["--pids-limit", "3", "--l3-cache-schema", "L3:0=f"],
            "--l3-cache-schema",
        ),
        (
            &["--pids-limit", "3", "--mem-bw-schema", "MB:0=20"],
            "--mem-bw-schema",
        ),
        (
            &["--pids-limit", "3", "--mem-bw-schema", "0=20"],
            "begins with MB:",
        ),
        (&["--resources", "/no/such/file"], "/no/such/file"),
    ] {
        let message = refused(&bundle, options);
        assert!(message.contains(about), "{options:?}: {message}");
    }
    assert_eq!(limits(&bundle), before);
}

#[test]
fn kernel_memory_is_ignored_aloud() {
    let bundle = running(json!({"memory": {"limit": 64 << 20}}));
    let before = limits(&bundle);
    let output = update(&bundle, &["--kernel-memory", "8M"]);
    assert!(output.status.success(), "{output:?}");
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(
        warning.contains("memory.kernel 8388608 is ignored"),
        "{warning}"
    );
    assert_eq!(limits(&bundle), before);
}

#[test]
fn it_holds_before_the_start_and_while_it_is_paused_and_not_after_the_end() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert!(bundle.create().status.success());
    updated(&bundle, &["--pids-limit", "40"]);
    assert_eq!(limits(&bundle)[1], "40");
    bundle.start();
    assert!(bundle.call(&["pause", bundle.id()]).status.success());
    updated(&bundle, &["--pids-limit", "41"]);
    assert_eq!(limits(&bundle)[1], "41");
    assert!(bundle.call(&["resume", bundle.id()]).status.success());
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).status.success());
    dyno_tests::until("it stops", || bundle.state()["status"] == "stopped");
    let message = refused(&bundle, &["--pids-limit", "42"]);
    assert!(message.contains("container not running"), "{message}");
}
