//! hostd killed at each of its crash points: `failpoint("operation.step")` in the source.
//!
//! ```text
//! as_before ─▶ armed ─▶ asked ─▶ killed there ─▶ started again ─▶ whole or gone ─▶ cleaned
//! ```
//! The points are read from the source: a step that is added to an operation is tried
//! with its others, and an operation that has no case here fails.

mod cases;
mod monitor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dyno_tests::host::Host;
use dyno_tests::machine::Machine;
use dyno_tests::{until, write_file};
use serde_json::Value;

use crate::rig::{get, stderr};
use cases::{CASES, Case};

/// The points of each operation.
fn points() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for folder in ["hostd/src", "images/src", "runtime/src"] {
        read(&root.join(folder), &mut |text| {
            for part in text.split("failpoint(\"").skip(1) {
                let point = part.split('"').next().unwrap();
                let (operation, _) = point.split_once('.').unwrap();
                let points = found.entry(operation.to_owned()).or_default();
                assert!(points.insert(point.to_owned()), "{point} is there twice");
            }
        });
    }
    found
}

fn read(folder: &Path, each: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read(&path, each),
            false => each(&std::fs::read_to_string(&path).unwrap()),
        }
    }
}

#[test]
fn each_operation_that_has_crash_points_is_tried() {
    let there: BTreeSet<String> = points().into_keys().collect();
    let of_hostd = CASES.iter().map(|case| &case.name);
    let of_monitors = monitor::CASES.iter().flat_map(|(_, passes)| *passes);
    let tried: BTreeSet<String> = of_hostd
        .chain(of_monitors)
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(there, tried);
}

#[test]
fn hostd_killed_at_each_step_of_a_creation_leaves_a_dyno_or_none() {
    try_all(&["create"]);
}

#[test]
fn hostd_killed_at_each_step_of_a_start_or_exec_leaves_one_dyno() {
    try_all(&["start", "exec"]);
}

#[test]
fn hostd_killed_at_each_step_of_a_stop_or_an_end_leaves_it_ended_once() {
    try_all(&["stop", "end", "lost"]);
}

#[test]
fn hostd_killed_at_each_step_of_a_removal_leaves_a_dyno_or_nothing() {
    try_all(&["remove"]);
}

#[test]
fn hostd_killed_at_each_step_of_a_change_leaves_the_old_or_the_new() {
    try_all(&["limit", "pause", "record", "drain", "drain_remove"]);
}

#[test]
fn hostd_killed_at_each_step_of_a_checkpoint_leaves_a_dyno_that_runs_or_can_come_back() {
    try_all(&["checkpoint", "checkpoint_remove", "restore"]);
}

#[test]
fn hostd_killed_at_each_step_with_a_volume_leaves_the_old_or_the_new() {
    try_all(&["volume", "volume_set", "volume_remove"]);
    try_all(&["snapshot", "snapshot_remove", "rollback"]);
}

#[test]
fn hostd_killed_at_each_step_of_a_backup_has_it_end() {
    try_all(&["backup"]);
}

#[test]
fn hostd_killed_at_each_step_with_a_secret_leaves_the_old_or_the_new() {
    try_all(&["secret", "secret_remove", "rotate"]);
}

#[test]
fn hostd_killed_at_each_step_of_an_import_leaves_an_image_or_none() {
    try_all(&["image", "image_remove"]);
}

#[test]
fn hostd_killed_at_each_step_of_its_recovery_recovers() {
    try_all(&["recover"]);
}

fn try_all(operations: &[&str]) {
    let mut stage = Stage::set();
    let points = points();
    for case in CASES.iter().filter(|case| operations.contains(&case.name)) {
        stage.rehearse(case);
        let bare = stage.look();
        for point in &points[case.name] {
            stage.play(case, point, &bare);
        }
    }
}

/// A host with a dyno that nobody asks anything of, and a folder that is none of its own.
struct Stage {
    host: Host,
    bystander: (Value, Value),
}

const CANARY: &str = "nobody's\n";

impl Stage {
    fn set() -> Self {
        let host = Host::with_busybox();
        std::fs::create_dir(host.path().join("canary")).unwrap();
        write_file(&host.path().join("canary/file"), CANARY);
        host.ok(&[
            "run",
            "-d",
            "--name",
            "bystander",
            "-p",
            "8080:80",
            "busybox",
            "sleep",
            "1000",
        ]);
        host.until_phase("bystander", "running");
        let bystander = processes(&host, "bystander");
        Self { host, bystander }
    }

    /// All goes well: what is there after that is what always is.
    fn rehearse(&mut self, case: &Case) {
        (case.before)(&self.host);
        if case.name == "recover" {
            self.host.kill();
            self.host.spawn_again();
            self.host.until_it_answers();
        }
        let output = (case.ask)(&self.host);
        assert!(output.status.success(), "{}: {output:?}", case.name);
        (case.after)(&self.host, true);
        (case.clean)(&self.host);
        self.until_at_rest();
    }

    fn until_at_rest(&self) {
        until("it is gone", || self.host.ids().len() == 1);
        until("the trash is empty", || !self.look().contains("trash/"));
    }

    fn play(&mut self, case: &Case, point: &str, bare: &Machine) {
        let begin = std::time::Instant::now();
        (case.before)(&self.host);
        let asked = match case.name == "recover" {
            true => {
                self.host.kill();
                self.host.arm(point);
                self.host.spawn_again();
                None
            }
            false => {
                self.host.arm(point);
                Some((case.ask)(&self.host))
            }
        };
        self.host.until_killed_at(point);
        self.host.spawn_again();
        self.host.until_it_answers();
        let said = asked.as_ref().map(stderr).unwrap_or_default();
        let done = asked.is_some_and(|output| output.status.success());
        eprintln!("{point}: acknowledged {done} {said}");
        (case.after)(&self.host, done);
        self.assert_all_as_before(case, point, bare);
        eprintln!("{point}: {:?}", begin.elapsed());
    }

    /// Whatever became of it, and nothing once it is removed.
    fn assert_all_as_before(&self, case: &Case, point: &str, bare: &Machine) {
        self.assert_sound(point);
        (case.clean)(&self.host);
        let mut left = Vec::new();
        until(&format!("after {point} all is as before"), || {
            let before = std::mem::replace(&mut left, self.look().difference(bare));
            if left != before {
                eprintln!("{point}: {left:?}");
            }
            left.is_empty()
        });
    }

    /// What holds whatever happens.
    fn assert_sound(&self, point: &str) {
        let bystander = processes(&self.host, "bystander");
        assert_eq!(bystander, self.bystander, "{point}: the bystander");
        let canary = self.host.path().join("canary");
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 1, "{point}");
        let canary = std::fs::read_to_string(canary.join("file")).unwrap();
        assert_eq!(canary, CANARY, "{point}");
        let dynos = get(&self.host, "/v1/dynos").remove(0);
        let dynos = dynos.as_array().unwrap();
        for field in ["id", "name", "ipv4", "uid_base"] {
            let all: Vec<String> = dynos
                .iter()
                .map(|dyno| record(&self.host, dyno)[field].to_string())
                .collect();
            let different: BTreeSet<&String> = all.iter().collect();
            assert_eq!(all.len(), different.len(), "{point}: {field} of {all:?}");
        }
        // One that is to run may be on its way.
        until(&format!("{point}: one monitor each"), || {
            let monitors = monitors(&self.host);
            let dynos = get(&self.host, "/v1/dynos").remove(0);
            let dynos = dynos.as_array().unwrap();
            let running = dynos
                .iter()
                .filter(|dyno| dyno["status"]["pid"].is_number());
            let ids: BTreeSet<&str> = running.map(|dyno| dyno["id"].as_str().unwrap()).collect();
            let have_one =
                |id: &&str| monitors.iter().filter(|line| line.contains(id)).count() == 1;
            ids.len() == monitors.len() && ids.iter().all(have_one)
        });
    }

    /// All there is but hostd's own process, which is another one each time.
    fn look(&self) -> Machine {
        let path = self.host.path();
        let folders = [path.join("run"), path.join("state")];
        let folders: Vec<&Path> = folders.iter().map(std::path::PathBuf::as_path).collect();
        Machine::look(&path.to_string_lossy(), &folders)
            .with_network()
            .without(|thing| thing.contains("hostd serve"))
    }
}

/// What its record has of a dyno.
fn record(host: &Host, dyno: &Value) -> Value {
    let folder = host.path().join("state/dynos");
    let record = folder.join(dyno["id"].as_str().unwrap()).join("dyno.json");
    serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap()
}

/// A dyno's first process and its monitor.
fn processes(host: &Host, name: &str) -> (Value, Value) {
    let status = &host.inspect(name)["status"];
    (status["pid"].clone(), status["monitor_pid"].clone())
}

/// The command lines of this host's monitors.
fn monitors(host: &Host) -> Vec<String> {
    let run = host.path().join("run/dynos");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(" monitor ") && line.contains(run.to_str().unwrap()))
        .collect()
}
