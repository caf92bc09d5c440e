//! A process in uninterruptible sleep, which no signal ends: it writes to a file system
//! that is frozen (fsfreeze(8)).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dyno_tests::host::Host;
use dyno_tests::{DEADLINE, until};

use crate::disks::{Disk, run};
use crate::rig::{assert_nothing_left, processes};

/// Writes to its volume all the time by itself.
const WRITER: &str = "while :; do echo x > /data/file; done";
/// Has a child do so, for which its end waits in the kernel.
const PARENT: &str = "while :; do dd if=/dev/zero of=/data/file bs=1 count=1 2>/dev/null; done";

#[test]
fn a_stop_that_meets_a_process_in_d_state_says_so_and_it_ends_once_it_can() {
    let stage = Stage::set();
    let host = &stage.host;
    stage.run_writer(WRITER);
    let neighbour = processes(host)["neighbour"].clone();
    let frozen = stage.freeze();
    stage.until_in_d_state();
    let begin = Instant::now();
    let (error, code) = host.fails(&["stop", "writer"]);
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    assert!(
        code == 1 && error.contains("hangs in the kernel"),
        "{error}"
    );
    let why = host.ok(&["why", "writer"]);
    assert!(why.contains("uninterruptible sleep"), "{why}");
    // What it has is nobody else's.
    let (taken, _) = host.fails(&["run", "-d", "--name", "writer", "busybox", "true"]);
    assert!(taken.contains("belongs to dyno"), "{taken}");
    assert_eq!(processes(host)["neighbour"], neighbour);
    host.ok(&["exec", "neighbour", "true"]);
    host.ok(&["run", "--rm", "busybox", "true"]);
    drop(frozen);
    host.until_phase("writer", "exited");
    assert_eq!(host.inspect("writer")["status"]["exit"]["signal"], 9);
    host.ok(&["rm", "writer"]);
    host.ok(&["rm", "-f", "neighbour"]);
    assert_nothing_left(host);
}

#[test]
fn a_removal_that_meets_a_process_in_d_state_is_refused_and_works_once_it_can() {
    let mut stage = Stage::set();
    stage.run_writer(PARENT);
    let frozen = stage.freeze();
    stage.until_in_d_state();
    let host = &stage.host;
    let is_refused = |host: &Host| {
        let begin = Instant::now();
        let (error, _) = host.fails(&["rm", "-f", "writer"]);
        assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
        assert!(error.contains("uninterruptible sleep"), "{error}");
        let (taken, _) = host.fails(&["run", "-d", "--name", "writer", "busybox", "true"]);
        assert!(taken.contains("belongs to dyno"), "{taken}");
        host.ok(&["exec", "neighbour", "true"]);
    };
    is_refused(host);
    // By now there is nothing of it but what hangs.
    is_refused(host);
    // Whoever comes next does not take it for gone either.
    stage.host.kill_and_restart();
    let host = &stage.host;
    is_refused(host);
    drop(frozen);
    until("it can be removed", || {
        host.run(&["rm", "-f", "writer"]).status.success()
    });
    let host = &stage.host;
    host.ok(&["rm", "-f", "neighbour"]);
    assert_nothing_left(host);
}

/// A host with volumes on a file system of their own. Its parts go in this order.
struct Stage {
    volumes: Bound,
    host: Host,
    _disk: Disk,
}

impl Stage {
    fn set() -> Self {
        let disk = Disk::new(&[]);
        let host = Host::with_busybox();
        let volumes = host.path().join("state/volumes");
        std::fs::create_dir_all(&volumes).unwrap();
        run(
            "mount",
            &[
                "--bind",
                &disk.path().to_string_lossy(),
                &volumes.to_string_lossy(),
            ],
        );
        host.ok(&[
            "run",
            "-d",
            "--name",
            "neighbour",
            "busybox",
            "sleep",
            "1000",
        ]);
        Self {
            volumes: Bound(volumes),
            host,
            _disk: disk,
        }
    }

    fn run_writer(&self, script: &str) {
        let options = [
            "run",
            "-d",
            "--name",
            "writer",
            "--restart",
            "always",
            "-v",
            "data:/data",
        ];
        let command = ["--stop-grace", "100ms", "busybox", "sh", "-c", script];
        self.host.ok(&[&options[..], &command].concat());
        self.host.until_phase("writer", "running");
    }

    fn freeze(&self) -> Frozen {
        run("fsfreeze", &["-f", &self.volumes.0.to_string_lossy()]);
        Frozen(self.volumes.0.clone())
    }

    fn until_in_d_state(&self) {
        let pid = self.host.inspect("writer")["status"]["pid"].to_string();
        let children = format!("/proc/{pid}/task/{pid}/children");
        until("it hangs", || {
            let children = std::fs::read_to_string(&children).unwrap_or_default();
            let mut all = children.split_whitespace().chain([pid.as_str()]);
            all.any(|pid| state(pid).as_deref() == Some("D"))
        });
    }
}

/// The third field of proc_pid_stat(5).
fn state(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').next().map(str::to_owned)
}

struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        Command::new("fsfreeze")
            .arg("-u")
            .arg(&self.0)
            .status()
            .ok();
    }
}
