//! `dyno checkpoint` and `dyno restore`. Where CRIU does not know the kernel the refusal
//! is tested here and the rest counted as skipped; Debian's kernel in a virtual machine
//! runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dyno_tests::host::{Host, http_get, own_network, serve};
use dyno_tests::{Folder, until};
use serde_json::Value;

/// What CRIU says against this kernel, if anything.
fn unable() -> Option<String> {
    let check = Command::new("criu")
        .arg("check")
        .stdin(Stdio::null())
        .output()
        .expect("criu is installed: cargo xtask setup");
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    (!check.status.success()).then(|| said.lines().next().unwrap_or_default().to_owned())
}

fn skipped() -> bool {
    let reason = unable();
    if let Some(reason) = &reason {
        dyno_tests::skip(&format!("criu check fails on this kernel: {reason}"));
    }
    reason.is_some()
}

/// It counts in its memory, shows the count in a volume, and serves that.
const SCRIPT: &str = "httpd -p 80 -h /data; i=0; while :; do i=$((i+1)); echo $i; \
     echo $i > /data/new; mv /data/new /data/count; sleep 0.1; done";

const RUN: [&str; 16] = [
    "run",
    "-d",
    "--name",
    "app",
    "--restart",
    "always",
    "-m",
    "256M",
    "-p",
    "8080:80",
    "-v",
    "data:/data",
    "busybox",
    "sh",
    "-c",
    SCRIPT,
];

fn count(host: &Host) -> u64 {
    let count = fs::read_to_string(host.path().join("state/volumes/data/count"));
    let count = count.or_else(|_| {
        let said = host.run(&["exec", "app", "cat", "/data/count"]).stdout;
        String::from_utf8(said).map_err(std::io::Error::other)
    });
    count
        .ok()
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

fn logged(host: &Host) -> Vec<u64> {
    let logs = host.ok(&["logs", "app"]);
    logs.lines().filter_map(|line| line.parse().ok()).collect()
}

fn checkpoints(host: &Host) -> Vec<String> {
    let listed: Value = serde_json::from_str(&host.ok(&["checkpoints", "--json", "app"])).unwrap();
    let names = listed.as_array().unwrap().iter();
    names
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

fn folder(host: &Host) -> PathBuf {
    let id = host.inspect("app")["id"].as_str().unwrap().to_owned();
    host.path().join("state/dynos").join(id).join("checkpoints")
}

#[test]
fn a_dyno_comes_back_with_what_it_was_over_a_restart_of_hostd() {
    if skipped() {
        return;
    }
    let mut host = Host::with_busybox();
    host.ok(&RUN);
    until("it counts", || logged(&host).len() > 5);
    let before = host.inspect("app");
    assert_eq!(host.ok(&["checkpoint", "app", "one"]), "app@one");
    let ended = host.inspect("app");
    assert_eq!(ended["status"]["phase"], "exited", "{ended}");
    assert_eq!(ended["status"]["reason"], "saved by a checkpoint");
    assert!(host.ok(&["ps", "-a"]).contains("app"));
    host.kill_and_restart();
    assert_eq!(host.inspect("app")["status"]["phase"], "exited");
    assert_eq!(checkpoints(&host), ["one"]);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder(&host)), 0o700);
    assert_eq!(mode(folder(&host).join("one")), 0o700);
    let saved = *logged(&host).last().unwrap();
    host.ok(&["restore", "app"]);
    until("it goes on", || logged(&host).len() as u64 > saved + 3);
    let all = logged(&host);
    let expected: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, expected, "no line is lost, doubled, or said anew");
    let after = host.inspect("app");
    for (place, what) in [
        ("/id", "id"),
        ("/name", "name"),
        ("/status/ipv4", "address"),
        ("/spec", "spec"),
    ] {
        assert_eq!(after.pointer(place), before.pointer(place), "{what}");
    }
    assert_eq!(after["status"]["phase"], "running", "{after}");
    // It is reached by its port, and by its name from another one.
    let address = "127.0.0.1:8080".parse().unwrap();
    let counts = |page: &str| page.trim().parse::<u64>().is_ok();
    let answers = || http_get(address, "/count").is_ok_and(|page| counts(&page));
    until("its port answers", answers);
    let page = host.ok(&["run", "--rm", "busybox", "wget", "-qO-", "http://app/count"]);
    assert!(
        page.trim().parse::<u64>().is_ok_and(|page| page > saved),
        "{page}"
    );
    assert_eq!(host.ok(&["exec", "app", "id", "-u"]), "0");
    let limit = "cat /sys/fs/cgroup/memory.max";
    assert_eq!(host.ok(&["exec", "app", "sh", "-c", limit]), "268435456");
    // It is supervised as before: hostd away, then its process gone.
    host.kill();
    host.spawn_again();
    host.until_it_answers();
    assert_eq!(host.inspect("app")["status"]["pid"], after["status"]["pid"]);
    host.ok(&["kill", "app"]);
    until("it is started anew", || {
        let status = host.inspect("app")["status"].clone();
        status["phase"] == "running" && status["pid"] != after["status"]["pid"]
    });
    until("its port answers again", answers);
    let (said, code) = host.fails(&["restore", "app", "one"]);
    assert!(code == 4 && said.contains("running"), "{code} {said}");
    host.ok(&["rm", "app@one"]);
    assert_eq!(checkpoints(&host), [""; 0]);
    host.ok(&["rm", "-f", "app"]);
}

#[test]
fn one_that_is_left_running_runs_on_and_an_ordinary_start_begins_anew() {
    if skipped() {
        return;
    }
    let host = Host::with_busybox();
    host.ok(&RUN);
    until("it counts", || logged(&host).len() > 5);
    let pid = host.inspect("app")["status"]["pid"].clone();
    let named = host.ok(&["checkpoint", "--leave-running", "app"]);
    assert!(named.starts_with("app@20"), "{named}");
    host.ok(&["checkpoint", "--leave-running", "app", "two"]);
    assert_eq!(checkpoints(&host).len(), 2);
    assert_eq!(
        host.fails(&["checkpoint", "--leave-running", "app", "two"])
            .1,
        4
    );
    let now = count(&host);
    until("it goes on", || count(&host) > now);
    assert_eq!(host.inspect("app")["status"]["pid"], pid);
    host.ok(&["checkpoint", "app", "last"]);
    let folder = folder(&host);
    host.ok(&["start", "app"]);
    until("it counts from one again", || {
        let logged = logged(&host);
        logged.iter().filter(|number| **number == 1).count() == 2
    });
    host.ok(&["rm", "-f", "app"]);
    until("all of it is gone", || !folder.exists());
}

#[test]
fn where_it_cannot_be_it_says_why_and_the_dyno_runs_on() {
    let host = Host::with_busybox();
    host.ok(&RUN);
    until("it counts", || count(&host) > 2);
    let goes_on = || {
        let now = count(&host);
        until("it goes on", || count(&host) > now);
        assert_eq!(checkpoints(&host), [""; 0]);
        let left = fs::read_dir(folder(&host)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing half-made is left");
    };
    if let Some(reason) = unable() {
        let (said, code) = host.fails(&["checkpoint", "app", "one"]);
        assert_eq!(code, 7, "{said}");
        assert!(
            said.contains("`criu check`") && said.contains("kernel"),
            "{said}"
        );
        let words = reason.split_once("): ").map(|(_, words)| words);
        assert!(words.is_some_and(|words| said.contains(words)), "{said}");
        goes_on();
    }
    let (said, code) = host.fails(&["restore", "app"]);
    assert!(code == 3 && said.contains("no checkpoint"), "{code} {said}");
    let (said, code) = host.fails(&["restore", "app", "other"]);
    assert!(code == 3 && said.contains("other"), "{code} {said}");
    assert_eq!(host.fails(&["rm", "app@other"]).1, 3);
    assert_eq!(host.fails(&["checkpoint", "nobody"]).1, 3);
    host.ok(&["pause", "app"]);
    let (said, code) = host.fails(&["checkpoint", "app"]);
    assert!(code == 4 && said.contains("resume"), "{code} {said}");
    host.ok(&["resume", "app"]);
    goes_on();
    host.ok(&["stop", "-t", "0", "app"]);
    let (said, code) = host.fails(&["checkpoint", "app"]);
    assert!(code == 4 && said.contains("not running"), "{code} {said}");
    for (flags, code, words) in [
        (&["--rm", "-d"][..], 4, "--leave-running"),
        (&["-d", "--net", "host"], 7, "network"),
    ] {
        let words_of_run = [
            &["run", "--name", "other"],
            flags,
            &["busybox", "sleep", "1000"],
        ]
        .concat();
        host.ok(&words_of_run);
        let (said, found) = host.fails(&["checkpoint", "other"]);
        assert!(found == code && said.contains(words), "{found} {said}");
        host.ok(&["rm", "-f", "other"]);
    }
}

#[test]
fn without_criu_it_says_what_to_install() {
    own_network();
    let folder = Folder::new();
    let mut serve = serve(folder.path());
    let hostd = serve
        .env("PATH", "/nowhere")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let host = Host::of(hostd.spawn().unwrap(), folder);
    host.until_it_answers();
    host.import_busybox();
    host.ok(&["run", "-d", "--name", "app", "busybox", "sleep", "1000"]);
    for words in [["checkpoint", "app"], ["restore", "app"]] {
        let (said, code) = host.fails(&words);
        assert!(code == 7 && said.contains("install it"), "{code} {said}");
    }
    assert_eq!(host.inspect("app")["status"]["phase"], "running");
    host.ok(&["rm", "-f", "app"]);
}
