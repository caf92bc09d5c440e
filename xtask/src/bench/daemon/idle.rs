//! What it costs to have nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::processes::{Program, monitors_shares, processor_time, resident_hostd};
use super::{Figure, mebibytes};

/// How long nothing is done.
const SPELL: Duration = Duration::from_secs(30);
/// So that what a start leaves to do later is done.
const SETTLE: Duration = Duration::from_secs(5);

/// A hostd that has no dyno.
pub(super) fn without_dynos() -> Result<Vec<Figure>> {
    std::thread::sleep(SETTLE);
    let resident = resident_hostd()?;
    let figure = Figure::new("hostd's memory, without dynos", mebibytes(resident));
    Ok(vec![figure.target("20 MiB", resident <= 20 << 20)])
}

/// One with many.
pub(super) fn with_dynos(count: usize) -> Result<Vec<Figure>> {
    std::thread::sleep(SETTLE);
    let before = processor_time()?;
    let begin = Instant::now();
    std::thread::sleep(SPELL);
    let after = processor_time()?;
    let spell = begin.elapsed();
    let used = |program: Program| {
        let at = |times: &std::collections::BTreeMap<_, Duration>| {
            times.get(&program).copied().unwrap_or_default()
        };
        at(&after).saturating_sub(at(&before))
    };
    let share = |time: Duration| 100.0 * time.as_secs_f64() / spell.as_secs_f64();
    let parts =
        [Program::Hostd, Program::Monitor, Program::Edge].map(|program| share(used(program)));
    let [hostd, monitors, edge] = parts;
    let all = hostd + monitors + edge;
    let resident = resident_hostd()?;
    let shares = monitors_shares()?;
    ensure!(
        shares.len() == count,
        "{} monitors for {count} dynos",
        shares.len()
    );
    let monitor = shares.iter().sum::<u64>() / shares.len() as u64;
    Ok(vec![
        Figure::new(
            format!("a monitor's share of the memory, {count} dynos"),
            format!("{} KiB", monitor / 1024),
        )
        .target("512 KiB", monitor <= 512 * 1024),
        Figure::new(
            format!("hostd's memory, {count} idle dynos"),
            mebibytes(resident),
        )
        .target("64 MiB", resident <= 64 << 20),
        Figure::new(
            format!("a core's share, {count} idle dynos"),
            format!("{all:.3} % (hostd {hostd:.3}, monitors {monitors:.3}, edge {edge:.3})"),
        )
        .target("1 %", all <= 1.0),
    ])
}
