//! Where a group is made, and what is left of it.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dyno_runtime::cgroup::{Cgroup, Controller, Error, Layout, detect, detect_of, join, prune};
use rustix::fs::{XattrFlags, setxattr};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::Pid;
use serde_json::json;

use super::fixture::{Group, LONG, Running, assert_nothing_left, eventually, outer, parse};

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
fn the_kernel_fills_the_cpusets_of_those_who_come_later() {
    let group = Group::new(json!({}));
    let Some(cpuset) = group.cgroup.record().v1.get(&Controller::Cpuset) else {
        // v2 has no lists to fill.
        assert!(group.cgroup.record().v2.is_some());
        return;
    };
    let dynos = cpuset.parent().unwrap();
    let read = |folder: &Path, name| fs::read_to_string(folder.join(name)).unwrap();
    for outer in [dynos, dynos.parent().unwrap()] {
        assert_eq!(read(outer, "cgroup.clone_children"), "1\n", "{outer:?}");
    }
    // As the kernel leaves it, without a word of ours.
    let later = dynos.join("later");
    fs::create_dir(&later).unwrap();
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let list = read(&later, name);
        assert_ne!(list.trim(), "", "{name}");
        assert_eq!(list, read(cpuset, name), "{name}");
    }
    fs::remove_dir(&later).unwrap();
}

#[test]
fn a_cpuset_is_filled_through_outer_ones_that_are_empty() {
    let group = Group::new(json!({}));
    let Some(cpuset) = group.cgroup.record().v1.get(&Controller::Cpuset) else {
        assert!(group.cgroup.record().v2.is_some());
        return;
    };
    // Somebody else's, who has not filled it yet.
    let others = cpuset.parent().unwrap().join("others");
    fs::create_dir(&others).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(others.join("cgroup.clone_children"))
        .and_then(|mut file| file.write_all(b"0"))
        .unwrap();
    let nested = others.join("empty");
    fs::create_dir(&nested).unwrap();
    assert_eq!(
        fs::read_to_string(nested.join("cpuset.cpus")).unwrap(),
        "\n"
    );
    let path = format!("{}/dynos/others/empty/b", group.outer);
    let inner = Cgroup::create(&group.layout, &path, &parse(json!({}))).unwrap();
    let list = fs::read_to_string(nested.join("b/cpuset.cpus")).unwrap();
    assert_eq!(
        list,
        fs::read_to_string(cpuset.join("cpuset.cpus")).unwrap()
    );
    let flag = fs::read_to_string(nested.join("cgroup.clone_children")).unwrap();
    assert_eq!(flag, "0\n", "it is not ours to change");
    inner.remove(LONG).unwrap();
    prune(&group.layout, &format!("{}/dynos/others", group.outer)).unwrap();
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
fn a_process_that_joins_for_tracking_leaves_the_base_where_it_was() {
    let layout = detect().unwrap();
    let outer = outer();
    let (_, running) = inhabited(&layout, &format!("{outer}/monitors"));
    let pid = Pid::from_child(&running.0);
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    assert!(own.contains(&format!("{outer}/monitors")), "{own}");
    assert_eq!(detect_of(pid).unwrap(), layout);
    drop(running);
    eventually("the folder can go", || prune(&layout, &outer).is_ok());
    assert_nothing_left(&layout, &outer);
}

/// A folder of the v2 tree with a process in it.
fn inhabited(layout: &Layout, path: &str) -> (PathBuf, Running) {
    let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    join(layout, path, Pid::from_child(&child)).unwrap();
    (
        layout.v2().unwrap().join(path.trim_start_matches('/')),
        Running(child),
    )
}

#[test]
fn the_base_is_the_nearest_cgroup_that_was_delegated() {
    let layout = detect().unwrap();
    let outer = outer();
    let (inner, running) = inhabited(&layout, &format!("{outer}/unit/a/b"));
    let unit = inner.ancestors().nth(2).unwrap();
    let base = || {
        detect_of(Pid::from_child(&running.0))
            .unwrap()
            .v2()
            .unwrap()
            .to_owned()
    };
    assert_eq!(base(), layout.v2().unwrap(), "without the mark");
    // What systemd does for Delegate=yes.
    setxattr(unit, "trusted.delegate", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(base(), unit);
    drop(running);
    eventually("the folders can go", || prune(&layout, &outer).is_ok());
}

/// cgroup-v2.rst, "No Internal Process Constraint": where controllers are handed down.
#[test]
fn a_base_that_holds_processes_is_refused_where_it_could_not_limit() {
    let group = Group::new(json!({}));
    let (base, running) = inhabited(&group.layout, &format!("{}/inhabited", group.outer));
    let layout = match &group.layout {
        Layout::Unified { .. } => Layout::Unified { root: base.clone() },
        Layout::Hybrid { controllers, .. } => Layout::Hybrid {
            v2: base.clone(),
            controllers: controllers.clone(),
        },
        Layout::Legacy { .. } => panic!("this test needs a v2 tree"),
    };
    let path = format!("{}/below", group.outer);
    let made = Cgroup::create(&layout, &path, &parse(json!({ "pids": { "limit": 5 } })));
    if matches!(layout, Layout::Unified { .. }) {
        let error = made.unwrap_err().to_string();
        assert!(error.contains("holds processes itself"), "{error}");
        assert!(!base.join(path.trim_start_matches('/')).exists());
    } else {
        made.unwrap().remove(LONG).unwrap();
    }
    drop(running);
    eventually("the folders can go", || {
        prune(&layout, &group.outer).is_ok()
    });
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

/// config-linux.md, "Cgroup ownership"; the spec wants nothing of it where v1 is used.
#[test]
fn a_group_that_is_given_away_can_be_divided_and_its_limits_cannot_be_lifted() {
    use std::os::unix::fs::MetadataExt;
    let group = Group::new(json!({ "pids": { "limit": 7 } }));
    group.cgroup.delegate_to(77_777).unwrap();
    let v2 = group.cgroup.record().v2.clone().unwrap();
    let owner = |path: PathBuf| std::fs::metadata(path).unwrap().uid();
    let expected = match group.layout {
        Layout::Unified { .. } => 77_777,
        _ => 0,
    };
    assert_eq!(owner(v2.clone()), expected);
    for name in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(owner(v2.join(name)), expected, "{name}");
    }
    for name in [
        "cgroup.kill",
        "cgroup.freeze",
        "cgroup.max.depth",
        "pids.max",
    ] {
        let path = v2.join(name);
        assert!(!path.exists() || owner(path) == 0, "{name}");
    }
}
