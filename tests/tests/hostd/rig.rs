//! What these tests ask of a host besides `dyno`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use dyno_tests::host::{Host, http_get};
use dyno_tests::until;
use serde_json::Value;

/// `dyno`'s exit code for what does not exist.
pub(crate) const NOT_FOUND: i32 = 3;
/// `dyno`'s exit code for what is in the way.
pub(crate) const CONFLICT: i32 = 4;

/// Runs `dyno` with these arguments as often as asked, all at the same moment.
pub(crate) fn at_once(host: &Host, times: usize, arguments: &[&str]) -> Vec<Output> {
    let barrier = Barrier::new(times);
    let one = || {
        barrier.wait();
        host.run(arguments)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..times).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// curl on hostd's socket, with a limit of time.
pub(crate) fn curl(host: &Host, path: &str) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["-sN", "--max-time", "60", "--unix-socket"])
        .arg(host.socket())
        .arg(format!("http://hostd{path}"))
        .stdin(Stdio::null());
    command
}

/// What a GET answers: JSON, one value per line.
#[track_caller]
pub(crate) fn get(host: &Host, path: &str) -> Vec<Value> {
    let output = curl(host, path).output().unwrap();
    assert!(output.status.success(), "GET {path}: {output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The cgroups of this host's dynos in every hierarchy.
pub(crate) fn dyno_cgroups(host: &Host) -> BTreeSet<PathBuf> {
    let id = get(host, "/v1/info")[0]["id"].as_str().unwrap().to_owned();
    let mut found = BTreeSet::new();
    below(
        Path::new("/sys/fs/cgroup"),
        &format!("dyno-{id}/dynos/"),
        &mut found,
    );
    found
}

fn below(folder: &Path, mark: &str, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            if path.to_string_lossy().contains(mark) {
                found.insert(path.clone());
            }
            below(&path, mark, found);
        }
    }
}

/// The names in a folder of the host.
pub(crate) fn names(host: &Host, folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(host.path().join(folder)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Folders, cgroups and the list show no dyno at all.
#[track_caller]
pub(crate) fn assert_nothing_left(host: &Host) {
    assert_eq!(host.ids(), Vec::<String>::new());
    for folder in ["state/dynos", "run/dynos"] {
        assert_eq!(names(host, folder), BTreeSet::new(), "{folder}");
    }
    assert_eq!(dyno_cgroups(host), BTreeSet::new());
}

/// Standard error, for messages of assertions.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Each dyno's own process and its monitor.
pub(crate) fn processes(host: &Host) -> BTreeMap<String, (Value, Value)> {
    let dynos = get(host, "/v1/dynos").remove(0);
    let dynos = dynos.as_array().unwrap().iter();
    dynos
        .map(|dyno| {
            let status = &dyno["status"];
            let both = (status["pid"].clone(), status["monitor_pid"].clone());
            (dyno["name"].as_str().unwrap().to_owned(), both)
        })
        .collect()
}

/// Ends the load also where the test fails.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks a dyno `web`, which publishes its port 80 as 8080, for its page all the time, while
/// something is done to hostd: every request is answered.
#[track_caller]
pub(crate) fn assert_no_request_fails(host: &mut Host, disturb: impl FnOnce(&mut Host)) {
    let page = || http_get("127.0.0.1:8080".parse().unwrap(), "/");
    until("it serves", || page().is_ok());
    let over = AtomicBool::new(false);
    let (failed, done) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut failed, mut done) = (Vec::new(), 0);
            while !over.load(Ordering::Relaxed) {
                match page() {
                    Ok(body) if body == "page\n" => done += 1,
                    other => failed.push(format!("{other:?}")),
                }
            }
            (failed, done)
        });
        let ends = Ends(&over);
        disturb(host);
        drop(ends);
        load.join().unwrap()
    });
    assert!(done > 10, "only {done} requests were made");
    assert_eq!(failed, Vec::<String>::new(), "of {done} requests");
}
