//! Dynos that end, and are started again, or not.

use dyno_tests::host::Host;
use dyno_tests::until;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

#[test]
fn a_dyno_that_fails_comes_back_on_the_same_network() {
    let host = Host::with_busybox();
    let script = "readlink /proc/self/ns/net; [ -e /once ] && sleep 1000; touch /once; exit 3";
    let id = host.ok(&[
        "run",
        "-d",
        "--name",
        "phoenix",
        "--restart",
        "on-failure:3",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    until("it was started again", || {
        host.inspect(&id)["status"]["restarts"] == 1
    });
    host.until_phase(&id, "running");
    until("both starts are logged", || {
        host.ok(&["logs", "phoenix"]).lines().count() == 2
    });
    let logs = host.ok(&["logs", "phoenix"]);
    let namespaces: Vec<&str> = logs.lines().collect();
    assert_eq!(namespaces[0], namespaces[1], "its network is another one");
    assert_eq!(host.inspect(&id)["status"]["exit"]["code"], 3);
}

#[test]
fn a_dyno_that_ends_well_stays_ended_unless_it_is_always_restarted() {
    let host = Host::with_busybox();
    let once = host.ok(&["run", "-d", "--restart", "on-failure", "busybox", "true"]);
    let always = host.ok(&["run", "-d", "--restart", "always", "busybox", "true"]);
    host.until_phase(&once, "exited");
    until("the other comes back", || {
        host.inspect(&always)["status"]["restarts"].as_u64() >= Some(2)
    });
    assert_eq!(host.inspect(&once)["status"]["restarts"], 0);
    host.ok(&["stop", &always]);
    host.until_phase(&always, "exited");
}

#[test]
fn retries_are_counted_and_end() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "--restart", "on-failure:2", "busybox", "false"]);
    until("it gives up", || {
        let status = &host.inspect(&id)["status"];
        status["phase"] == "exited" && status["restarts"] == 2
    });
    assert_eq!(host.inspect(&id)["status"]["exit"]["code"], 1);
}

#[test]
fn a_crash_loop_shows_with_its_next_try() {
    let host = Host::with_busybox();
    let flags = ["run", "-d", "--name", "mad", "--restart", "always"];
    host.ok(&[&flags[..], &["busybox", "sh", "-c", "exit 7"]].concat());
    let mut status = serde_json::Value::Null;
    until("it is in a crash loop", || {
        status = host.inspect("mad")["status"].clone();
        status["crash_loop"] == true
    });
    assert!(status["crashes"].as_u64() >= Some(5), "{status}");
    assert!(status["next_start"].is_string(), "{status}");
    // Between two tries, each pause longer than the one before.
    until("ps shows it", || {
        let table = host.ok(&["ps"]);
        table.contains("crash loop (7)") && table.contains("next in")
    });
    let events = host.ok(&["events", "--no-follow", "--since", "0"]);
    assert!(events.contains(", crash loop)"), "{events}");
    let told = ["crash loop", "exit code 7", "dyno start mad"];
    until("why explains it", || {
        let why = host.ok(&["why", "mad"]);
        told.iter().all(|words| why.contains(words))
    });
}

#[test]
fn a_monitor_that_vanishes_too_often_in_a_row_is_a_failure_that_the_policy_counts() {
    let host = Host::with_busybox();
    let words = ["run", "-d", "--name", "a", "--restart", "on-failure:1"];
    host.ok(&[&words[..], &["busybox", "sleep", "1000"]].concat());
    let first = monitor(&host, "a");
    kill_process(first, Signal::KILL).unwrap();
    until("another monitor runs it", || {
        let status = host.inspect("a")["status"].clone();
        status["phase"] == "running" && status["restarts"] == 1
    });
    kill_process(monitor(&host, "a"), Signal::KILL).unwrap();
    host.until_phase("a", "lost");
    let reason = host.inspect("a")["status"]["reason"].clone();
    let reason = reason.as_str().unwrap();
    assert!(
        reason.starts_with("given up after it failed 2 times"),
        "{reason}"
    );
}

#[test]
fn a_dyno_that_ignores_its_signal_is_killed_after_the_grace() {
    let host = Host::with_busybox();
    let deaf = "trap '' TERM; while :; do sleep 1; done";
    let id = host.ok(&[
        "run",
        "-d",
        "--stop-grace",
        "200ms",
        "busybox",
        "sh",
        "-c",
        deaf,
    ]);
    host.until_phase(&id, "running");
    host.ok(&["stop", &id]);
    let status = host.inspect(&id)["status"].clone();
    assert_eq!(status["phase"], "exited");
    assert_eq!(status["exit"]["signal"], 9);
}

#[test]
fn what_init_leaves_behind_ends_with_it() {
    let host = Host::with_busybox();
    let id = host.ok(&[
        "run",
        "-d",
        "busybox",
        "sh",
        "-c",
        "sleep 98765 & sleep 98765 & exit 3",
    ]);
    host.until_phase(&id, "exited");
    assert_eq!(host.inspect(&id)["status"]["exit"]["code"], 3);
    until("its children are gone", || !is_running("sleep\098765"));
}

fn is_running(words: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(words)
    })
}

#[test]
fn a_stopped_dyno_starts_again_with_what_it_wrote() {
    let host = Host::with_busybox();
    let script = "echo x >> /count; wc -l < /count; sleep 1000";
    let id = host.ok(&["run", "-d", "busybox", "sh", "-c", script]);
    until("it counted", || host.ok(&["logs", &id]) == "1");
    host.ok(&["stop", &id]);
    host.ok(&["start", &id]);
    until("it counted on", || host.ok(&["logs", &id]) == "1\n2");
}

#[test]
fn standard_output_and_error_are_kept_line_by_line() {
    let host = Host::with_busybox();
    let id = host.ok(&[
        "run",
        "-d",
        "busybox",
        "sh",
        "-c",
        "seq 1 5000; echo end >&2",
    ]);
    host.until_phase(&id, "exited");
    let output = host.run(&["logs", &id]);
    let expected: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(output.stderr, b"end\n");
}

#[test]
fn a_removed_dyno_is_gone_from_the_disk() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    let (error, _) = host.fails(&["rm", &id]);
    assert!(error.contains("running"), "{error}");
    host.ok(&["rm", "-f", &id]);
    assert!(!host.path().join("state/dynos").join(&id).exists());
    assert!(!host.path().join("run/dynos").join(&id).exists());
    assert!(host.ids().is_empty());
}

#[test]
fn a_dyno_that_is_removed_at_its_end_keeps_what_it_wrote_over_its_restarts() {
    let host = Host::with_busybox();
    let script =
        "echo x >> /count; cat /count | wc -l; [ $(wc -l < /count) = 3 ] && sleep 1000; exit 1";
    let id = host.ok(&[
        "run",
        "-d",
        "--rm",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    until("it counted over its restarts", || {
        host.ok(&["logs", &id]) == "1\n2\n3"
    });
}

fn monitor(host: &Host, dyno: &str) -> Pid {
    let pid = host.inspect(dyno)["status"]["monitor_pid"].as_i64();
    Pid::from_raw(pid.unwrap().try_into().unwrap()).unwrap()
}

/// What a unit of dynos does that is restarted, or a machine that goes down: their
/// monitors are told to end, and nobody has asked for the end of a dyno.
#[test]
fn what_the_system_ended_comes_back_where_it_is_restarted_at_all() {
    let mut host = Host::with_busybox();
    let run = |policy: &str| {
        let words = ["run", "-d", "--name", policy, "--restart", policy];
        host.ok(&[&words[..], &["busybox", "sleep", "1000"]].concat());
    };
    for policy in ["always", "on-failure", "no"] {
        run(policy);
    }
    let restarted = ["always", "on-failure"];
    let before = restarted.map(|dyno| monitor(&host, dyno));
    let all = [&before[..], &[monitor(&host, "no")]].concat();
    for monitor in &all {
        kill_process(*monitor, Signal::TERM).unwrap();
    }
    let again = |host: &Host, before: &[Pid]| {
        for (dyno, before) in restarted.iter().zip(before) {
            until("another monitor runs it", || {
                let status = &host.inspect(dyno)["status"];
                let pid = status["monitor_pid"].as_i64();
                status["phase"] == "running"
                    && pid.is_some_and(|pid| pid != i64::from(before.as_raw_nonzero().get()))
            });
        }
    };
    again(&host, &before);
    host.until_phase("no", "exited");

    // The same where hostd does not see it.
    let before = restarted.map(|dyno| monitor(&host, dyno));
    host.kill();
    for monitor in &before {
        kill_process(*monitor, Signal::TERM).unwrap();
    }
    until("they are gone", || {
        before
            .iter()
            .all(|monitor| test_kill_process(*monitor).is_err())
    });
    host.spawn_again();
    host.until_it_answers();
    again(&host, &before);
    host.until_phase("no", "exited");
}
