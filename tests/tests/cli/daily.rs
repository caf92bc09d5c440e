//! The life of dynos, hostd's included, by the commands of every day.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use dyno_tests::host::{Host, own_network};
use dyno_tests::{Folder, must_be_root, programs, until};

use crate::rig::{Lines, bare, spawn, text, wait};

#[test]
fn a_dyno_is_listed_followed_entered_stopped_started_and_removed() {
    let host = Host::start();
    let id = host.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "tier=front",
        "host",
        "sh",
        "-c",
        LINES,
    ]);
    let id = id.trim();
    assert_eq!(host.ids(), [id]);
    let table = host.ok(&["ps"]);
    assert!(
        table.starts_with("ID ") && table.contains("web") && table.contains("running"),
        "{table}"
    );
    assert!(!table.contains('\x1b'), "no colour in a pipe: {table}");

    until("three lines are logged", || {
        host.ok(&["logs", "web"]).lines().count() >= 3
    });
    let last = host.ok(&["logs", "-n", "1", "web"]);
    assert_eq!(last, "line-3");
    let line: Value =
        serde_json::from_str(&host.ok(&["--json", "logs", "-n", "1", "web"])).unwrap();
    assert_eq!(line["stream"], "stdout");

    let inside = host.run(&["exec", "web", "sh", "-c", "echo $HELLO; exit 3"]);
    assert_eq!(inside.status.code(), Some(3), "{inside:?}");
    let inside = host.ok(&[
        "exec",
        "-e",
        "HELLO=there",
        "web",
        "sh",
        "-c",
        "echo $HELLO",
    ]);
    assert_eq!(inside, "there");
    let missing = host.run(&["exec", "web", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");

    let stats: Value = serde_json::from_str(&host.ok(&["--json", "stats", "--no-stream"])).unwrap();
    assert!(stats[0]["pids"].as_u64().unwrap() >= 1, "{stats}");

    assert_eq!(host.ok(&["stop", "-t", "0", "web"]), "web");
    assert_eq!(host.inspect("web")["status"]["phase"], "exited");
    assert_eq!(host.ok(&["ps", "-q"]), "");
    assert_eq!(host.ids(), [id], "stopped is not removed");
    assert_eq!(host.ok(&["wait", "web"]), "137");
    host.ok(&["start", "web"]);
    assert_eq!(host.inspect("web")["status"]["phase"], "running");
    host.ok(&["kill", "web"]);
    assert_eq!(host.ok(&["wait", "web"]), "137");
    assert_eq!(host.ok(&["rm", "web"]), "web");
    assert_eq!(host.ids(), [] as [&str; 0]);
}

/// Writes three lines and goes on.
const LINES: &str = "for i in 1 2 3; do echo line-$i; done; sleep 1000";

#[test]
fn an_imported_image_is_listed_run_kept_while_used_and_removed() {
    let host = Host::with_busybox();
    let images: Value = serde_json::from_str(&host.ok(&["--json", "images"])).unwrap();
    let references: Vec<&str> = images
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["reference"].as_str().unwrap())
        .collect();
    assert_eq!(references, ["host", "docker.io/library/busybox:latest"]);
    assert_eq!(host.ok(&["images", "-q"]), references.join("\n"));
    let greeting = host.ok(&[
        "run",
        "--rm",
        "--entrypoint",
        "/bin/echo",
        "busybox",
        "hello",
    ]);
    assert_eq!(greeting, "hello");

    host.ok(&["run", "-d", "--name", "user", "busybox", "sleep", "1000"]);
    let (why, code) = host.fails(&["rmi", "busybox"]);
    assert!(code == 4 && why.contains("user"), "{code}: {why}");
    host.ok(&["rm", "-f", "user"]);
    assert_eq!(host.ok(&["rmi", "busybox"]), "busybox");
    let (why, code) = host.fails(&["run", "--rm", "--pull", "never", "busybox", "true"]);
    assert!(code == 125 && why.contains("busybox"), "{code}: {why}");
}

#[test]
fn progress_as_json_is_one_value_per_line_and_ends_with_the_image() {
    let host = Host::start();
    let folder = Folder::new();
    let archive = folder.path().join("root.tar");
    dyno_tests::root::archive(&archive);
    let told = host.ok(&["--json", "import", archive.to_str().unwrap(), "box:1"]);
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["progress"], "done");
    assert_eq!(last["image"]["reference"], "docker.io/library/box:1");
    assert!(
        lines.iter().all(|line| line["progress"].is_string()),
        "{told}"
    );
}

#[test]
fn events_tell_a_dynos_life_in_order() {
    let host = Host::start();
    host.ok(&["run", "--rm", "--name", "brief", "host", "true"]);
    let mut seen = Vec::new();
    until("the removal is told", || {
        let events = host.ok(&["--json", "events", "--since", "0", "--no-follow"]);
        seen = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["name"] == "brief")
            .map(|event| event["event"].as_str().unwrap().to_owned())
            .collect();
        seen.last().is_some_and(|last| last == "dyno_removed")
    });
    assert_eq!(
        seen,
        [
            "dyno_created",
            "dyno_started",
            "dyno_exited",
            "dyno_removed"
        ]
    );
}

#[test]
fn environment_files_flags_and_our_own_variables_reach_the_dyno() {
    let host = Host::start();
    let folder = Folder::new();
    let file = folder.path().join("env");
    let mut written = std::fs::File::create(&file).unwrap();
    written
        .write_all(b"# comment\nA=file\nB=two words\nMINE\n")
        .unwrap();
    let output = host
        .dyno(&["run", "--rm", "-e", "A=flag", "--env-file"])
        .arg(&file)
        .args(["host", "sh", "-c", "echo $A/$B/$MINE"])
        .env("MINE", "inherited")
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stdout),
        "flag/two words/inherited\n",
        "{output:?}"
    );
}

#[test]
fn a_foreground_run_outlives_hostd() {
    let mut host = Host::start();
    let script = "echo ready; until test -e /tmp/end; do sleep 0.05; done; exit 9";
    let mut child = spawn(
        &host,
        &["run", "--name", "long", "host", "sh", "-c", script],
    );
    let mut lines = Lines::of(child.stdout.take().unwrap());
    lines.wait_for("ready");
    host.kill_and_restart();
    until("hostd is back", || {
        host.run(&["exec", "long", "touch", "/tmp/end"])
            .status
            .success()
    });
    assert_eq!(wait(&mut child), Some(9));
}

#[test]
fn what_is_typed_after_hostd_was_killed_still_arrives() {
    let mut host = Host::start();
    let mut command = host.dyno(&["run", "--rm", "-i", "host", "cat"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut lines = Lines::of(child.stdout.take().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    lines.wait_for("one");
    host.kill_and_restart();
    stdin.write_all(b"two\n").unwrap();
    lines.wait_for("two");
    drop(stdin);
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(host.ids(), [] as [&str; 0], "--rm leaves nothing");
}

#[test]
fn a_hostd_that_cannot_start_is_told_in_its_own_words() {
    let folder = Folder::new();
    let output = bare()
        .env("DYNO_RUN_DIR", folder.path().join("run"))
        .env("DYNO_STATE_DIR", "/dev/null")
        .arg("ps")
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{stderr}");
    assert!(
        stderr.contains("hostd ended at once") && stderr.contains("/dev/null"),
        "{stderr}"
    );
    assert!(stderr.contains("hostd.log"), "{stderr}");
}

#[test]
fn a_missing_hostd_is_started_once_and_outlives_us() {
    must_be_root();
    own_network();
    let folder = Folder::new();
    let dyno = |arguments: &[&str]| {
        let mut command = bare();
        command
            .env("DYNO_RUN_DIR", folder.path().join("run"))
            .env("DYNO_STATE_DIR", folder.path().join("state"))
            .args(arguments);
        command.output().unwrap()
    };
    let pid = || {
        let output = dyno(&["--json", "info"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let info: Value = serde_json::from_slice(&output.stdout).unwrap();
        i32::try_from(info["pid"].as_i64().unwrap()).unwrap()
    };
    let first = pid();
    let _hostd = Started {
        pid: first,
        folder: folder.path(),
    };
    assert_eq!(pid(), first);
    let stat = std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
    let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
    assert_eq!(session, first.to_string(), "a session of its own: {stat}");
    assert!(folder.path().join("run/hostd.log").exists());
}

/// A hostd that is no child of ours, by its process and its folders. Taken
/// down when dropped: processes, network, cgroups.
struct Started<'a> {
    pid: i32,
    folder: &'a Path,
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        kill_process(Pid::from_raw(self.pid).unwrap(), Signal::TERM).ok();
        until("hostd has ended", || !process.exists());
        let teardown = Command::new(programs().join("hostd"))
            .args(["teardown", "--run-dir"])
            .arg(self.folder.join("run"))
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            .output()
            .unwrap();
        assert!(
            teardown.status.success() || std::thread::panicking(),
            "{teardown:?}"
        );
    }
}

#[test]
fn a_bundle_for_a_bug_report_holds_no_secret() {
    let host = Host::start();
    let secret = "hunter2-of-this-test";
    let (variable, label) = (format!("TOKEN={secret}"), format!("key={secret}"));
    let run = ["run", "-d", "--name", "web", "-e", &variable, "-l", &label];
    let script = format!("echo {secret}; exec sleep 1000");
    let check = format!("interval=100ms failures=100 sh:echo {secret}; false");
    let checks = ["--liveness", &check, "--readiness", &check];
    host.ok(&[&run[..], &checks, &["host", "sh", "-c", &script]].concat());
    until("a check has failed and said the secret", || {
        let inspected = host.inspect("web")["status"]["failed_check"].to_string();
        inspected.contains(secret)
    });
    let path = host.path().join("bundle.tar.gz");
    let output = path.to_string_lossy().into_owned();
    host.ok(&["debug", "bundle", "-o", &output]);
    let unpacked = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(&path)
        .output();
    let text = String::from_utf8_lossy(&unpacked.unwrap().stdout).into_owned();
    for expected in [
        "web",
        "TOKEN",
        "[redacted]",
        "dyno_started",
        "kernel/proc-version",
    ] {
        assert!(text.contains(expected), "no {expected}");
    }
    assert!(!text.contains(secret), "the secret is in it");
    // What is there is nobody's to overwrite.
    assert_eq!(host.fails(&["debug", "bundle", "-o", &output]).1, 1);
}
