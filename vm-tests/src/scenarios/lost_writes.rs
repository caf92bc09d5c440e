//! The power goes at any write, and the disk may have lost any that were not flushed.
//!
//! ```text
//! a host at work, its state on a disk whose writes are logged
//!     │ log: w w w F w w F w F w w w F …
//!     ▼
//! after each flush F, and with some of the writes that follow it:
//!     e2fsck; on a sample a boot: all that was acknowledged by then is there
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::host::Host;
use super::power_cut::{
    Acknowledged, CLIENT, ROUNDS, SEED, SplitMix, check, from_environment, make_image,
};
use crate::kit::output_of;
use crate::vm::{Options, Request, State};
use crate::write_log::WriteLog;

/// Lines of the client that are waited for, which makes three images.
const LINES: usize = 20;

/// How long that may take.
const WORK: Duration = Duration::from_secs(300);

/// A line of the client, and how long the log was when it had come.
#[derive(Debug)]
struct Said {
    line: String,
    log: u64,
}

/// The client works, the power goes; then moment after moment of the log.
pub(super) fn holds_what_was_acknowledged(context: &Context<'_>) -> Result<()> {
    let seed = from_environment("DYNO_VM_SEED", SEED)?;
    let mut random = SplitMix(seed);
    let image = context.kit.new_state_image(context.name)?;
    let before = image.with_extension("before");
    copy(&image, &before)?;
    let (said, log) = work(context, &image)?;
    let flushes = log.flushes();
    let booted = choose(&mut random, &log, &said)?;
    let mut disk = Disk {
        log: &log,
        path: &before,
        file: open(&before)?,
        done: 0,
    };
    for (index, &flushed) in flushes.iter().enumerate() {
        disk.replay_until(flushed)?;
        let next = flushes.get(index + 1).map_or(log.len(), |next| next - 1);
        let lucky: Vec<usize> = (flushed..next).filter(|_| random.below(2) == 1).collect();
        let explain = || {
            let all = log.len();
            format!("seed {seed}: of {all} entries the first {flushed} and {lucky:?}")
        };
        for lucky in [&[], &lucky[..]] {
            disk.with(lucky, &image)
                .and_then(|()| is_consistent(&image))
                .with_context(explain)?;
        }
        if booted.contains(&index) {
            let then = told(&said, log.length_after(flushed))?;
            // The control: at the first moment, what is said later is missing.
            let later = (booted.first() == Some(&index)).then(|| told(&said, u64::MAX));
            boot(context, &image, &then, later.transpose()?).with_context(explain)?;
        }
    }
    let count = flushes.len();
    let what = format!(
        "{} writes, {count} flushes, {} boots",
        log.len(),
        booted.len()
    );
    context.report.note(&what, Duration::ZERO);
    Ok(())
}

/// Has a host work on `image` until its power is cut.
fn work(context: &Context<'_>, image: &Path) -> Result<(Vec<Said>, WriteLog)> {
    let path = image.with_extension("writes");
    File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let vm = context.boot(&options(image, Some(&path)))?;
    Host::booted(&vm)?;
    make_image(&vm)?;
    let client = Request::new(&["sh", "-c", CLIENT, "client", "1"]).deadline(WORK);
    let mut client = vm.start(client)?;
    let mut said = Vec::new();
    for count in 1..=LINES {
        let printed = client.collect(count, Duration::ZERO)?.stdout;
        let log = fs::metadata(&path).context("the log's length")?.len();
        // Several may have come at once.
        let known = said.len();
        let complete = printed.matches('\n').count();
        let new = printed.lines().take(complete).skip(known);
        said.extend(new.map(|line| Said {
            line: line.to_owned(),
            log,
        }));
    }
    drop(client);
    vm.power_cut()?;
    Ok((said, WriteLog::open(&path)?))
}

fn options(image: &Path, log: Option<&Path>) -> Options {
    Options {
        hostd_at_boot: true,
        state: Some(State {
            image: image.to_owned(),
            log: log.map(Path::to_owned),
        }),
        ..Options::default()
    }
}

/// After which flushes, by index, the machine is booted: there is something to lose then.
fn choose(random: &mut SplitMix, log: &WriteLog, said: &[Said]) -> Result<BTreeSet<usize>> {
    let first = said.first().context("nothing was acknowledged")?.log;
    let flushes = log.flushes();
    let early = flushes.partition_point(|&flushed| log.length_after(flushed) < first);
    let late = u64::try_from(flushes.len() - early)?;
    ensure!(late > 0, "no flush after the first answer");
    let rounds = from_environment("DYNO_VM_ROUNDS", ROUNDS)?;
    let mut chosen = BTreeSet::from([early]);
    while (chosen.len() as u64) < rounds.min(late) {
        chosen.insert(early + usize::try_from(random.below(late))?);
    }
    Ok(chosen)
}

/// What the client had been told when the log was so long. A removal may have
/// begun as soon as the line before it had come.
fn told(said: &[Said], log: u64) -> Result<Acknowledged> {
    let mut told = Acknowledged::default();
    let mut before = 0;
    for one in said {
        let since = if one.line.starts_with("removing") {
            before
        } else {
            one.log
        };
        before = one.log;
        if since <= log {
            told.add(&format!("{}\n", one.line))?;
        }
    }
    Ok(told)
}

/// The disk as it was before the work, and is again by and by.
struct Disk<'a> {
    log: &'a WriteLog,
    path: &'a Path,
    file: File,
    done: usize,
}

impl Disk<'_> {
    fn replay_until(&mut self, count: usize) -> Result<()> {
        for number in self.done..count {
            self.log.replay(number, &self.file)?;
        }
        self.done = count;
        Ok(())
    }

    /// Makes `image` what the disk is with these writes, too.
    fn with(&self, lucky: &[usize], image: &Path) -> Result<()> {
        copy(self.path, image)?;
        let file = open(image)?;
        for &number in lucky {
            self.log.replay(number, &file)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().write(true).open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    output_of(
        "cp",
        &["--sparse=always".as_ref(), from.as_os_str(), to.as_os_str()],
    )?;
    Ok(())
}

/// Replays the journal; what may be mended without asking is no damage.
fn is_consistent(image: &Path) -> Result<()> {
    let output = Command::new("e2fsck")
        .args(["-f", "-p"])
        .arg(image)
        .output()
        .context("executing e2fsck")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "e2fsck: {}\n{text}",
        output.status
    );
    Ok(())
}

/// Boots with `image`, looks for what the client had been told, and sees that
/// what it was told only later is found missing.
fn boot(
    context: &Context<'_>,
    image: &Path,
    told: &Acknowledged,
    later: Option<Acknowledged>,
) -> Result<()> {
    let vm = context.boot(&options(image, None))?;
    let host = Host::booted(&vm)?;
    host.explain(check(&host, told))
        .with_context(|| format!("the client had been told {told:?}"))?;
    if let Some(later) = later {
        ensure!(
            check(&host, &later).is_err(),
            "the control: nothing is missed of {later:?}"
        );
    }
    vm.power_cut()?;
    Ok(())
}
