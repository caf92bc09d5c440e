//! The machine itself is what the other scenarios take it for.

use anyhow::{Result, ensure};

use super::Context;
use crate::vm::{Options, Vm};

/// cgroup v2 with every controller at its usual place, no v1 anywhere, and a
/// root that can be pivoted out of.
pub(super) fn is_pure_cgroup_v2(context: &Context<'_>) -> Result<()> {
    let vm = context.boot(&Options::default())?;
    context
        .report
        .note("from power-on to the first command", vm.boot_time());
    let processors = vm.processors()?;
    ensure!(
        processors.matches("CPU#1").count() == 2,
        "what QEMU says of two processors, twice: {processors}"
    );
    let mounts = vm.run(&["cat", "/proc/self/mounts"])?.text()?;
    let has = |kind: &str, target: &str| {
        mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(1);
            fields.next() == Some(target) && fields.next() == Some(kind)
        })
    };
    ensure!(
        has("cgroup2", "/sys/fs/cgroup"),
        "no cgroup v2 tree in\n{mounts}"
    );
    ensure!(!mounts.contains(" cgroup "), "a v1 hierarchy in\n{mounts}");
    ensure!(has("ext4", "/"), "the root is not on the disk in\n{mounts}");
    let controllers = vm
        .run(&["cat", "/sys/fs/cgroup/cgroup.subtree_control"])?
        .text()?;
    for needed in ["cpu", "cpuset", "io", "memory", "pids"] {
        ensure!(
            controllers.split(' ').any(|name| name == needed),
            "no {needed} in {controllers}"
        );
    }
    // Modules load on demand through /sbin/modprobe, as on an installed Debian.
    vm.sh("ip link add type veth; nft add table ip t; modprobe overlay; grep -w overlay /proc/filesystems")?
        .text()?;

    // Who is asked to end has the time and a disk for it.
    let tidy =
        "trap 'sleep 1; echo tidied >/root/tidied; exit' TERM; while :; do usleep 50000; done";
    vm.sh(&format!(
        "setsid sh -c \"{tidy}\" >/dev/null 2>&1 </dev/null &"
    ))?
    .text()?;
    let disk = vm.shut_down()?;
    let vm = Vm::boot(context.kit, context.name, disk, &Options::default())?;
    ensure!(
        vm.run(&["cat", "/root/tidied"])?.text()? == "tidied",
        "the shut-down was not in order"
    );
    Ok(())
}

/// What this rig calls a power cut: the flushed is there, and the machine is a new one.
pub(super) fn flushed_writes_survive(context: &Context<'_>) -> Result<()> {
    let vm = context.boot(&Options::default())?;
    let first_boot = vm.boot_id().to_owned();
    vm.sh("echo kept >/root/flushed; sync; echo lost >/root/unflushed")?
        .text()?;
    let disk = vm.power_cut()?;
    let vm = Vm::boot(context.kit, context.name, disk, &Options::default())?;
    ensure!(vm.boot_id() != first_boot, "this is still the first boot");
    let flushed = vm.run(&["cat", "/root/flushed"])?.text()?;
    ensure!(flushed == "kept", "a flushed write was lost: {flushed:?}");
    // The positive control: without a flush the write had no time to reach the disk.
    let unflushed = vm.run(&["cat", "/root/unflushed"])?;
    ensure!(
        !unflushed.stdout.starts_with(b"lost"),
        "the power was not really cut: {unflushed}"
    );
    Ok(())
}
