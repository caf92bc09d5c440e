//! `checkpoint` and `restore`: what a container had in memory, its limits and its name
//! come back; what fails leaves everything as it was. Where `criu check` says that the
//! kernel will not do, the refusal is tested here, and the rest is counted as skipped;
//! Debian's kernel in a virtual machine runs it.

mod flags;
mod memory;
mod user_namespace;

use std::process::{Command, Output, Stdio};

use dyno_tests::bundle::Bundle;
use dyno_tests::until;
use serde_json::json;

/// Why CRIU cannot work here.
fn unable() -> Option<String> {
    let checked = Command::new("criu")
        .arg("check")
        .stdin(Stdio::null())
        .output();
    let checked = checked.expect("criu is installed: cargo xtask setup");
    let said = [checked.stdout, checked.stderr].concat();
    (!checked.status.success()).then(|| String::from_utf8_lossy(&said).into_owned())
}

/// Counts the test as skipped where CRIU cannot work.
fn skipped() -> bool {
    let reason = unable();
    if let Some(reason) = &reason {
        let line = reason.lines().next().unwrap_or_default();
        dyno_tests::skip(&format!("criu check fails on this kernel: {line}"));
    }
    reason.is_some()
}

/// A container that counts in memory alone, and writes down where it is.
fn counting() -> Bundle {
    let script =
        "n=0; while :; do n=$((n+1)); echo $n >/count.new; mv /count.new /count; sleep 0.1; done";
    plain(Bundle::script(script))
}

/// With a root that is there without a mount of ours, as an engine gives it.
fn plain(bundle: Bundle) -> Bundle {
    let mut bundle = bundle.as_host_root();
    let bound = bundle.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    bundle.mount(json!({
        "destination": "/bound", "type": "bind", "source": bound, "options": ["bind", "ro"],
    }));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/");
    bundle.config["root"]["path"] = json!("layer");
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 77}});
    bundle
}

fn count(bundle: &Bundle) -> u64 {
    let text = std::fs::read_to_string(bundle.path().join("layer/count"));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn image(bundle: &Bundle) -> String {
    bundle.path().join("image").to_string_lossy().into_owned()
}

fn checkpoint(bundle: &Bundle, more: &[&str]) -> Output {
    let image = image(bundle);
    let words = [
        "checkpoint",
        "--image-path",
        &image,
        "--empty-ns",
        "network",
    ];
    bundle.call(&[&words, more, &[bundle.id()]].concat())
}

fn restore(bundle: &Bundle) -> Output {
    restore_with(bundle, &["--empty-ns", "network"])
}

fn restore_with(bundle: &Bundle, more: &[&str]) -> Output {
    let image = image(bundle);
    let words = ["restore", "--detach", "--image-path", &image];
    let mut restore = bundle.command(&[&words, more].concat());
    // The streams of the container, as they were: not through pipes.
    let file = |name| std::fs::File::create(bundle.path().join(name)).unwrap();
    restore.stdout(file("stdout")).stderr(file("stderr"));
    let status = restore.status().unwrap();
    let stderr = std::fs::read(bundle.path().join("stderr")).unwrap();
    Output {
        status,
        stdout: Vec::new(),
        stderr,
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeded(output: &Output, bundle: &Bundle, log: &str) {
    let log = std::fs::read_to_string(bundle.path().join("image").join(log)).unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(25).collect();
    assert!(output.status.success(), "{}\n{lines:#?}", stderr(output));
}

#[test]
fn a_process_goes_on_counting_where_it_was() {
    if skipped() {
        return;
    }
    let bundle = counting();
    bundle.run_detached();
    until("it counts", || count(&bundle) > 5);
    succeeded(&checkpoint(&bundle, &[]), &bundle, "dump.log");
    assert!(
        !bundle.call(&["state", bundle.id()]).status.success(),
        "it is removed"
    );
    let before = count(&bundle);
    succeeded(&restore(&bundle), &bundle, "restore.log");
    until("it goes on", || count(&bundle) > before);
    assert!(count(&bundle) < before + 1000);
    let state = bundle.state();
    assert_eq!(state["status"], "running");
    let status = std::fs::read_to_string(format!("/proc/{}/status", state["pid"])).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    assert!(cgroup.contains(bundle.id()), "{cgroup}");
    let exec = bundle.call(&["exec", bundle.id(), "cat", "/proc/1/cmdline"]);
    assert!(
        String::from_utf8_lossy(&exec.stdout).contains("count"),
        "{exec:?}"
    );
    if let Ok(limit) = std::fs::read_to_string(format!("/sys/fs/cgroup/{}/pids.max", bundle.id())) {
        assert_eq!(limit, "77\n");
    }
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).status.success());
    until("it stops", || bundle.state()["status"] == "stopped");
    assert!(bundle.call(&["delete", bundle.id()]).status.success());
}

#[test]
fn one_that_is_left_running_runs_on() {
    if skipped() {
        return;
    }
    let bundle = counting();
    bundle.run_detached();
    until("it counts", || count(&bundle) > 5);
    succeeded(
        &checkpoint(&bundle, &["--leave-running"]),
        &bundle,
        "dump.log",
    );
    let before = count(&bundle);
    until("it goes on", || count(&bundle) > before);
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn a_checkpoint_that_cannot_be_leaves_the_container_running() {
    let bundle = counting();
    bundle.run_detached();
    until("it counts", || count(&bundle) > 2);
    for words in [
        &["--lazy-pages"][..],
        &["--manage-cgroups-mode", "full"],
        &["--empty-ns", "ipc"],
    ] {
        let output = checkpoint(&bundle, words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(words[0]), "{output:?}");
    }
    if let Some(reason) = unable() {
        let output = checkpoint(&bundle, &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let message = stderr(&output);
        assert!(
            message.contains("`criu check`") && message.contains("kernel"),
            "{message}"
        );
        let words = reason
            .lines()
            .next()
            .and_then(|line| line.split_once("): "));
        assert!(
            words.is_some_and(|(_, words)| message.contains(words)),
            "{message}"
        );
    }
    let before = count(&bundle);
    until("it goes on", || count(&bundle) > before);
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn one_of_which_some_processes_gave_up_gaining_privileges_is_refused_and_runs_on() {
    if skipped() {
        return;
    }
    let script = "setpriv --nnp sleep 1000 & echo 1 >/count; while :; do sleep 0.1; done";
    let mut bundle = plain(Bundle::script(script));
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.run_detached();
    until("it is there", || count(&bundle) > 0);
    until("it is refused", || {
        let output = checkpoint(&bundle, &["--leave-running"]);
        output.status.code() == Some(1) && stderr(&output).contains("no_new_privs")
    });
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn without_criu_both_say_what_to_install_and_leave_nothing() {
    let bundle = counting();
    bundle.run_detached();
    let image = image(&bundle);
    for words in [
        &["checkpoint", "--image-path", &image, bundle.id()][..],
        &[
            "restore",
            "--detach",
            "--bundle",
            &bundle.path().to_string_lossy(),
            "--image-path",
            &image,
            "new",
        ],
    ] {
        let output = bundle
            .runtime(words)
            .env("PATH", "/nowhere")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains("install"), "{output:?}");
    }
    assert_eq!(bundle.state()["status"], "running");
    assert!(!bundle.path().join("state/new").exists());
    assert!(!std::path::Path::new(&image).exists());
    let features = |path: &str| {
        let features = bundle
            .runtime(&["features"])
            .env("PATH", path)
            .output()
            .unwrap();
        let features: serde_json::Value = serde_json::from_slice(&features.stdout).unwrap();
        features["annotations"]["org.opencontainers.runc.checkpoint.enabled"].clone()
    };
    assert_eq!(features("/nowhere"), "false");
    assert_eq!(features("/usr/sbin:/sbin"), "true");
}

#[test]
fn one_in_the_network_of_another_comes_back_there() {
    if skipped() {
        return;
    }
    let mut other = Command::new("unshare")
        .args(["--net", "sleep", "1000"])
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/net", other.id());
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    until("it has its network", || {
        std::fs::read_link(&path).is_ok_and(|other| other != own)
    });
    let network = std::fs::read_link(&path).unwrap();
    let mut bundle = counting();
    for namespace in bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!(path);
        }
    }
    bundle.run_detached();
    until("it counts", || count(&bundle) > 2);
    let image = image(&bundle);
    let saved = bundle.call(&["checkpoint", "--image-path", &image, bundle.id()]);
    succeeded(&saved, &bundle, "dump.log");
    succeeded(&restore_with(&bundle, &[]), &bundle, "restore.log");
    let now = std::fs::read_link(format!("/proc/{}/ns/net", bundle.state()["pid"])).unwrap();
    assert_eq!(now, network);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn in_the_foreground_its_streams_and_its_exit_code_are_those_of_restore() {
    if skipped() {
        return;
    }
    let script = "until [ -e /stop ]; do sleep 0.1; done; echo the end; exit 7";
    let bundle = plain(Bundle::script(script));
    let mut run = bundle.command(&["run", "--detach"]);
    let mut run = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The container holds the other ends.
    let _ends = (run.stdout.take(), run.stderr.take());
    assert!(run.wait().unwrap().success());
    succeeded(&checkpoint(&bundle, &[]), &bundle, "dump.log");
    let image = image(&bundle);
    let mut restore = bundle.command(&["restore", "--image-path", &image, "--empty-ns", "network"]);
    let restore = restore
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("it is back", || {
        let state = bundle.call(&["state", bundle.id()]).stdout;
        serde_json::from_slice(&state)
            .is_ok_and(|state: serde_json::Value| state["status"] == "running")
    });
    dyno_tests::write_file(&bundle.path().join("layer/stop"), "");
    let output = restore.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "the end\n");
    assert!(
        !bundle.call(&["state", bundle.id()]).status.success(),
        "it is removed"
    );
}

/// Neither state nor cgroup nor mount.
fn nothing_is_left(bundle: &Bundle) {
    assert!(!bundle.path().join("state").join(bundle.id()).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.id()), "{mounts}");
    for tree in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/pids",
    ] {
        assert!(
            !std::path::Path::new(tree).join(bundle.id()).exists(),
            "{tree}"
        );
    }
}

#[test]
fn a_restore_that_is_refused_leaves_nothing() {
    let bundle = counting();
    let folder = image(&bundle);
    std::fs::create_dir(&folder).unwrap();
    let note = std::path::Path::new(&folder).join("dyno-runtime.json");
    let empty = json!({"version": 1, "mounts": [], "streams": [], "network": false});
    dyno_tests::write_file(&note, &empty.to_string());
    let output = restore(&bundle);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("criu"), "{output:?}");
    nothing_is_left(&bundle);
}

#[test]
fn a_restore_that_fails_half_way_leaves_nothing_and_can_be_tried_again() {
    if skipped() {
        return;
    }
    let bundle = counting();
    bundle.run_detached();
    until("it counts", || count(&bundle) > 2);
    succeeded(&checkpoint(&bundle, &[]), &bundle, "dump.log");
    nothing_is_left(&bundle);
    let pages = bundle.path().join("image/pages-1.img");
    let away = bundle.path().join("pages");
    std::fs::rename(&pages, &away).unwrap();
    let output = restore(&bundle);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output).contains("criu restore failed"),
        "{output:?}"
    );
    nothing_is_left(&bundle);
    std::fs::rename(&away, &pages).unwrap();
    let before = count(&bundle);
    succeeded(&restore(&bundle), &bundle, "restore.log");
    until("it goes on", || count(&bundle) > before);
}
