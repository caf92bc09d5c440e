//! Namespaces, id ranges, limits, devices and what is hidden.

use std::collections::HashMap;

use dyno_api::dyno::{Limits, NetMode};
use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxBlockIoBuilder, LinuxBuilder, LinuxCpuBuilder, LinuxDevice,
    LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxMemoryBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
};

use super::{BundleError, Inputs, cgroups_path};
use crate::admission::{DeviceNode, capabilities};
use crate::facts::Disk;
use crate::uids;

const DEFAULT_PIDS: u32 = 4096;
/// Microseconds over which the CPU limit is counted.
const CPU_PERIOD: u64 = 100_000;

/// What procfs and sysfs tell about the machine and no dyno needs.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Character devices that any dyno has: null, zero, full, random, urandom,
/// tty, ptmx; `None` as minor number is every one (the slaves of its devpts).
const DEVICES: [(i64, Option<i64>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

pub(super) fn linux(inputs: &Inputs<'_>) -> Result<Linux, BundleError> {
    let record = inputs.record;
    let mapping = id_mapping(record.uid_base)?;
    let caps = capabilities(&record.spec.security)?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(record.spec.net)?)
        .uid_mappings(vec![mapping])
        .gid_mappings(vec![mapping])
        .cgroups_path(cgroups_path(inputs.host, record.id.as_str()))
        .resources(resources(inputs)?)
        .masked_paths(owned(&MASKED))
        .readonly_paths(owned(&READ_ONLY))
        .rootfs_propagation("private")
        .seccomp(dyno_runtime::seccomp::default_profile(&caps));
    if record.spec.net != NetMode::Host {
        linux = linux.sysctl(sysctls());
    }
    if !inputs.devices.is_empty() {
        let devices: Result<Vec<_>, _> = inputs.devices.iter().map(device).collect();
        linux = linux.devices(devices?);
    }
    Ok(linux.build()?)
}

fn namespaces(net: NetMode) -> Result<Vec<LinuxNamespace>, BundleError> {
    let own_network = (net != NetMode::Host).then_some(LinuxNamespaceType::Network);
    [
        LinuxNamespaceType::User,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Cgroup,
    ]
    .into_iter()
    .chain(own_network)
    .map(|typ| Ok(LinuxNamespaceBuilder::default().typ(typ).build()?))
    .collect()
}

/// P3: the whole range of this dyno and nothing else.
fn id_mapping(base: u32) -> Result<LinuxIdMapping, BundleError> {
    Ok(LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(base)
        .size(uids::RANGE)
        .build()?)
}

/// Any port and `ping` without a capability, in the dyno's own network only.
fn sysctls() -> HashMap<String, String> {
    [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 65535"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// What a dyno that runs is given: all of its limits, and no limit where there is
/// none, which may be news.
///
/// # Errors
/// [`BundleError`] where they have no form.
pub fn limit_resources(limits: Limits, disk: Option<Disk>) -> Result<LinuxResources, BundleError> {
    let pids = limits.pids.unwrap_or(DEFAULT_PIDS);
    let memory = limits.memory_bytes;
    let memory = memory.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let quota = limits
        .cpu_millis
        .map_or(-1, |millis| i64::from(millis) * 100);
    let mut resources = LinuxResourcesBuilder::default()
        .pids(LinuxPidsBuilder::default().limit(i64::from(pids)).build()?)
        .memory(
            LinuxMemoryBuilder::default()
                .limit(memory)
                .swap(memory)
                .build()?,
        )
        .cpu(
            LinuxCpuBuilder::default()
                .quota(quota)
                .period(CPU_PERIOD)
                .build()?,
        );
    if limits.memory_bytes.is_some() {
        resources = resources.unified(oom_group());
    }
    if let Some(io) = block_io(limits, disk)? {
        resources = resources.block_io(io);
    }
    Ok(resources.build()?)
}

/// What a dyno may have of the disk; 0 is without limit, config-linux.md "Block IO".
fn block_io(limits: Limits, disk: Option<Disk>) -> Result<Option<LinuxBlockIo>, BundleError> {
    let (Some(io), Some(disk)) = (limits.io, disk) else {
        return Ok(None);
    };
    let rate = |rate: Option<u64>| -> Result<Vec<LinuxThrottleDevice>, BundleError> {
        let device = LinuxThrottleDeviceBuilder::default()
            .major(i64::from(disk.major))
            .minor(i64::from(disk.minor))
            .rate(rate.unwrap_or(0));
        Ok(vec![device.build()?])
    };
    let io = LinuxBlockIoBuilder::default()
        .throttle_read_bps_device(rate(io.read_bytes)?)
        .throttle_write_bps_device(rate(io.write_bytes)?)
        .throttle_read_iops_device(rate(io.read_ops)?)
        .throttle_write_iops_device(rate(io.write_ops)?);
    Ok(Some(io.build()?))
}

/// P16. Where v1 limits memory, the monitor does what this asks for; it must know
/// from the beginning.
fn oom_group() -> HashMap<String, String> {
    HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())])
}

fn resources(inputs: &Inputs<'_>) -> Result<LinuxResources, BundleError> {
    let Limits {
        memory_bytes,
        cpu_millis,
        pids,
        io: _,
        disk_bytes: _,
    } = inputs.record.spec.limits;
    let pids = LinuxPidsBuilder::default()
        .limit(i64::from(pids.unwrap_or(DEFAULT_PIDS)))
        .build()?;
    let mut resources = LinuxResourcesBuilder::default()
        .pids(pids)
        // Also without a limit: one may be asked for while the dyno runs.
        .unified(oom_group())
        .devices(device_rules(inputs.devices)?);
    if let Some(bytes) = memory_bytes {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // Swap counts memory and swap together: equal is no swap.
        resources = resources.memory(
            LinuxMemoryBuilder::default()
                .limit(bytes)
                .swap(bytes)
                .build()?,
        );
    }
    if let Some(millis) = cpu_millis {
        let quota = i64::from(millis) * 100;
        resources = resources.cpu(
            LinuxCpuBuilder::default()
                .quota(quota)
                .period(CPU_PERIOD)
                .build()?,
        );
    }
    if let Some(io) = block_io(inputs.record.spec.limits, inputs.facts.disk)? {
        resources = resources.block_io(io);
    }
    Ok(resources.build()?)
}

/// P16: nothing, then these.
fn device_rules(given: &[DeviceNode]) -> Result<Vec<LinuxDeviceCgroup>, BundleError> {
    let mut rules = vec![
        LinuxDeviceCgroupBuilder::default()
            .allow(false)
            .access("rwm".to_owned())
            .build()?,
    ];
    for (major, minor) in DEVICES {
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .access("rwm".to_owned());
        if let Some(minor) = minor {
            rule = rule.minor(minor);
        }
        rules.push(rule.build()?);
    }
    for node in given {
        rules.push(
            LinuxDeviceCgroupBuilder::default()
                .allow(true)
                .typ(device_type(node))
                .major(i64::from(node.major))
                .minor(i64::from(node.minor))
                .access(node.access.clone())
                .build()?,
        );
    }
    Ok(rules)
}

fn device(node: &DeviceNode) -> Result<LinuxDevice, BundleError> {
    Ok(LinuxDeviceBuilder::default()
        .path(&node.target)
        .typ(device_type(node))
        .major(i64::from(node.major))
        .minor(i64::from(node.minor))
        .file_mode(0o666_u32)
        .build()?)
}

fn device_type(node: &DeviceNode) -> LinuxDeviceType {
    if node.block {
        LinuxDeviceType::B
    } else {
        LinuxDeviceType::C
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|entry| (*entry).to_owned()).collect()
}
