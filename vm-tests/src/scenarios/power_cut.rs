//! The power goes in the middle of work: what was acknowledged is there.
//!
//! A client in the guest creates, removes and imports without pause and says
//! after each command that it was acknowledged. At a moment drawn from a seed
//! QEMU is killed. The next boot has to know everything that was said.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dyno_api::audit::AuditEntry;
use dyno_api::image::Image;

use super::Context;
use super::host::Host;
use crate::vm::{Options, Request, Vm};

const AT_BOOT: Options = Options {
    memory_mib: 1024,
    cpus: 2,
    hostd_at_boot: true,
    state: None,
};

/// Rounds in `make test`; `DYNO_VM_ROUNDS` asks for more.
pub(super) const ROUNDS: u64 = 3;

/// Where the random moments start, unless `DYNO_VM_SEED` says otherwise.
pub(super) const SEED: u64 = 20_261_122;

/// The client. `$1` distinguishes rounds. It says what succeeded, and what it is
/// about to remove: that may be gone without an answer.
pub(super) const CLIENT: &str = r#"
n=0
while :; do
    n=$((n + 1)); name=r$1n$n
    dyno run -d --name $name host sleep 1000 >/dev/null && echo "created $name" || usleep 200000
    case $((n % 3)) in
    0) dyno import /root/image.tar local/image:$name >/dev/null && echo "imported $name" ;;
    1) echo "removing $name"; dyno rm --force $name >/dev/null && echo "removed $name" ;;
    esac
done
"#;

/// What the client was told, over all rounds.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    created: BTreeSet<String>,
    removing: BTreeSet<String>,
    removed: BTreeSet<String>,
    imported: BTreeSet<String>,
}

impl Acknowledged {
    /// Takes the complete lines of the client's output.
    pub(super) fn add(&mut self, printed: &str) -> Result<()> {
        let complete = printed.rsplit_once('\n').map_or("", |(lines, _)| lines);
        for line in complete.lines() {
            let (verb, name) = line
                .split_once(' ')
                .with_context(|| format!("said {line:?}"))?;
            match verb {
                "created" => self.created.insert(name.to_owned()),
                "removing" => self.removing.insert(name.to_owned()),
                "removed" => self.removed.insert(name.to_owned()),
                "imported" => self.imported.insert(name.to_owned()),
                _ => bail!("said {line:?}"),
            };
        }
        Ok(())
    }
}

/// Round after round on the same disk.
pub(super) fn loses_nothing_acknowledged(context: &Context<'_>) -> Result<()> {
    let rounds = from_environment("DYNO_VM_ROUNDS", ROUNDS)?;
    let seed = from_environment("DYNO_VM_SEED", SEED)?;
    let mut random = SplitMix(seed);
    let mut told = Acknowledged::default();
    let mut vm = context.boot(&AT_BOOT)?;
    Host::booted(&vm)?;
    make_image(&vm)?;
    for round in 1..=rounds {
        // A number of answers rather than a time: the machine may be slow.
        let answers = 2 + usize::try_from(random.below(6))?;
        let delay = Duration::from_millis(random.below(1500));
        let mut client = vm.start(Request::new(&[
            "sh",
            "-c",
            CLIENT,
            "client",
            &round.to_string(),
        ]))?;
        let printed = client.collect(answers, delay)?;
        drop(client);
        let disk = vm.power_cut()?;
        told.add(&printed.stdout)?;
        vm = Vm::boot(context.kit, context.name, disk, &AT_BOOT)?;
        let host = Host::booted(&vm)?;
        host.explain(check(&host, &told)).with_context(|| {
            format!(
                "round {round} of seed {seed}, cut {delay:?} after {answers} answers; the client had said\n{}\n\
                 and complained\n{}",
                printed.stdout, printed.stderr
            )
        })?;
    }
    vm.shut_down()?;
    Ok(())
}

/// The root of the image that is imported: busybox and a file of some size.
pub(super) fn make_image(vm: &Vm) -> Result<()> {
    vm.sh(
        "mkdir -p /root/image/bin; cp /usr/bin/busybox /root/image/bin/\n\
         head -c 3000000 /dev/urandom >/root/image/content\n\
         sha256sum </root/image/content >/root/image/sum\n\
         tar -C /root/image -cf /root/image.tar .; sync",
    )?
    .text()?;
    Ok(())
}

/// Everything that was acknowledged is so, and everything there is whole.
pub(super) fn check(host: &Host<'_>, told: &Acknowledged) -> Result<()> {
    let listed = host.list()?;
    let names: BTreeSet<String> = listed.iter().map(|dyno| dyno.name.to_string()).collect();
    for name in told.created.difference(&told.removing) {
        ensure!(names.contains(name), "{name} is lost");
    }
    for name in &told.removed {
        ensure!(!names.contains(name), "{name} was removed and is back");
    }
    for dyno in &listed {
        host.inspect(dyno.name.as_str())?;
    }
    let folders = host.vm.run(&["ls", "/var/lib/dyno/dynos"])?.text()?;
    let folders: BTreeSet<&str> = folders.split_whitespace().collect();
    let ids: Vec<String> = listed.iter().map(|dyno| dyno.id.to_string()).collect();
    let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    ensure!(folders == ids, "folders {folders:?} of dynos {ids:?}");
    has_left_its_trace(host, told)?;
    images_verify(host, told)
}

/// Every change that was acknowledged is in the audit log, with its end.
fn has_left_its_trace(host: &Host<'_>, told: &Acknowledged) -> Result<()> {
    let log = host.dyno(&["audit", "--json", "--all"])?.text()?;
    let mut done = BTreeSet::new();
    for line in log.lines() {
        let entry: AuditEntry = serde_json::from_str(line)?;
        let is_success = entry.status.is_some_and(|status| status < 300);
        if let (true, Some(target)) = (is_success, entry.target) {
            done.insert((entry.operation, target));
        }
    }
    for (operation, names) in [
        ("dyno.create", &told.created),
        ("dyno.remove", &told.removed),
    ] {
        for name in names {
            let change = (operation.to_owned(), name.clone());
            ensure!(
                done.contains(&change),
                "{operation} of {name} left no trace: {log}"
            );
        }
    }
    Ok(())
}

/// Every image that was acknowledged is listed, and every listed one holds what was imported.
fn images_verify(host: &Host<'_>, told: &Acknowledged) -> Result<()> {
    let listed: Vec<Image> = host.dyno(&["images", "--json"])?.json()?;
    let listed: Vec<&str> = listed
        .iter()
        .map(|image| image.reference.as_str())
        .filter(|reference| reference.contains("local/image:"))
        .collect();
    for name in &told.imported {
        let tag = format!("local/image:{name}");
        ensure!(
            listed.iter().any(|reference| reference.ends_with(&tag)),
            "the imported {tag} is not among {listed:?}"
        );
    }
    let compare = "/bin/busybox sha256sum </content | /bin/busybox cmp - /sum";
    for reference in listed {
        let shell = ["/bin/busybox", "sh", "-c", compare];
        let run = [&["run", "--rm", "--net", "none", reference][..], &shell].concat();
        host.dyno(&run)?
            .text()
            .with_context(|| format!("{reference} is listed as ready"))?;
    }
    Ok(())
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators".
#[derive(Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub(super) fn from_environment(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name}={text:?} is not a number")),
        Err(_) => Ok(default),
    }
}
