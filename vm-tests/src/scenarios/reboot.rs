//! What shall run, runs again after the machine was off.

use anyhow::{Result, ensure};
use dyno_api::dyno::Phase;
use dyno_api::name::DynoId;

use super::Context;
use super::host::Host;
use crate::vm::{Options, Vm};

const AT_BOOT: Options = Options {
    memory_mib: 1024,
    cpus: 2,
    hostd_at_boot: true,
    state: None,
};

/// After an orderly reboot and after a power cut: `--restart always` is back
/// with its data, what had no such policy is not, and nothing is forgotten.
pub(super) fn brings_dynos_back(context: &Context<'_>) -> Result<()> {
    let mut vm = context.boot(&AT_BOOT)?;
    let host = Host::booted(&vm)?;
    let id = host.explain(first_boot(&host))?;
    let mut boots = vec![vm.boot_id().to_owned()];
    seen(&vm, &boots)?;

    for power_cut in [false, true] {
        let disk = if power_cut {
            vm.power_cut()?
        } else {
            vm.shut_down()?
        };
        vm = Vm::boot(context.kit, context.name, disk, &AT_BOOT)?;
        boots.push(vm.boot_id().to_owned());
        let host = Host::booted(&vm)?;
        host.explain(is_back(&host, &id, &boots))?;
    }
    Ok(())
}

/// One dyno that shall always run, and one that nobody wants back.
fn first_boot(host: &Host<'_>) -> Result<DynoId> {
    // Each start leaves a line in a volume: data and starts are both seen.
    let count = "cat /proc/sys/kernel/random/boot_id >>/data/boots; sync; exec sleep 1000";
    let flags = ["--restart", "always", "-v", "data:/data"];
    host.run_detached("always", &flags, &["sh", "-c", count])?;
    host.run_detached("once", &[], &["sleep", "1000"])?;
    host.wait_for("once", Phase::Running)?;
    Ok(host.wait_for("always", Phase::Running)?.id)
}

fn is_back(host: &Host<'_>, id: &DynoId, boots: &[String]) -> Result<()> {
    let always = host.wait_for("always", Phase::Running)?;
    ensure!(
        always.id == *id,
        "it came back as another: {} was {id}",
        always.id
    );
    seen(host.vm, boots)?;
    let once = host.inspect("once")?;
    ensure!(
        once.status.phase != Phase::Running && once.status.pid.is_none(),
        "nobody asked for it to come back: {:?}",
        once.status
    );
    host.dyno(&["exec", "always", "true"])?.text()?;
    Ok(())
}

/// Every boot so far has left its line in the volume.
fn seen(vm: &Vm, boots: &[String]) -> Result<()> {
    for boot in boots {
        let script = format!("grep -r {boot} /var/lib/dyno/volumes/data");
        vm.wait_until(
            "this boot's line in the volume",
            super::host::PATIENCE,
            &script,
        )?;
    }
    Ok(())
}
