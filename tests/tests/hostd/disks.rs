//! The disk of the state folder at its worst: it fails, its file system becomes read-only,
//! its inodes are gone. The kernel says so, of a file system on a loop device.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dyno_tests::host::{Host, own_network, serve};
use dyno_tests::{Folder, must_be_root, until, write_file};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::{curl, names, processes};

const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.2; done";

#[test]
fn a_disk_that_fails_refuses_changes_and_has_what_was_acknowledged() {
    fails_and_is_replaced(&["Input/output error", "Read-only file system"], Disk::fail);
}

#[test]
fn a_file_system_that_becomes_read_only_refuses_changes_and_has_what_was_acknowledged() {
    fails_and_is_replaced(&["Read-only file system"], Disk::become_read_only);
}

fn fails_and_is_replaced(reasons: &[&str], fail: fn(&Disk)) {
    let mut disk = Disk::new(&[]);
    let mut host = disk.host();
    for name in ["web", "other"] {
        host.ok(&["run", "-d", "--name", name, "busybox", "sh", "-c", COUNT]);
    }
    host.ok(&["stop", "-t", "0", "other"]);
    host.ok(&["volume", "create", "data"]);
    let before = processes(&host);
    fail(&disk);
    let names_it = |said: &str| reasons.iter().any(|reason| said.contains(reason));
    for change in [
        &["volume", "create", "late"][..],
        &["start", "other"],
        &["run", "-d", "--name", "late", "busybox", "sleep", "1000"],
        &["limit", "--pids", "77", "web"],
        &["secret", "set", "late", "--file", "/etc/hostname"],
    ] {
        let (error, _) = host.fails(change);
        assert!(names_it(&error), "{change:?}: {error}");
    }
    // It is not given work, and says why.
    until("it is not ready", || {
        let (status, readiness) = readyz(&host);
        status == 503 && names_it(&readiness.to_string())
    });
    // What runs goes on, and can be looked at and ended.
    assert_eq!(processes(&host), before);
    host.ok(&["ps"]);
    host.ok(&["logs", "web"]);
    host.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(host.inspect("web")["status"]["phase"], "exited");
    host.kill();
    disk.replace();
    host.spawn_again();
    host.until_it_answers();
    // Whether the stop was recorded depends on the disk; who it was of does not.
    assert_eq!(host.ids().len(), 2);
    let status = &host.inspect("other")["status"];
    assert_eq!(status["phase"], "exited", "{status}");
    let volumes = host.ok(&["volume", "ls", "-q"]);
    assert_eq!(volumes, "data");
    until("it is ready", || readyz(&host).0 == 200);
    host.ok(&["run", "--rm", "busybox", "true"]);
}

#[test]
fn inodes_that_are_gone_by_themselves_are_named_and_missed_no_more_once_there_are_some() {
    let disk = Disk::new(&["-N", "512"]);
    let host = disk.host();
    host.ok(&["run", "-d", "--name", "web", "busybox", "sh", "-c", COUNT]);
    let before = processes(&host);
    let filler = disk.folder.path().join("disk/filler");
    fs::create_dir(&filler).unwrap();
    let gone = (0..).find_map(|number| File::create(filler.join(number.to_string())).err());
    assert_eq!(gone.unwrap().kind(), io::ErrorKind::StorageFull);
    for change in [
        &["volume", "create", "late"][..],
        &["run", "-d", "--name", "late", "busybox", "sleep", "1000"],
    ] {
        let (error, _) = host.fails(change);
        assert!(error.contains("inodes"), "{change:?}: {error}");
    }
    let (status, readiness) = readyz(&host);
    assert!(
        status == 503 && readiness.to_string().contains("inodes"),
        "{readiness}"
    );
    assert_eq!(processes(&host), before);
    host.ok(&["stop", "-t", "0", "web"]);
    let record = host.path().join("state/dynos");
    let record = record.join(host.inspect("web")["id"].as_str().unwrap());
    let recorded = || -> Value {
        serde_json::from_slice(&fs::read(record.join("dyno.json")).unwrap()).unwrap()
    };
    assert_eq!(
        recorded()["wanted"],
        "running",
        "there is no room for another"
    );
    fs::remove_dir_all(&filler).unwrap();
    until("that it was stopped is recorded", || {
        recorded()["wanted"] == "stopped" && recorded()["rest"] == "exited"
    });
    host.ok(&["rm", "web"]);
    assert_eq!(readyz(&host).0, 200);
    host.ok(&["run", "--rm", "busybox", "true"]);
    assert!(names(&host, "state/dynos").is_empty());
}

/// Status and body of `GET /readyz`.
fn readyz(host: &Host) -> (u16, Value) {
    let answer = curl(host, "/readyz")
        .args(["-w", "\n%{http_code}"])
        .output();
    let answer = String::from_utf8(answer.unwrap().stdout).unwrap();
    let (body, status) = answer.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// An ext4 in memory, mounted for this thread and what it starts.
pub(crate) struct Disk {
    memory: OwnedFd,
    device: String,
    folder: Folder,
}

const BYTES: u64 = 96 << 20;

impl Disk {
    pub(crate) fn new(options: &[&str]) -> Self {
        must_be_root();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        run("mount", &["--make-rprivate", "/"]);
        let memory = memory();
        run(
            "mkfs.ext4",
            &[&["-q", "-F"], options, &[&path_of(&memory)]].concat(),
        );
        let folder = Folder::new();
        fs::create_dir(folder.path().join("disk")).unwrap();
        let device = attach(&memory);
        let disk = Self {
            memory,
            device,
            folder,
        };
        disk.mount();
        disk
    }

    /// A hostd whose state is here.
    fn host(&self) -> Host {
        own_network();
        let folder = Folder::new();
        symlink(self.path(), folder.path().join("state")).unwrap();
        let log = File::create(folder.path().join("hostd.log")).unwrap();
        let hostd = serve(folder.path())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        let host = Host::of(hostd.unwrap(), folder);
        host.until_it_answers();
        host.import_busybox();
        host
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn mount(&self) {
        let path = self.path().display().to_string();
        run("mount", &["-o", "errors=remount-ro", &self.device, &path]);
    }

    /// From now on each write to it is an error (EIO).
    fn fail(&self) {
        fcntl_add_seals(&self.memory, SealFlags::WRITE).unwrap();
    }

    /// As if something were wrong in it.
    fn become_read_only(&self) {
        let name = Path::new(&self.device).file_name().unwrap();
        let errors = Path::new("/sys/fs/ext4")
            .join(name)
            .join("trigger_fs_error");
        write_file(&errors, "a test's");
    }

    /// Puts another one with what was on it in its place. Monitors have files on it: as at
    /// a start of the machine, none is left.
    fn replace(&mut self) {
        for pid in monitors(&self.path()) {
            kill_process(pid, Signal::KILL).unwrap();
        }
        until("none is left", || monitors(&self.path()).is_empty());
        run("umount", &[&self.path().display().to_string()]);
        run("losetup", &["-d", &self.device]);
        let mut copy = File::from(memory());
        io::copy(
            &mut File::open(path_of(&self.memory)).unwrap().take(BYTES),
            &mut copy,
        )
        .unwrap();
        self.memory = copy.into();
        let mended = Command::new("e2fsck")
            .args(["-p", &path_of(&self.memory)])
            .status();
        assert!(mended.unwrap().code() <= Some(1));
        self.device = attach(&self.memory);
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = self.path().display().to_string();
        Command::new("umount").args(["-l", &path]).status().ok();
        Command::new("losetup")
            .args(["-d", &self.device])
            .status()
            .ok();
    }
}

fn memory() -> OwnedFd {
    let memory = memfd_create("disk", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, BYTES).unwrap();
    memory
}

fn path_of(memory: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd())
}

fn attach(memory: &OwnedFd) -> String {
    let output = Command::new("losetup")
        .args(["--find", "--show", &path_of(memory)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Those with files below this folder.
fn monitors(folder: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
            let is_there = |file: fs::DirEntry| {
                fs::read_link(file.path()).is_ok_and(|link| link.starts_with(folder))
            };
            files.any(is_there).then(|| Pid::from_raw(number))?
        })
        .filter(|pid| *pid != rustix::process::getpid())
        .collect()
}

#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
