//! The processes of a group: signalled, frozen, killed, waited for.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use dyno_runtime::cgroup::{Cgroup, Error};
use rustix::process::{Pid, Signal};
use serde_json::json;

use super::fixture::{Group, LONG, eventually};

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

/// What is frozen says that it is not any more, and at once that it is empty: the
/// kernel puts the second off by ten milliseconds, and forgets it where the group is
/// removed meanwhile.
#[test]
fn whoever_waits_for_a_group_that_another_one_removes_is_not_forgotten() {
    for _ in 0..10 {
        let group = Group::new(json!({}));
        let sleeper = group.run("sleep 60");
        group.cgroup.freeze(LONG).unwrap();
        let record = serde_json::to_string(group.cgroup.record()).unwrap();
        let (told, hears) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            let again = Cgroup::open(serde_json::from_str(&record).unwrap()).unwrap();
            told.send(()).unwrap();
            again.wait_empty(Duration::from_secs(3600)).unwrap();
            told.send(()).unwrap();
        });
        hears.recv().unwrap();
        group.cgroup.kill().unwrap();
        assert_eq!(sleeper.end().signal(), Some(9));
        group.cgroup.remove(LONG).unwrap();
        hears.recv_timeout(LONG).unwrap();
        waits.join().unwrap();
    }
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
fn a_recorded_group_can_be_opened_again() {
    let group = Group::new(json!({}));
    let text = serde_json::to_string(group.cgroup.record()).unwrap();
    let reopen = || Cgroup::open(serde_json::from_str(&text).unwrap()).unwrap();
    let again = reopen();
    let sleeper = group.run("exec sleep 60");
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
