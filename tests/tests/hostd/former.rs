//! This build and the one of the commit before, one after the other on the same host.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dyno_tests::host::{Host, http_get, own_network, serve_by};
use dyno_tests::{Folder, must_be_root, programs, skip, until};
use serde_json::Value;

use crate::rig::processes;

const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";
const SERVE: &str = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";

/// The programs that `cargo xtask former` builds.
fn former() -> Option<PathBuf> {
    let folder = programs().join("../../former/programs");
    let folder = folder.canonicalize().ok();
    if folder.is_none() {
        skip("there are no programs of the commit before: `cargo xtask former` builds them");
    }
    folder
}

#[test]
fn dynos_live_on_through_an_upgrade_from_the_commit_before_and_back() {
    let Some(former) = former() else { return };
    must_be_root();
    own_network();
    let folder = Folder::new();
    let hostd = serve_by(&former, folder.path())
        .stderr(Stdio::null())
        .spawn();
    let mut host = Host::of(hostd.unwrap(), folder);
    host.until_it_answers();
    host.import_busybox();
    make_dynos(&host, "old");
    let (before, wanted) = (processes(&host), wanted(&host));

    go_on_with(&mut host, &programs());
    assert_eq!(processes(&host), before, "after the upgrade");
    assert_eq!(self::wanted(&host), wanted, "after the upgrade");
    assert_works(&host, "old");
    make_dynos(&host, "new");
    let (before, wanted) = (processes(&host), self::wanted(&host));

    go_on_with(&mut host, &former);
    assert_eq!(processes(&host), before, "after the way back");
    assert_eq!(self::wanted(&host), wanted, "after the way back");
    for age in ["old", "new"] {
        assert_works(&host, age);
    }
    go_on_with(&mut host, &programs());
    assert_eq!(processes(&host), before, "after the second upgrade");
    for age in ["old", "new"] {
        assert_works(&host, age);
        for kind in ["counter", "web", "stopped"] {
            host.ok(&["rm", "-f", &format!("{age}-{kind}")]);
        }
    }
}

/// One that counts, one that is reached from outside and has a volume, a secret and a
/// check, one that was stopped.
fn make_dynos(host: &Host, age: &str) {
    let name = |kind: &str| format!("{age}-{kind}");
    let run = |kind: &str, flags: &[&str], command: &[&str]| {
        let named = ["run", "-d", "--name", &name(kind)];
        host.ok(&[&named, flags, &["busybox"], command].concat());
    };
    run(
        "counter",
        &["--restart", "always", "-m", "64M"],
        &["sh", "-c", COUNT],
    );
    let volume = format!("{}:/data", name("volume"));
    host.ok(&["volume", "create", &name("volume")]);
    let port = if age == "old" { "8080:80" } else { "8081:80" };
    let flags = ["-v", &volume, "-p", port, "--readiness", "http://:80/"];
    run("web", &flags, &["sh", "-c", SERVE]);
    run("stopped", &[], &["sleep", "1000"]);
    host.ok(&["stop", "-t", "0s", &name("stopped")]);
    host.ok(&["exec", &name("web"), "sh", "-c", "echo kept >/data/file"]);
    until("it serves", || page(age).is_ok());
}

fn page(age: &str) -> std::io::Result<String> {
    let address = if age == "old" {
        "127.0.0.1:8080"
    } else {
        "127.0.0.1:8081"
    };
    http_get(address.parse().unwrap(), "/")
}

/// What was asked for, by name.
fn wanted(host: &Host) -> Vec<Value> {
    let all: Vec<String> = processes(host).into_keys().collect();
    all.iter()
        .map(|name| host.inspect(name)["spec"].clone())
        .collect()
}

/// Ends hostd without notice, and starts another build.
fn go_on_with(host: &mut Host, programs: &Path) {
    host.kill();
    let hostd = serve_by(programs, host.path())
        .stderr(Stdio::null())
        .spawn();
    host.replace(hostd.unwrap());
    host.until_it_answers();
}

#[track_caller]
fn assert_works(host: &Host, age: &str) {
    let name = |kind: &str| format!("{age}-{kind}");
    until("it serves", || page(age).is_ok_and(|page| page == "page\n"));
    assert_eq!(
        host.ok(&["exec", &name("web"), "cat", "/data/file"]),
        "kept"
    );
    let logs = host.ok(&["logs", &name("counter")]);
    let lines: Vec<usize> = logs.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (1..=lines.len()).collect::<Vec<_>>());
    host.ok(&["start", &name("stopped")]);
    host.ok(&["stop", "-t", "0s", &name("stopped")]);
}
