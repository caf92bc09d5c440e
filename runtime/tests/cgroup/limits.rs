//! Limits: in force, refused, changed.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use dyno_runtime::cgroup::{Cgroup, Controller, detect};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::fixture::{Group, LONG, assert_nothing_left, eventually, outer, parse};

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
fn what_cannot_be_enforced_is_refused_and_nothing_is_left() {
    let layout = detect().unwrap();
    let refused = [
        (json!({ "memory": { "limit": 1024 } }), "memory.limit 1024"),
        (
            json!({ "memory": { "limit": 1 << 30, "swap": 1 << 20 } }),
            "memory.swap 1048576",
        ),
        (
            json!({ "memory": { "swappiness": 200 } }),
            "memory.swappiness 200",
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
fn an_update_refuses_what_only_creation_can_have() {
    let group = Group::new(json!({ "cpu": { "quota": 50_000, "period": 100_000 } }));
    let _fat = group.run("x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do x=$x$x; done; sleep 60");
    let update = |resources| group.cgroup.update(&parse(resources));
    let tiny = json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } });
    eventually("it uses memory", || {
        group.cgroup.stats().unwrap().memory_bytes > Some(4096)
    });
    let error = update(tiny).unwrap_err().to_string();
    assert!(error.contains("bytes are in use"), "{error}");

    let on_v1 = group.cgroup.record().v1.contains_key(&Controller::Memory);
    let group_kill = update(json!({ "unified": { "memory.oom.group": "1" } }));
    assert_eq!(
        group_kill.is_ok(),
        !on_v1,
        "nobody watches yet: {group_kill:?}"
    );
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

/// A file of the group, by its v1 and its v2 name.
fn file(group: &Group, controller: Controller, v1: &str, v2: &str) -> String {
    let record = group.cgroup.record();
    let path = match record.v1.get(&controller) {
        Some(folder) => folder.join(v1),
        None => record.v2.as_ref().unwrap().join(v2),
    };
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn an_update_of_the_period_keeps_the_quota() {
    let group = Group::new(json!({ "cpu": { "quota": 50_000, "period": 100_000 } }));
    let both = || {
        let quota = file(&group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
        let period = file(&group, Controller::Cpu, "cpu.cfs_period_us", "cpu.max");
        let first = |text: &str| text.split(' ').next().unwrap().to_owned();
        (
            first(&quota),
            period.split(' ').next_back().unwrap().to_owned(),
        )
    };
    let update = |cpu| group.cgroup.update(&parse(json!({ "cpu": cpu }))).unwrap();
    update(json!({ "period": 200_000 }));
    assert_eq!(both(), ("50000".into(), "200000".into()));
    update(json!({ "quota": 30_000 }));
    assert_eq!(both(), ("30000".into(), "200000".into()));
    update(json!({ "quota": 400_000, "period": 400_000, "burst": 1000 }));
    assert_eq!(both(), ("400000".into(), "400000".into()));
}

/// Each value is one that the kernel takes; the last is not, so that all are put back,
/// whichever version holds them.
#[test]
fn a_refused_update_leaves_every_file_as_it_was() {
    let limit = 64_i64 << 20;
    let group = Group::new(json!({
        "memory": { "limit": limit, "swap": limit, "reservation": limit / 2 },
        "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 },
        "pids": { "limit": 10 },
    }));
    let content = || {
        let mut all = Vec::new();
        for folder in group.folders() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let limits = [
                    "max",
                    "limit_in_bytes",
                    "low",
                    "weight",
                    "shares",
                    "_us",
                    "oom_control",
                ];
                if limits.iter().any(|end| name.ends_with(end)) {
                    all.push((name, std::fs::read_to_string(&path).unwrap()));
                }
            }
        }
        all.sort();
        all
    };
    let before = content();
    assert!(before.len() > 5, "{before:?}");
    let on_v1 = group.cgroup.record().v1.contains_key(&Controller::Memory);
    let mut update = json!({
        "memory": { "limit": 4 * limit, "swap": 5 * limit, "reservation": limit },
        "cpu": { "shares": 2048, "quota": 80_000, "period": 200_000, "cpus": "4000" },
        "pids": { "limit": 20 },
    });
    if on_v1 {
        update["memory"]["disableOOMKiller"] = json!(true);
    }
    let error = group.cgroup.update(&parse(update.clone())).unwrap_err();
    assert!(error.to_string().contains("cpu.cpus"), "{error}");
    assert_eq!(content(), before);
    update["cpu"]["cpus"] = json!("0");
    group.cgroup.update(&parse(update)).unwrap();
    assert_ne!(content(), before, "the control: without it all is taken");
}

#[test]
fn all_that_is_counted_is_read_whichever_version_counts_it() {
    let limit = 64 << 20;
    let group = Group::new(json!({
        "memory": { "limit": limit, "swap": limit },
        "cpu": { "quota": 10_000, "period": 100_000, "cpus": "0" },
        "pids": { "limit": 7 },
    }));
    let _busy = group.run("x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do x=$x$x; done; while :; do :; done");
    let usage = || group.cgroup.usage().unwrap();
    eventually("it was throttled", || {
        let cpu = usage().cpu;
        cpu.throttling.throttled_time > 0
            && cpu.throttling.throttled_periods > 0
            && cpu.throttling.periods >= cpu.throttling.throttled_periods
    });
    eventually("its memory is counted", || usage().memory.usage.usage > 0);
    let seen = usage();
    let few = group.cgroup.stats().unwrap();
    assert!(seen.cpu.usage.total > 1_000_000, "{:?}", seen.cpu);
    assert!(
        seen.cpu.usage.user + seen.cpu.usage.kernel > 0,
        "{:?}",
        seen.cpu
    );
    assert_eq!((seen.pids.current, seen.pids.limit), (1, 7));
    assert_eq!(Some(seen.memory.usage.limit), few.memory_max_bytes);
    assert_eq!(seen.memory.swap.limit, limit, "memory and swap together");
    assert!(seen.memory.raw.contains_key("pgfault"));
    let v2 = group.cgroup.record().v2.clone().unwrap();
    assert_eq!(seen.cpu.psi.is_some(), v2.join("cpu.pressure").exists());
    if group.cgroup.record().v1.contains_key(&Controller::Cpuset) {
        assert_eq!(seen.cpuset.cpus, [0]);
    }
    group.cgroup.kill().unwrap();
    group.cgroup.wait_empty(LONG).unwrap();
    group.cgroup.remove(LONG).unwrap();
    assert_eq!(usage(), dyno_runtime::cgroup::usage::Usage::default());
}
