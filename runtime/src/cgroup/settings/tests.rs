//! The conversions, by tables.

use serde_json::{Value, json};

use super::*;

fn v1(_: Controller) -> Option<Version> {
    Some(Version::V1)
}

fn v2(_: Controller) -> Option<Version> {
    Some(Version::V2)
}

fn writes(
    resources: Value,
    version: &dyn Fn(Controller) -> Option<Version>,
) -> Result<Vec<(String, String)>> {
    let resources = serde_json::from_value(resources).unwrap();
    let settings = plan(&resources, version)?;
    Ok(settings
        .writes
        .into_iter()
        .map(|w| (w.files.join("|"), w.value))
        .collect())
}

fn all(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(file, value)| ((*file).to_owned(), (*value).to_owned()))
        .collect()
}

/// A file and its value.
type Pairs = &'static [(&'static str, &'static str)];

/// Resources, and what becomes of them on v1 and on v2.
fn table() -> Vec<(Value, Pairs, Pairs)> {
    vec![
        (
            json!({ "memory": { "limit": 1 << 20, "swap": 3 << 20, "reservation": 4096 } }),
            &[
                ("memory.limit_in_bytes", "1048576"),
                ("memory.memsw.limit_in_bytes", "3145728"),
                ("memory.soft_limit_in_bytes", "4096"),
            ],
            &[
                ("memory.max", "1048576"),
                ("memory.swap.max", "2097152"),
                ("memory.low", "4096"),
            ],
        ),
        (
            json!({ "memory": { "limit": -1, "swap": -1 } }),
            &[
                ("memory.limit_in_bytes", "-1"),
                ("memory.memsw.limit_in_bytes", "-1"),
            ],
            &[("memory.max", "max"), ("memory.swap.max", "max")],
        ),
        (
            json!({ "cpu": { "shares": 1024, "quota": 50000, "period": 100_000, "burst": 7 } }),
            &[
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_burst_us", "7"),
            ],
            &[
                ("cpu.weight", "100"),
                ("cpu.max", "50000 100000"),
                ("cpu.max.burst", "7"),
            ],
        ),
        (
            json!({ "cpu": { "cpus": "0-1", "idle": 1, "quota": 0, "shares": 0 } }),
            &[("cpu.idle", "1"), ("cpuset.cpus", "0-1")],
            &[("cpu.idle", "1"), ("cpuset.cpus", "0-1")],
        ),
        (
            json!({ "pids": { "limit": -1 } }),
            &[("pids.max", "max")],
            &[("pids.max", "max")],
        ),
        (
            json!({ "blockIO": {
                "weight": 10,
                "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1000 }],
                "throttleWriteIOPSDevice": [{ "major": 8, "minor": 0, "rate": 0 }],
            } }),
            &[
                ("blkio.bfq.weight|blkio.weight", "10"),
                ("blkio.throttle.read_bps_device", "8:0 1000"),
                ("blkio.throttle.write_iops_device", "8:0 0"),
            ],
            &[
                ("io.bfq.weight|io.weight", "1"),
                ("io.max", "8:0 rbps=1000"),
                ("io.max", "8:0 wiops=max"),
            ],
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] }),
            &[("hugetlb.2MB.limit_in_bytes", "0")],
            &[("hugetlb.2MB.max", "0")],
        ),
    ]
}

#[test]
fn every_limit_has_its_file_and_unit_on_both_versions() {
    for (resources, on_v1, on_v2) in table() {
        assert_eq!(
            writes(resources.clone(), &v1).unwrap(),
            all(on_v1),
            "{resources}"
        );
        assert_eq!(
            writes(resources.clone(), &v2).unwrap(),
            all(on_v2),
            "{resources}"
        );
    }
}

#[test]
fn what_a_version_lacks_is_refused_there_and_only_there() {
    let only_v1 = [
        json!({ "memory": { "swappiness": 1 } }),
        json!({ "memory": { "disableOOMKiller": true } }),
        json!({ "memory": { "kernelTCP": 4096 } }),
        json!({ "cpu": { "realtimeRuntime": 1000 } }),
    ];
    for resources in only_v1 {
        let error = writes(resources.clone(), &v2).unwrap_err();
        assert!(
            error.to_string().contains("cgroup v2 has no such setting"),
            "{error}"
        );
        assert_eq!(writes(resources, &v1).unwrap().len(), 1);
    }
    let only_v2 = json!({ "unified": { "io.max": "8:0 rbps=1\n8:16 rbps=2" } });
    assert_eq!(
        writes(only_v2.clone(), &v2).unwrap(),
        all(&[("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")])
    );
    assert!(
        writes(only_v2, &v1)
            .unwrap_err()
            .to_string()
            .contains("needs cgroup v2")
    );
}

#[test]
fn killing_the_group_is_the_kernels_on_v2_and_the_monitors_on_v1() {
    let resources = serde_json::from_value(json!({ "unified": { "memory.oom.group": "1" } }));
    let resources = resources.unwrap();
    let on_v2 = plan(&resources, &v2).unwrap();
    assert_eq!((on_v2.writes.len(), on_v2.monitor_kills_on_oom), (1, false));
    let on_v1 = plan(&resources, &v1).unwrap();
    assert_eq!((on_v1.writes.len(), on_v1.monitor_kills_on_oom), (0, true));
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let error = writes(json!({ "pids": { "limit": 5 } }), &|_| None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pids.limit 5 cannot be enforced: this host has no pids controller"
    );
}

#[test]
fn swap_below_memory_or_without_it_is_refused_on_v2() {
    let below = json!({ "memory": { "limit": 8192, "swap": 4096 } });
    assert!(
        writes(below, &v2)
            .unwrap_err()
            .to_string()
            .contains("at least memory.limit")
    );
    let alone = json!({ "memory": { "swap": 8192 } });
    assert!(
        writes(alone, &v2)
            .unwrap_err()
            .to_string()
            .contains("set memory.limit too")
    );
}

#[test]
fn shares_keep_their_ends_and_their_default_as_weights() {
    let weights = [0, 2, 1024, 262_144, u64::MAX].map(cpu::weight_of_shares);
    assert_eq!(weights, [1, 1, 100, 10_000, 10_000]);
}

#[test]
fn io_weights_keep_their_ends() {
    assert_eq!(io::io_weight("f", 10).unwrap(), 1);
    assert_eq!(io::io_weight("f", 1000).unwrap(), 10_000);
    assert!(io::io_weight("f", 9).is_err());
    assert!(io::io_weight("f", 1001).is_err());
}
