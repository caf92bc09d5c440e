//! The conversions, by tables.

use serde_json::{Value, json};

use super::*;

fn v1(_: Controller) -> Option<Version> {
    Some(Version::V1)
}

fn v2(_: Controller) -> Option<Version> {
    Some(Version::V2)
}

fn settle(
    resources: Value,
    version: &dyn Fn(Controller) -> Option<Version>,
    current: Option<&Current>,
) -> Result<Vec<(String, String)>> {
    let resources = serde_json::from_value(resources).unwrap();
    let settings = plan(&resources, version, current)?;
    let text = |setting: Setting| {
        let (files, values): (Vec<_>, Vec<_>) = setting.choices.into_iter().unzip();
        let same = values.iter().all(|value| *value == values[0]);
        let value = if same {
            values[0].clone()
        } else {
            values.join("|")
        };
        (files.join("|"), value)
    };
    Ok(settings.writes.into_iter().map(text).collect())
}

fn writes(
    resources: Value,
    version: &dyn Fn(Controller) -> Option<Version>,
) -> Result<Vec<(String, String)>> {
    settle(resources, version, None)
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
                ("io.bfq.weight|io.weight", "10|1"),
                ("io.max", "8:0 rbps=1000"),
                ("io.max", "8:0 wiops=max"),
            ],
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] }),
            &[
                ("hugetlb.2MB.limit_in_bytes", "0"),
                ("hugetlb.2MB.rsvd.limit_in_bytes", "0"),
            ],
            &[("hugetlb.2MB.max", "0"), ("hugetlb.2MB.rsvd.max", "0")],
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
        json!({ "network": { "classID": 1 } }),
        json!({ "network": { "priorities": [{ "name": "eth0", "priority": 5 }] } }),
        json!({ "blockIO": { "leafWeight": 10 } }),
        json!({ "cpu": { "realtimeRuntime": 1000 } }),
    ];
    for resources in only_v1 {
        let error = writes(resources.clone(), &v2).unwrap_err();
        assert!(error.to_string().contains("cgroup v2 has no "), "{error}");
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
    let on_v2 = plan(&resources, &v2, None).unwrap();
    assert_eq!((on_v2.writes.len(), on_v2.monitor_kills_on_oom), (1, false));
    let on_v1 = plan(&resources, &v1, None).unwrap();
    assert_eq!((on_v1.writes.len(), on_v1.monitor_kills_on_oom), (0, true));
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let error = writes(json!({ "pids": { "limit": 5 } }), &|_| None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pids.limit 5 cannot be enforced: this host has no pids controller; \
         mount or enable it, or leave the limit out"
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

/// runc's `TestConvertMemorySwapToCgroupV2Value`, and what its own update makes of the
/// half that is not given.
#[test]
fn swap_is_converted_as_in_runc() {
    const NO: Option<&str> = None;
    let gib = 1_i64 << 30;
    let cases = [
        // limit, swap, what memory.swap.max gets
        (Some(gib), Some(2 * gib), Some("1073741824")),
        (Some(gib), Some(gib), Some("0")),
        (Some(gib), Some(-1), Some("max")),
        (Some(-1), None, Some("max")),
        (Some(-1), Some(gib), Some("1073741824")),
        (Some(gib), None, NO),
        (Some(gib), Some(0), NO),
        (Some(0), Some(0), NO),
    ];
    for (limit, swap, expected) in cases {
        let resources = json!({ "memory": { "limit": limit, "swap": swap } });
        let swap = writes(resources.clone(), &v2).unwrap();
        let swap = swap.iter().find(|(file, _)| file == "memory.swap.max");
        assert_eq!(swap.map(|(_, value)| &**value), expected, "{resources}");
    }
    let unlimited = writes(json!({ "memory": { "limit": -1 } }), &v1).unwrap();
    let expected = [
        ("memory.limit_in_bytes", "-1"),
        ("memory.memsw.limit_in_bytes", "-1"),
    ];
    assert_eq!(unlimited, all(&expected));
}

#[test]
fn an_update_of_a_half_keeps_the_other() {
    let current = Current {
        quota: Some("50000".into()),
        memory: Some(Some(64 << 20)),
        swap: Some(Some(64 << 20)),
    };
    let update = |resources| settle(resources, &v2, Some(&current));
    let period = update(json!({ "cpu": { "period": 200_000 } })).unwrap();
    assert_eq!(period, all(&[("cpu.max", "50000 200000")]));
    let quota = update(json!({ "cpu": { "quota": 20_000 } })).unwrap();
    assert_eq!(
        quota,
        all(&[("cpu.max", "20000")]),
        "the kernel keeps the period"
    );

    let swap = update(json!({ "memory": { "swap": 96 << 20 } })).unwrap();
    assert_eq!(swap, all(&[("memory.swap.max", "33554432")]));
    let limit = update(json!({ "memory": { "limit": 96 << 20 } })).unwrap();
    let expected = [("memory.max", "100663296"), ("memory.swap.max", "33554432")];
    assert_eq!(
        limit,
        all(&expected),
        "memory and swap together stay as they were"
    );
    let above = update(json!({ "memory": { "limit": 256 << 20 } })).unwrap_err();
    assert!(
        above.to_string().contains("give memory.swap too"),
        "{above}"
    );
}

#[test]
fn what_is_zero_is_not_set() {
    let nothing = json!({
        "memory": { "limit": 0, "swap": 0, "reservation": 0, "kernel": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "" },
        "blockIO": { "weight": 0 },
        "network": { "classID": 0 },
    });
    assert_eq!(writes(nothing.clone(), &v1).unwrap(), []);
    assert_eq!(writes(nothing, &v2).unwrap(), []);
}

#[test]
fn a_limit_that_the_kernel_has_merged_into_another_is_ignored_with_the_reason() {
    let resources = json!({ "memory": { "kernel": 4096, "kernelTCP": 8192 } });
    let resources = serde_json::from_value(resources).unwrap();
    for version in [v1, v2] {
        assert_eq!(plan(&resources, &version, None).unwrap().writes, []);
    }
    let warnings = ignored(&resources);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with("memory.kernel 4096 is ignored"));
    let nothing = json!({ "memory": { "kernel": -1, "kernelTCP": 0 } });
    assert_eq!(ignored(&serde_json::from_value(nothing).unwrap()).len(), 0);
}

#[test]
fn the_rest_has_its_files() {
    let network = json!({ "network": {
        "classID": 1_048_577,
        "priorities": [{ "name": "eth0", "priority": 5 }],
    } });
    let expected = [
        ("net_cls.classid", "1048577"),
        ("net_prio.ifpriomap", "eth0 5"),
    ];
    assert_eq!(writes(network, &v1).unwrap(), all(&expected));
    let rdma = json!({ "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10_000 } } });
    let expected = [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000")];
    assert_eq!(writes(rdma.clone(), &v1).unwrap(), all(&expected));
    assert_eq!(writes(rdma, &v2).unwrap(), all(&expected));
    let misc = json!({ "unified": { "misc.max": "sev 3", "cgroup.max.descendants": "9" } });
    let expected = [("cgroup.max.descendants", "9"), ("misc.max", "sev 3")];
    assert_eq!(writes(misc, &v2).unwrap(), all(&expected));
    let device =
        json!({ "blockIO": { "weightDevice": [{ "major": 8, "minor": 0, "weight": 500 }] } });
    let expected = [("io.bfq.weight|io.weight", "8:0 500|8:0 4950")];
    assert_eq!(writes(device, &v2).unwrap(), all(&expected));
}

#[test]
fn what_could_mean_two_things_or_another_file_is_refused() {
    let refused = [
        json!({ "unified": { "cgroup.procs": "1" } }),
        json!({ "unified": { "cgroup.kill": "1" } }),
        json!({ "unified": { "memory/../x": "1" } }),
        json!({ "unified": { "memory": "1" } }),
        json!({ "unified": { "memory.": "1", "": "" } }),
        json!({ "network": { "priorities": [{ "name": "a b", "priority": 5 }] } }),
        json!({ "network": { "priorities": [{ "name": "", "priority": 5 }] } }),
        json!({ "rdma": { "a b": { "hcaHandles": 3 } } }),
        json!({ "rdma": { "mlx5_1": {} } }),
        json!({ "cpu": { "idle": 2 } }),
        json!({ "cpu": { "shares": 1 } }),
        json!({ "memory": { "swappiness": 101 } }),
        json!({ "pids": { "limit": 0 } }),
        json!({ "blockIO": { "weightDevice": [{ "major": 8, "minor": 0 }] } }),
        json!({ "hugepageLimits": [{ "pageSize": "2/MB", "limit": 0 }] }),
    ];
    for resources in refused {
        assert!(writes(resources.clone(), &v1).is_err(), "{resources}");
    }
}
