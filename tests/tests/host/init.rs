//! A dyno with an init of ours: what it does besides, and that all else is as without.

use std::collections::BTreeMap;

use dyno_tests::host::Host;
use dyno_tests::until;
use serde_json::{Value, json};

/// A dyno in the background, with an init.
fn run(host: &Host, flags: &[&str], command: &[&str]) -> String {
    let run = [&["run", "-d", "--init"], flags, &["busybox"], command].concat();
    host.ok(&run)
}

fn exit(host: &Host, id: &str) -> (Value, Value) {
    host.until_phase(id, "exited");
    let exit = host.inspect(id)["status"]["exit"].clone();
    (exit["code"].clone(), exit["signal"].clone())
}

/// Ten thousand processes that nobody waits for, made by one that is not the first.
/// Without KVM fewer, which are too many for the dyno, too.
fn orphans() -> String {
    let many = match std::env::var_os("DYNO_SLOW") {
        Some(_) => 300,
        None => 10_000,
    };
    format!(
        "((i=0; while [ $i -lt {many} ]; do i=$((i+1)); (true &); done; echo all) &); \
         exec sleep 1000"
    )
}

#[test]
fn whoever_has_no_parent_any_more_is_reaped() {
    let host = Host::with_busybox();
    let id = run(&host, &["--pids", "64"], &["sh", "-c", &orphans()]);
    until("they have come and gone", || {
        host.ok(&["logs", &id]) == "all"
    });
    until("none of them is left", || {
        let stats = host.ok(&["stats", "--no-stream", "--json", &id]);
        serde_json::from_str::<Value>(&stats).unwrap()[0]["pids"] == 2
    });
    // The control: without an init they stay, up to the limit.
    let orphans = orphans();
    let run = ["run", "-d", "--pids", "64", "busybox", "sh", "-c", &orphans];
    let id = host.ok(&run);
    until("no more can be made", || {
        host.ok(&["logs", &id]).contains("can't fork") || {
            let stats = host.ok(&["stats", "--no-stream", "--json", &id]);
            serde_json::from_str::<Value>(&stats).unwrap()[0]["pids"] == 64
        }
    });
}

#[test]
fn signals_reach_the_command_which_has_its_default_actions() {
    let host = Host::with_busybox();
    let id = run(&host, &["--stop-grace", "10m"], &["sleep", "1000"]);
    host.ok(&["stop", &id]);
    assert_eq!(exit(&host, &id), (json!(143), json!(15)));

    let script = "trap 'echo usr' USR1; trap 'echo rt' 40; trap 'echo end; exit 7' TERM; \
                  echo on; while :; do sleep 0.05; done";
    let id = run(&host, &["--stop-grace", "10m"], &["sh", "-c", script]);
    until("it listens", || host.ok(&["logs", &id]) == "on");
    for (signal, word) in [("USR1", "usr"), ("40", "rt")] {
        host.ok(&["kill", "-s", signal, &id]);
        until("it has heard it", || {
            host.ok(&["logs", &id]).ends_with(word)
        });
    }
    // Sent to the first process from inside, too.
    host.ok(&["exec", &id, "kill", "-USR1", "1"]);
    until("and again", || host.ok(&["logs", &id]).ends_with("rt\nusr"));
    host.ok(&["stop", &id]);
    assert_eq!(exit(&host, &id), (json!(7), Value::Null));
    assert!(host.ok(&["logs", &id]).ends_with("end"));
}

#[test]
fn it_ends_as_its_command_does() {
    let host = Host::with_busybox();
    for (script, code, signal) in [
        ("exit 0", 0, Value::Null),
        ("exit 42", 42, Value::Null),
        ("exit 143", 143, Value::Null),
        ("sleep 1000 & exit 3", 3, Value::Null),
        ("kill -KILL $$", 137, json!(9)),
        ("kill -SEGV $$", 139, json!(11)),
        ("kill -40 $$", 168, json!(40)),
    ] {
        let id = run(&host, &[], &["sh", "-c", script]);
        assert_eq!(exit(&host, &id), (json!(code), signal), "{script}");
    }
    for (command, expected) in [("/nothing", 127), ("nothing", 127), ("/etc", 126)] {
        let (with, code) = host.fails(&["run", "--rm", "--init", "busybox", command]);
        let without = host.fails(&["run", "--rm", "busybox", command]);
        assert_eq!(code, expected, "{with}");
        assert_eq!((with, code), without);
    }
    let (said, _) = host.fails(&["run", "--rm", "--init", "--pids", "1", "busybox", "true"]);
    assert!(said.contains("make a process for the command"), "{said}");
}

#[test]
fn a_dyno_that_runs_out_of_memory_says_so() {
    let host = Host::with_busybox();
    let eat = "head -c 200000000 /dev/zero | tail";
    let id = run(&host, &["-m", "32M"], &["sh", "-c", eat]);
    host.until_phase(&id, "exited");
    assert_eq!(host.inspect(&id)["status"]["exit"]["oom"], true);
}

/// What a process of a dyno is and may do, by the kernel's word.
fn standing(host: &Host, id: &str, process: &str) -> BTreeMap<String, String> {
    let status = host.ok(&["exec", id, "cat", &format!("/proc/{process}/status")]);
    let wanted = |name: &str| {
        [
            "Uid",
            "Gid",
            "Groups",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
        ]
        .contains(&name)
            || name.starts_with("Cap")
    };
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_command_is_what_it_is_without() {
    let host = Host::with_busybox();
    // The command's own signals, session and descriptors.
    let tell = "grep -E '^Sig(Blk|Ign|Cgt|Pnd)|^ShdPnd' /proc/self/status; ls /proc/self/fd; \
                set -- $(cat /proc/$$/stat); [ $5.$6 = $$.$$ ] && echo it leads a session";
    let tell = ["busybox", "sh", "-c", tell];
    let with = host.ok(&[&["run", "--rm", "--init"], &tell[..]].concat());
    let without = host.ok(&[&["run", "--rm"], &tell[..]].concat());
    assert_eq!(with, without);
    assert!(with.ends_with("it leads a session"), "{with}");
    for user in ["0", "1000:1000"] {
        let flags = ["--user", user, "--cap-drop", "CHOWN"];
        let id = run(&host, &flags, &["sleep", "1000"]);
        let plain = [&["run", "-d"], &flags[..], &["busybox", "sleep", "1000"]].concat();
        let plain = host.ok(&plain);
        let expected = standing(&host, &plain, "1");
        assert_eq!(standing(&host, &id, "2"), expected, "the command of {user}");
        assert_eq!(standing(&host, &id, "1"), expected, "the init of {user}");
    }
}

#[test]
fn what_is_executed_checked_and_restarted_goes_on_beside_it() {
    let mut host = Host::with_busybox();
    let program = dyno_tests::programs().join("notify");
    let program = format!("{}:/notify:ro", program.display());
    let script = "/notify READY=1; echo up; sleep 1000; true";
    let flags = [
        "--notify",
        "--readiness",
        "interval=200ms exec:true",
        "--restart",
        "always",
        "-v",
        &program,
    ];
    let id = run(&host, &flags, &["sh", "-c", script]);
    let ready = |host: &Host| host.inspect(&id)["status"]["health"] == "ready";
    until("it is ready", || ready(&host));
    let names = "cat /proc/1/comm /proc/2/comm";
    assert_eq!(host.ok(&["exec", &id, "sh", "-c", names]), "dyno-init\nsh");
    // What others write to the first process' output is in the log.
    host.ok(&["exec", &id, "sh", "-c", "echo more >/proc/1/fd/1"]);
    until("it is in the log", || host.ok(&["logs", &id]) == "up\nmore");
    host.kill_and_restart();
    let pid = host.inspect(&id)["status"]["pid"].clone();
    // It ends with the dyno, if it is not quick.
    let killed = host.run(&["exec", &id, "kill", "-KILL", "2"]);
    assert!(matches!(killed.status.code(), Some(0 | 137)), "{killed:?}");
    until("its monitor has started it again", || {
        let status = host.inspect(&id)["status"].clone();
        status["phase"] == "running" && status["pid"] != pid && ready(&host)
    });
    let exit = host.inspect(&id)["status"]["exit"].clone();
    assert_eq!(exit["signal"], 9, "{exit}");
    assert_eq!(host.ok(&["exec", &id, "sh", "-c", names]), "dyno-init\nsh");
}

/// P5: the init is our own program, and its file is the host's.
#[test]
fn the_file_of_the_init_is_out_of_reach() {
    let host = Host::with_busybox();
    let file = dyno_tests::programs().join("dyno-runtime");
    let before = std::fs::read(&file).unwrap();
    let flags = ["--cap-add", "SYS_PTRACE,DAC_READ_SEARCH"];
    let id = run(&host, &flags, &["sleep", "1000"]);
    let attack = "exec 7</proc/1/exe && echo held; echo x >>/proc/1/exe && echo written; \
                  echo x >>/proc/self/fd/7 && echo written; chmod 777 /proc/1/exe && echo changed; \
                  mount -o remount,rw /proc/1/exe && echo remounted; true";
    let out = host.run(&["exec", &id, "sh", "-c", attack]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "held\n");
    assert!(String::from_utf8_lossy(&out.stderr).contains("Read-only file system"));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}
