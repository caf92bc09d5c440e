//! Cgroups against the kernel, as root, on whichever layout the machine has.
//!
//! Payloads are lines of `/bin/sh`, so that the same binary runs in an empty VM.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dyno_runtime::cgroup::{Cgroup, Controller, Error, Layout, detect, prune};
use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(20);

/// A cgroup under an outer folder of its own; both are gone afterwards.
struct Group {
    layout: Layout,
    outer: String,
    cgroup: Cgroup,
}

impl Group {
    fn new(resources: Value) -> Self {
        Self::on(detect().unwrap(), resources)
    }

    fn on(layout: Layout, resources: Value) -> Self {
        let outer = outer();
        let cgroup = Cgroup::create(&layout, &format!("{outer}/dynos/a"), &parse(resources));
        Self {
            layout,
            outer,
            cgroup: cgroup.unwrap(),
        }
    }

    /// Runs a shell line that waits until it is in the group.
    fn run(&self, line: &str) -> Running {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {line}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.cgroup.add(Pid::from_child(&child)).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Running(child)
    }

    fn folders(&self) -> Vec<PathBuf> {
        let record = self.cgroup.record();
        record
            .v2
            .iter()
            .chain(record.v1.values())
            .cloned()
            .collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.cgroup.kill().unwrap();
        self.cgroup.wait_empty(LONG).unwrap();
        self.cgroup.remove(LONG).unwrap();
        prune(&self.layout, &self.outer).unwrap();
        assert_nothing_left(&self.layout, &self.outer);
    }
}

/// A payload, killed and reaped with the test.
struct Running(Child);

impl Running {
    fn end(mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn outer() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "/dyno-test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn parse(resources: Value) -> LinuxResources {
    serde_json::from_value(resources).unwrap()
}

fn bases(layout: &Layout) -> Vec<PathBuf> {
    let v1 = match layout {
        Layout::Unified { .. } => BTreeMap::new(),
        Layout::Hybrid { controllers, .. } | Layout::Legacy { controllers } => controllers.clone(),
    };
    layout
        .v2()
        .map(Path::to_owned)
        .into_iter()
        .chain(v1.into_values())
        .collect()
}

fn assert_nothing_left(layout: &Layout, outer: &str) {
    for base in bases(layout) {
        let folder = base.join(outer.trim_start_matches('/'));
        assert!(!folder.exists(), "{} is left", folder.display());
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_group_exists_in_every_hierarchy_it_uses_until_it_is_removed() {
    let group = Group::new(json!({}));
    let folders = group.folders();
    assert!(!folders.is_empty());
    for folder in &folders {
        assert!(folder.join("cgroup.procs").exists(), "{}", folder.display());
    }
    group.cgroup.remove(LONG).unwrap();
    for folder in &folders {
        assert!(!folder.exists(), "{}", folder.display());
    }
    group.cgroup.remove(LONG).unwrap();
    group.cgroup.kill().unwrap();
    assert!(group.cgroup.procs().unwrap().is_empty());
    assert!(!group.cgroup.populated().unwrap());
}

#[test]
fn exceeding_memory_kills_and_wakes_the_watch() {
    let limit = 16 << 20;
    let group = Group::new(json!({ "memory": { "limit": limit, "swap": limit } }));
    let mut watch = group.cgroup.oom_watch().unwrap();
    assert_eq!(watch.count().unwrap(), 0);
    let hog = group.run("x=0123456789abcdef; while :; do x=$x$x; done");

    let mut fds = [PollFd::new(&watch, PollFlags::IN)];
    let timeout = Timespec::try_from(LONG).unwrap();
    assert_eq!(
        poll(&mut fds, Some(&timeout)).unwrap(),
        1,
        "the watch wakes"
    );
    assert_eq!(hog.end().signal(), Some(9), "the hog is killed");
    eventually("the event is counted", || watch.count().unwrap() > 0);

    let stats = group.cgroup.stats().unwrap();
    assert_eq!(stats.memory_max_bytes, Some(limit));
    if let Some(peak) = stats.memory_peak_bytes {
        assert!(peak > limit / 2 && peak <= limit, "{peak}");
    }
    let before = watch.count().unwrap();
    group.cgroup.remove(LONG).unwrap();
    assert_eq!(
        watch.count().unwrap(),
        before,
        "a removed group did not run out of memory"
    );
}

#[test]
fn memory_oom_group_is_the_kernels_or_the_monitors() {
    let group = Group::new(json!({ "unified": { "memory.oom.group": "1" } }));
    let v2 = group.cgroup.record().v2.clone().unwrap();
    match std::fs::read_to_string(v2.join("memory.oom.group")) {
        Ok(value) => {
            assert_eq!(value.trim(), "1");
            assert!(!group.cgroup.monitor_kills_on_oom());
        }
        Err(_) => assert!(group.cgroup.monitor_kills_on_oom()),
    }
}

#[test]
fn running_out_of_memory_ends_the_whole_group_where_that_was_asked_for() {
    let limit = 16 << 20;
    let group = Group::new(json!({
        "memory": { "limit": limit, "swap": limit },
        "unified": { "memory.oom.group": "1" },
    }));
    let mut watch = group.cgroup.oom_watch().unwrap();
    let bystander = group.run("sleep 60");
    let hog = group.run("x=0123456789abcdef; while :; do x=$x$x; done");
    if group.cgroup.monitor_kills_on_oom() {
        eventually("the event arrives", || watch.count().unwrap() > 0);
        group.cgroup.kill().unwrap();
    }
    assert_eq!(hog.end().signal(), Some(9));
    assert_eq!(bystander.end().signal(), Some(9));
}

#[test]
fn a_signal_reaches_every_process_of_the_group() {
    let group = Group::new(json!({}));
    let members = [
        group.run("sleep 60; sleep 60"),
        group.run("sleep 60; sleep 60"),
    ];
    eventually("all are there", || group.cgroup.procs().unwrap().len() == 4);
    group.cgroup.signal(Signal::TERM).unwrap();
    group.cgroup.wait_empty(LONG).unwrap();
    for member in members {
        assert_eq!(member.end().signal(), Some(15));
    }
}

#[test]
fn what_the_container_mounts_are_hierarchies_that_the_kernel_has() {
    let group = Group::new(json!({ "cpu": { "cpus": "0" } }));
    let mounts = group.cgroup.inner_mounts();
    assert!(mounts[0].folder.is_empty(), "{mounts:?}");
    for mount in &mounts {
        let context = fsopen(mount.fstype, FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for option in &mount.options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value).unwrap(),
                None => fsconfig_set_flag(&context, option.as_str()).unwrap(),
            }
        }
        fsconfig_create(&context).unwrap_or_else(|error| panic!("{mount:?}: {error}"));
        let root = fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        );
        let root = PathBuf::from(format!(
            "/proc/self/fd/{}",
            root.as_ref().unwrap().as_raw_fd()
        ));
        if mount.fstype != "tmpfs" {
            assert!(root.join("cgroup.procs").exists(), "{mount:?}");
        }
    }
    let names: Vec<_> = mounts
        .iter()
        .flat_map(|mount| mount.folder.split(','))
        .collect();
    for controller in group.cgroup.record().v1.keys() {
        assert!(names.contains(&controller.v1_name()), "{names:?}");
    }
}

#[test]
fn a_group_cannot_have_more_processes_than_its_limit() {
    let group = Group::new(json!({ "pids": { "limit": 4 } }));
    let bomb = group.run("for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait");
    let mut most = 0;
    eventually("the limit is reached", || {
        most = most.max(group.cgroup.stats().unwrap().pids.unwrap());
        most == 4
    });
    group.cgroup.kill().unwrap();
    assert!(!bomb.end().success());
    assert!(group.cgroup.stats().unwrap().pids.unwrap() <= 4);
}

#[test]
fn a_cpu_quota_holds_a_busy_loop_back() {
    let group = Group::new(json!({ "cpu": { "quota": 10_000, "period": 100_000 } }));
    let _busy = group.run("while :; do :; done");
    let usage = || group.cgroup.stats().unwrap();
    eventually("it was throttled", || usage().throttled_usec.unwrap() > 0);

    let (start, used) = (Instant::now(), usage().cpu_usec.unwrap());
    eventually("it used more", || usage().cpu_usec.unwrap() > used + 50_000);
    let share = (usage().cpu_usec.unwrap() - used) as f64 / start.elapsed().as_micros() as f64;
    assert!(share < 0.3, "10 % were granted, {share:.2} used");
}

#[test]
fn killing_reaches_a_group_that_keeps_forking() {
    let group = Group::new(json!({ "pids": { "limit": 200 } }));
    let bomb = group.run("while :; do (sleep 60 & (sleep 60 &)); done 2>/dev/null");
    eventually("it has many processes", || {
        group.cgroup.procs().unwrap().len() > 20
    });
    group.cgroup.kill().unwrap();
    group.cgroup.wait_empty(LONG).unwrap();
    assert_eq!(bomb.end().signal(), Some(9));
    assert!(group.cgroup.procs().unwrap().is_empty());
}

#[test]
fn a_frozen_group_stands_still_and_can_be_killed() {
    let group = Group::new(json!({}));
    let busy = group.run("while :; do :; done");
    let used = || group.cgroup.stats().unwrap().cpu_usec.unwrap();
    eventually("it runs", || used() > 10_000);
    group.cgroup.freeze(LONG).unwrap();
    let before = used();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(used(), before, "frozen");
    group.cgroup.thaw().unwrap();
    eventually("it runs again", || used() > before);

    group.cgroup.freeze(LONG).unwrap();
    group.cgroup.kill().unwrap();
    group.cgroup.wait_empty(LONG).unwrap();
    assert_eq!(busy.end().signal(), Some(9));
}

#[test]
fn waiting_for_an_inhabited_group_ends_with_its_deadline() {
    let group = Group::new(json!({}));
    let _sleeper = group.run("sleep 60");
    let short = Duration::from_millis(50);
    assert!(matches!(
        group.cgroup.wait_empty(short),
        Err(Error::Timeout { .. })
    ));
    assert!(matches!(
        group.cgroup.remove(short),
        Err(Error::Timeout { .. })
    ));
}

#[test]
fn groups_that_the_container_made_are_counted_killed_and_removed_too() {
    let group = Group::new(json!({}));
    let v2 = group.cgroup.record().v2.clone().unwrap();
    std::fs::create_dir_all(v2.join("x/y")).unwrap();
    let sleeper = group.run("sleep 60");
    let procs = v2.join("x/y/cgroup.procs");
    let mut file = std::fs::OpenOptions::new().write(true).open(procs).unwrap();
    file.write_all(sleeper.0.id().to_string().as_bytes())
        .unwrap();
    assert!(group.cgroup.populated().unwrap());
    assert!(
        group
            .cgroup
            .procs()
            .unwrap()
            .contains(&Pid::from_child(&sleeper.0))
    );
    group.cgroup.kill().unwrap();
    group.cgroup.wait_empty(LONG).unwrap();
    assert_eq!(sleeper.end().signal(), Some(9));
    group.cgroup.remove(LONG).unwrap();
    assert!(!v2.exists());
}

#[test]
fn what_cannot_be_enforced_is_refused_and_nothing_is_left() {
    let layout = detect().unwrap();
    let refused = [
        (json!({ "memory": { "limit": 0 } }), "memory.limit 0"),
        (json!({ "memory": { "limit": 1024 } }), "memory.limit 1024"),
        (
            json!({ "memory": { "limit": 1 << 30, "swap": 1 << 20 } }),
            "memory.swap 1048576",
        ),
        (
            json!({ "memory": { "kernel": 1 << 20 } }),
            "memory.kernel 1048576",
        ),
        (
            json!({ "memory": { "limit": 1 << 30, "useHierarchy": false } }),
            "memory.useHierarchy",
        ),
        (json!({ "pids": { "limit": 0 } }), "pids.limit 0"),
        (
            json!({ "cpu": { "quota": 1, "period": 100_000 } }),
            "cpu.quota",
        ),
        (json!({ "cpu": { "cpus": "4000" } }), "cpu.cpus"),
        (json!({ "cpu": { "cpus": "zero" } }), "cpu.cpus zero"),
        (
            json!({ "blockIO": { "leafWeight": 10 } }),
            "blockIO.leafWeight 10",
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 0 }] }),
            "hugepageLimits[3MB]",
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "../2MB", "limit": 0 }] }),
            "hugepageLimits",
        ),
        (json!({ "network": { "classID": 1 } }), "network"),
        (
            json!({ "unified": { "cgroup.procs": "1" } }),
            "unified[cgroup.procs] 1",
        ),
        (
            json!({ "unified": { "memory.no_such_file": "1" } }),
            "unified[memory.no_such_file]",
        ),
        (json!({ "unified": { "../cpu.max": "max" } }), "unified"),
    ];
    for (resources, expected) in refused {
        // Something valid first, so that there is something to undo.
        let mut resources = resources;
        if resources.get("pids").is_none() {
            resources["pids"] = json!({ "limit": 10 });
        }
        let outer = outer();
        let path = format!("{outer}/dynos/a");
        let error = Cgroup::create(&layout, &path, &parse(resources.clone())).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(expected), "{resources}: {message}");
        assert_nothing_left(&layout, &outer);
    }
}

#[test]
fn an_inhabited_group_is_not_taken_over_but_an_empty_one_is_replaced() {
    let group = Group::new(json!({ "pids": { "limit": 7 } }));
    let path = format!("{}/dynos/a", group.outer);
    let again = Cgroup::create(&group.layout, &path, &parse(json!({}))).unwrap();
    assert_eq!(again.record(), group.cgroup.record());

    let sleeper = group.run("sleep 60");
    let error = Cgroup::create(&group.layout, &path, &parse(json!({}))).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(
        group
            .cgroup
            .procs()
            .unwrap()
            .contains(&Pid::from_child(&sleeper.0))
    );
}

#[test]
fn an_update_changes_limits_and_a_refused_one_changes_none() {
    let group = Group::new(json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 10 } }));
    let max = || group.cgroup.stats().unwrap().memory_max_bytes;
    assert_eq!(max(), Some(64 << 20));
    group
        .cgroup
        .update(&parse(json!({ "memory": { "limit": 128 << 20 } })))
        .unwrap();
    assert_eq!(max(), Some(128 << 20));

    let bad =
        json!({ "memory": { "limit": 32 << 20 }, "cpu": { "quota": 1, "period": 1_000_000 } });
    let error = group.cgroup.update(&parse(bad)).unwrap_err();
    assert!(error.to_string().contains("cpu.quota") || error.to_string().contains("cpu.period"));
    assert_eq!(max(), Some(128 << 20), "the memory limit was put back");

    group
        .cgroup
        .update(&parse(json!({ "memory": { "limit": -1 } })))
        .unwrap();
    assert_eq!(max(), None);
}

#[test]
fn memory_and_swap_limits_can_move_up_and_down_together() {
    let limits = |limit: i64| json!({ "memory": { "limit": limit, "swap": limit + (1 << 20) } });
    let group = Group::new(limits(64 << 20));
    for limit in [256_i64 << 20, 32 << 20] {
        group.cgroup.update(&parse(limits(limit))).unwrap();
        assert_eq!(
            group.cgroup.stats().unwrap().memory_max_bytes,
            u64::try_from(limit).ok()
        );
    }
}

#[test]
fn a_recorded_group_can_be_opened_again() {
    let group = Group::new(json!({}));
    let text = serde_json::to_string(group.cgroup.record()).unwrap();
    let reopen = || Cgroup::open(serde_json::from_str(&text).unwrap()).unwrap();
    let again = reopen();
    let sleeper = group.run("sleep 60");
    assert_eq!(again.procs().unwrap(), group.cgroup.procs().unwrap());
    again.kill().unwrap();
    again.wait_empty(LONG).unwrap();
    assert_eq!(sleeper.end().signal(), Some(9));

    std::fs::remove_dir(again.record().v2.as_ref().unwrap()).unwrap();
    let rest = reopen();
    assert!(!rest.populated().unwrap());
    rest.kill().unwrap();
    rest.remove(LONG).unwrap();
    assert!(group.folders().iter().all(|folder| !folder.exists()));
}

#[test]
fn a_process_that_joins_for_tracking_leaves_the_base_where_it_was() {
    let layout = detect().unwrap();
    let outer = outer();
    let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_child(&child);
    let running = Running(child);
    dyno_runtime::cgroup::join(&layout, &format!("{outer}/monitors"), pid).unwrap();
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    assert!(own.contains(&format!("{outer}/monitors")), "{own}");
    assert_eq!(dyno_runtime::cgroup::detect_of(pid).unwrap(), layout);
    drop(running);
    eventually("the folder can go", || prune(&layout, &outer).is_ok());
    assert_nothing_left(&layout, &outer);
}

/// A v1 hierarchy of controllers that v2 does not have, so that it can be mounted on
/// any machine: a detached mount, gone with its descriptor.
fn v1_mount(controller: &str) -> OwnedFd {
    let context = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_flag(&context, controller).unwrap();
    fsconfig_create(&context).unwrap();
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap()
}

#[test]
fn a_host_without_v2_freezes_and_kills_through_the_v1_freezer() {
    let mounts = [
        (Controller::Freezer, v1_mount("freezer")),
        (Controller::Devices, v1_mount("devices")),
        (Controller::Cpuacct, v1_mount("cpuacct")),
    ];
    let base = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let controllers = mounts
        .iter()
        .map(|(controller, fd)| (*controller, base(fd)))
        .collect();
    let layout = Layout::Legacy { controllers };
    let group = Group::on(layout.clone(), json!({}));

    let used = || group.cgroup.stats().unwrap().cpu_usec.unwrap();
    let bomb = group.run("while :; do (sleep 60 & (sleep 60 &)); test -e /dev/null; done");
    eventually("it has many processes", || {
        group.cgroup.procs().unwrap().len() > 20
    });
    group.cgroup.freeze(LONG).unwrap();
    let (before, members) = (used(), group.cgroup.procs().unwrap().len());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        (used(), group.cgroup.procs().unwrap().len()),
        (before, members),
        "frozen"
    );
    group.cgroup.kill().unwrap();
    group.cgroup.wait_empty(LONG).unwrap();
    assert_eq!(bomb.end().signal(), Some(9));

    let outer = outer();
    let memory = parse(json!({ "memory": { "limit": 1 << 30 } }));
    let error = Cgroup::create(&layout, &format!("{outer}/a"), &memory).unwrap_err();
    assert!(
        error.to_string().contains("no memory controller"),
        "{error}"
    );
    assert_nothing_left(&layout, &outer);
}
