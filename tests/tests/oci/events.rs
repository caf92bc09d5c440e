//! `events`: usage and OOM as callers of runc parse them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use dyno_tests::{bundle::Bundle, root, until};
use serde_json::{Value, json};

/// The stream of events, ended when dropped.
struct Stream {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Stream {
    fn of(bundle: &Bundle, interval: &str) -> Self {
        let mut events = bundle.runtime(&["events", "--interval", interval, bundle.id()]);
        let mut child = events.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next event; none at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn stats(bundle: &Bundle) -> Value {
    let output = bundle.call(&["events", "--stats", bundle.id()]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_usage_is_one_document_with_what_the_container_uses() {
    let mut bundle = Bundle::script("head -c 16777216 /dev/zero | tail -c 16777216 | sleep 1000");
    bundle.config["linux"]["resources"] =
        json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 33}});
    bundle.run_detached();
    // head has gone by then, or is about to.
    until("tail holds 16 MiB and head has ended", || {
        let data = &stats(&bundle)["data"];
        data["memory"]["usage"]["usage"].as_u64() > Some(16 << 20) && data["pids"]["current"] == 3
    });
    let stats = stats(&bundle);
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["id"], bundle.id());
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(data["pids"], json!({"current": 3, "limit": 33}));
    assert!(
        data["cpu"]["usage"]["total"].as_u64() > Some(1000),
        "{data}"
    );
}

#[test]
fn the_stream_tells_the_usage_again_and_again_and_ends_with_the_container() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.run_detached();
    let mut stream = Stream::of(&bundle, "20ms");
    for _ in 0..3 {
        let event = stream.next().unwrap();
        assert_eq!(event["type"], "stats");
        assert!(event["data"]["cpu"]["usage"]["total"].is_u64(), "{event}");
    }
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).status.success());
    while stream.next().is_some() {}
    assert!(stream.child.wait().unwrap().success());
}

#[test]
fn a_container_that_runs_out_of_memory_says_so() {
    let script = "until test -e /go; do sleep 0.01; done; \
                  head -c 104857600 /dev/zero | tail -c 104857600 >/dev/null; exec sleep 1000";
    let mut bundle = Bundle::script(script);
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    bundle.run_detached();
    // Longer than the test: whatever comes is an OOM.
    let mut stream = Stream::of(&bundle, "1h");
    until("somebody watches", || {
        let fds = format!("/proc/{}/fd", stream.child.id());
        std::fs::read_dir(fds).unwrap().any(|fd| {
            let link = std::fs::read_link(fd.unwrap().path()).unwrap_or_default();
            ["anon_inode:[eventfd]", "anon_inode:inotify"].contains(&&*link.to_string_lossy())
        })
    });
    assert!(bundle.inside(&["touch", "/go"]).status().unwrap().success());
    let event = stream.next().unwrap();
    assert_eq!(event, json!({"type": "oom", "id": bundle.id()}));
    assert_eq!(
        bundle.state()["status"],
        "running",
        "one process was killed"
    );
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).status.success());
    while let Some(event) = stream.next() {
        assert_eq!(event["type"], "oom");
    }
}

#[test]
fn what_cannot_be_told_is_refused() {
    let bundle = Bundle::new(&["true"]);
    let refused = |options: &[&str]| {
        let output = bundle.call(&[&["events"], options, &[bundle.id()]].concat());
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["--stats"]).contains("does not exist"));
    assert!(refused(&["--interval", "0s"]).contains("above 0"));
    bundle.run_detached();
    until("it stops", || bundle.state()["status"] == "stopped");
    assert!(refused(&["--stats"]).contains("container not running"));
    assert!(refused(&[]).contains("container not running"));
}

/// What a runtime prints for a container of runc's own configuration.
fn stats_by(runtime: &Path, bundle: &Bundle) -> Value {
    let folder = bundle.path().join("runc");
    let call = |words: &[&str]| {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(bundle.path().join("runc-state"));
        command.args(words).stdin(Stdio::null());
        command
    };
    let path = folder.to_string_lossy().into_owned();
    let mut run = call(&["run", "--detach", "--bundle", &path, bundle.id()]);
    let run = run.stdout(Stdio::null()).status().unwrap();
    // What is zero is left out: its program writes something first.
    let mut document = Value::Null;
    until("its cache is counted", || {
        let stats = call(&["events", "--stats", bundle.id()]).output().unwrap();
        document = serde_json::from_slice(&stats.stdout).unwrap();
        document["data"]["memory"]["cache"].as_u64() > Some(0)
    });
    let delete = call(&["delete", "--force", bundle.id()]).status().unwrap();
    assert!(run.success() && delete.success(), "{}", runtime.display());
    document
}

/// The paths of all that is in a document, with the types.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let (kind, parts): (_, Vec<(String, &Value)>) = match value {
        Value::Object(parts) => {
            let parts = parts.iter().map(|(name, part)| (name.clone(), part));
            ("object", parts.collect())
        }
        Value::Array(parts) => {
            let first = parts.iter().take(1).map(|part| ("[]".to_owned(), part));
            ("list", first.collect())
        }
        Value::Number(_) => ("number", Vec::new()),
        Value::String(_) => ("string", Vec::new()),
        Value::Bool(_) | Value::Null => ("other", Vec::new()),
    };
    found.insert(format!("{path}: {kind}"));
    for (name, part) in parts {
        fields(part, &format!("{path}/{name}"), found);
    }
}

#[test]
fn every_field_that_runc_has_is_there_under_the_same_name() {
    let bundle = Bundle::new(&["true"]);
    let folder = bundle.path().join("runc");
    root::fill(&folder.join("rootfs"));
    let mut spec = Command::new("runc");
    spec.args(["spec", "--bundle"]).arg(&folder);
    assert!(spec.status().unwrap().success(), "runc spec");
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let script = "head -c 100000 /dev/zero >/dev/shm/file; exec sleep 1000";
    config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    config["process"]["terminal"] = json!(false);
    config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id()));
    config["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 33}});
    dyno_tests::write_file(&path, &config.to_string());
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    fields(&stats_by(Path::new("runc"), &bundle), "", &mut theirs);
    fields(&stats_by(&bundle.program, &bundle), "", &mut ours);
    let missing: Vec<&String> = theirs
        .difference(&ours)
        // On a hybrid host v2 counts time, without a part for each CPU.
        .filter(|field| !field.starts_with("/data/cpu/usage/percpu"))
        .filter(|field| !field.starts_with("/data/blkio/"))
        .collect();
    assert!(
        theirs.contains("/data/memory/usage/limit: number"),
        "{theirs:?}"
    );
    assert!(missing.is_empty(), "{missing:?}");
}
