//! The commands beyond the spec's five, as callers of runc use them.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Output, Stdio};

use dyno_tests::bundle::Bundle;
use dyno_tests::{machine::Machine, until};
use serde_json::{Value, json};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn exec(bundle: &Bundle, options: &[&str], command: &[&str]) -> Output {
    let words = [&["exec"][..], options, &[bundle.id()], command].concat();
    bundle.call(&words)
}

#[test]
fn run_passes_streams_and_exit_code_and_leaves_nothing() {
    let bundle = Bundle::script("cat; echo oops >&2; exit 42");
    let before = Machine::look(bundle.id(), &[]);
    let mut run = bundle.command(&["run"]);
    run.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = run.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        ("typed\n", "oops\n")
    );
    assert!(!bundle.call(&["state", bundle.id()]).status.success());
    let left = Machine::look(bundle.id(), &[]).difference(&before);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn run_passes_signals_on_and_dies_by_none_itself() {
    let bundle = Bundle::script("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    let mut run = bundle.command(&["run"]);
    let mut child = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_container_that_was_killed_says_by_what() {
    let output = Bundle::script("kill -9 $$").run_attached();
    // Init of a pid namespace cannot kill itself: the shell goes on to its end.
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let bundle = Bundle::new(&["sleep", "1000"]);
    let mut child = bundle.command(&["run"]).spawn().unwrap();
    until("it runs", || {
        bundle.call(&["kill", bundle.id(), "KILL"]).status.success()
    });
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn run_keeps_what_it_is_told_to_keep() {
    let bundle = Bundle::new(&["true"]);
    assert!(
        bundle
            .command(&["run", "--keep"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(bundle.state()["status"], "stopped");
    assert!(bundle.call(&["delete", bundle.id()]).status.success());
}

#[test]
fn a_program_that_is_not_there_is_named_and_nothing_stays() {
    let bundle = Bundle::new(&["no-such-program"]);
    let before = Machine::look(bundle.id(), &[]);
    let output = bundle.run_attached();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("\"no-such-program\": executable file not found"),
        "{output:?}"
    );
    let left = Machine::look(bundle.id(), &[]).difference(&before);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn state_and_list_tell_the_same() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.run_detached();
    let state = bundle.state();
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], json!(bundle.path()));
    assert_eq!(state["rootfs"], json!(bundle.path().join("rootfs")));
    let list = bundle.call(&["list", "--format", "json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list, json!([state]));
    let table = stdout(&bundle.call(&["list"]));
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("ID "), "{table}");
    assert!(lines.next().unwrap().starts_with(bundle.id()), "{table}");
    assert_eq!(
        stdout(&bundle.call(&["list", "--quiet"])),
        format!("{}\n", bundle.id())
    );
}

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    let bundle = Bundle::script("while :; do echo tick; sleep 0.01; done");
    bundle.run_detached();
    let length = || {
        std::fs::metadata(bundle.path().join("stdout"))
            .unwrap()
            .len()
    };
    until("it ticks", || length() > 0);
    assert!(bundle.call(&["pause", bundle.id()]).status.success());
    assert_eq!(bundle.state()["status"], "paused");
    let then = length();
    let refused = exec(&bundle, &[], &["true"]);
    assert!(stderr(&refused).contains("paused"), "{refused:?}");
    assert_eq!(length(), then);
    assert!(!bundle.call(&["pause", bundle.id()]).status.success());
    assert!(bundle.call(&["resume", bundle.id()]).status.success());
    until("it ticks again", || length() > then);
    assert!(!bundle.call(&["resume", bundle.id()]).status.success());
}

#[test]
fn exec_is_the_containers_own_process_with_what_was_asked_for() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.run_detached();
    let script = "id -u; id -g; pwd; echo $FOO; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; \
                  for n in user pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$n; done; exit 3";
    let options = [
        "--user", "7:8", "--cwd", "/bin", "--env", "FOO=bar", "--cap", "CAP_KILL",
    ];
    let output = exec(&bundle, &options, &["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = stdout(&output);
    let mut lines = told.lines();
    for expected in ["7", "8", "/bin", "bar"] {
        assert_eq!(lines.next(), Some(expected), "{told}");
    }
    assert_eq!(lines.next(), Some("CapEff:\t0000000000000000"), "{told}");
    assert_eq!(lines.next(), Some("NoNewPrivs:\t1"), "{told}");
    let pid = bundle.state()["pid"].to_string();
    for kind in ["user", "pid", "mnt", "net", "uts", "ipc", "cgroup"] {
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(lines.next(), Some(&*namespace.to_string_lossy()), "{told}");
    }
}

#[test]
fn exec_says_as_a_shell_why_there_is_no_process() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.run_detached();
    assert_eq!(
        exec(&bundle, &[], &["no-such-program"]).status.code(),
        Some(127)
    );
    assert_eq!(exec(&bundle, &[], &["/etc"]).status.code(), Some(126));
    assert_eq!(
        exec(&bundle, &["--user", "root"], &["true"]).status.code(),
        Some(255)
    );
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).status.success());
    until("it stops", || bundle.state()["status"] == "stopped");
    let late = exec(&bundle, &[], &["true"]);
    assert!(stderr(&late).contains("stopped"), "{late:?}");
}

#[test]
fn exec_takes_a_process_from_a_file() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.run_detached();
    let path = bundle.path().join("process.json");
    let process = json!({"args": ["sh", "-c", "echo $A; id -u"], "env": ["PATH=/bin", "A=b"],
        "cwd": "/", "user": {"uid": 5, "gid": 5}});
    dyno_tests::write_file(&path, &process.to_string());
    let path = path.to_string_lossy();
    let output = bundle.call(&["exec", "--process", &path, bundle.id()]);
    assert_eq!(stdout(&output), "b\n5\n", "{output:?}");
    // As Podman has it: the terminal is said a second time.
    let output = bundle.call(&["exec", "--tty", "--process", &path, bundle.id()]);
    assert_eq!(stdout(&output), "b\r\n5\r\n", "{output:?}");
}

#[test]
fn a_detached_process_is_left_alone_and_its_id_written() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.run_detached();
    let file = bundle.path().join("pid");
    let options = ["--detach", "--pid-file", &file.to_string_lossy()];
    let mut detached =
        bundle.runtime(&[&["exec"][..], &options, &[bundle.id(), "sleep", "2000"]].concat());
    assert!(detached.stdout(Stdio::null()).status().unwrap().success());
    let pid = std::fs::read_to_string(file).unwrap();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, b"sleep\x002000\0");
    let ps = bundle.call(&["ps", "--format", "json", bundle.id()]);
    let pids: Vec<i32> = serde_json::from_slice(&ps.stdout).unwrap();
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&pid.parse().unwrap()));
    let table = stdout(&bundle.call(&["ps", bundle.id()]));
    assert_eq!(
        table.lines().filter(|line| line.contains("sleep")).count(),
        2,
        "{table}"
    );
}

#[test]
fn kill_all_reaches_every_process() {
    let bundle = Bundle::script("trap '' TERM; sh -c 'exec sleep 3000' & exec sleep 1000");
    bundle.run_detached();
    let processes = || -> Vec<i32> {
        let ps = bundle.call(&["ps", "--format", "json", bundle.id()]);
        serde_json::from_slice(&ps.stdout).unwrap()
    };
    until("both run", || processes().len() == 2);
    assert!(
        bundle
            .call(&["kill", "--all", bundle.id(), "KILL"])
            .status
            .success()
    );
    until("it stops", || bundle.state()["status"] == "stopped");
}

#[test]
fn descriptors_are_passed_on_only_when_asked_for() {
    let script = "ls /proc/self/fd | tr '\\n' ' '; cat <&3";
    let bundle = Bundle::script(script);
    dyno_tests::write_file(&bundle.path().join("passed"), "through 3\n");
    let run = |options: &str| {
        let mut command = bundle.command(&["run", options]);
        let program = command.get_program().to_owned();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let shell = "f=$1; shift; exec \"$@\" 3<\"$f\"";
        let mut through = std::process::Command::new("sh");
        through
            .args(["-c", shell, "sh"])
            .arg(bundle.path().join("passed"));
        command = through;
        command.arg(program).args(args).output().unwrap()
    };
    let with = run("--preserve-fds=1");
    assert!(stdout(&with).ends_with("through 3\n"), "{with:?}");
    let without = run("--preserve-fds=0");
    assert!(!stdout(&without).contains("through 3"), "{without:?}");
    let missing = run("--preserve-fds=2");
    assert!(stderr(&missing).contains("descriptor 4"), "{missing:?}");
}

#[test]
fn a_pidfd_goes_to_who_wants_it() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let path = bundle.path().join("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = path.to_string_lossy().into_owned();
    let mut run = bundle.command(&["run", "--detach", "--pidfd-socket", &socket]);
    assert!(run.stdout(Stdio::null()).status().unwrap().success());
    let (stream, _) = listener.accept().unwrap();
    let pidfd = dyno_tests::receive_fd(&stream).expect("a descriptor");
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    until("it stops", || bundle.state()["status"] == "stopped");
}

#[test]
fn a_failure_is_in_the_log_as_callers_parse_it() {
    let bundle = Bundle::new(&["true"]);
    let log = bundle.path().join("log");
    let log = log.to_string_lossy().into_owned();
    let output = bundle.call(&["--log", &log, "--log-format", "json", "state", "absent"]);
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container \"absent\" does not exist");
    assert!(stderr(&output).contains("does not exist"));
}

#[test]
fn the_configuration_of_spec_runs() {
    let bundle = Bundle::new(&["true"]);
    let folder = bundle.path().join("made");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.to_string_lossy().into_owned();
    assert!(bundle.call(&["spec", "--bundle", &path]).status.success());
    assert!(
        !bundle.call(&["spec", "--bundle", &path]).status.success(),
        "it would be overwritten"
    );
    let text = std::fs::read(folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["root"]["path"] = json!(bundle.path().join("layer"));
    config["process"]["args"] = json!(["/bin/busybox", "echo", "it runs"]);
    config["process"]["terminal"] = json!(false);
    dyno_tests::write_file(&folder.join("config.json"), &config.to_string());
    let output = bundle.call(&["run", "--bundle", &path, "made"]);
    assert_eq!(stdout(&output), "it runs\n", "{output:?}");
}

/// It executes itself by a descriptor, whose number would be its name.
#[test]
fn it_is_called_by_its_name_whatever_it_does() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert!(bundle.create().status.success());
    bundle.start();
    let mut events = bundle.runtime(&["events", bundle.id()]);
    let mut events = events.stdout(Stdio::null()).spawn().unwrap();
    let name = format!("/proc/{}/comm", events.id());
    until("it has its name", || {
        std::fs::read_to_string(&name).unwrap() == "dyno-runtime\n"
    });
    events.kill().unwrap();
    events.wait().unwrap();
}
