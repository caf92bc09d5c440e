//! One dyno writes much: at the pace that is promised to be borne, and as fast as it can.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::api::call;
use super::super::host::Host;
use super::super::processes::{Program, processor_time, resident_hostd};
use super::super::statistics::Samples;
use super::{Figure, dynos, mebibytes, milliseconds};

/// How long it floods.
const SPELL: Duration = Duration::from_secs(10);
/// Between two requests about another dyno.
const PAUSE: Duration = Duration::from_millis(10);
/// A line of 1 KiB, without its end.
const LINE: usize = 1023;

/// Megabytes a second that others shall hardly feel.
const PACE: &str = "500";

/// What hostd takes meanwhile, and how long questions about another dyno take beside
/// what they took before.
pub(super) fn measure(host: &Host) -> Result<Vec<Figure>> {
    let line = "x".repeat(LINE);
    let mut figures = flood(host, &["/bin/flood", PACE], Some(2.0))?;
    // The machine has two processors, and the flood's writer and its reader are at work
    // on both: who asks meanwhile waits for them.
    figures.extend(flood(host, &["/bin/busybox", "yes", &line], None)?);
    Ok(figures)
}

fn flood(host: &Host, command: &[&str], times_at_most: Option<f64>) -> Result<Vec<Figure>> {
    let other = dynos::one(host, &["/bin/sleep", "3600"])?;
    let path = format!("/v1/dynos/{other}");
    let before = requests(host, &path)?;
    let flooder = dynos::one(host, command)?;
    let time = || -> Result<Duration> {
        let times = processor_time()?;
        Ok(times.get(&Program::Hostd).copied().unwrap_or_default())
    };
    let (begin, used, written_before) = (Instant::now(), time()?, written(host, &flooder)?);
    let during = requests(host, &path)?;
    let (spell, used) = (begin.elapsed(), time()?.saturating_sub(used));
    let bytes = written(host, &flooder)?.saturating_sub(written_before);
    let resident = resident_hostd()?;
    dynos::remove(host, [flooder, other])?;
    let share = 100.0 * used.as_secs_f64() / spell.as_secs_f64();
    let megabytes = u32::try_from(bytes / 1_000_000).context("more than a flood")?;
    let rate = f64::from(megabytes) / spell.as_secs_f64();
    let (calm, flooded) = (before.percentile(99), during.percentile(99));
    let times = flooded.as_secs_f64() / calm.as_secs_f64();
    let of = |what: &str| format!("a flood of {rate:.0} MB/s: {what}");
    let asked = Figure::new(
        of("a question about another dyno, p99"),
        format!(
            "{}, before it {}",
            milliseconds(flooded),
            milliseconds(calm)
        ),
    );
    Ok(vec![
        Figure::new(of("hostd's share of a core"), format!("{share:.1} %"))
            .target("20 %", share <= 20.0),
        Figure::new(of("hostd's memory"), mebibytes(resident))
            .target("64 MiB", resident <= 64 << 20),
        match times_at_most {
            Some(most) => asked.target("2 ×", times <= most),
            None => asked,
        },
    ])
}

fn requests(host: &Host, path: &str) -> Result<Samples> {
    let mut samples = Samples::default();
    let end = Instant::now() + SPELL;
    while Instant::now() < end {
        let begin = Instant::now();
        call(host.socket(), "GET", path, &Value::Null)?;
        samples.push(begin.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(samples)
}

/// Bytes that the dyno's program has written so far: proc_pid_io(5).
fn written(host: &Host, id: &str) -> Result<u64> {
    let dyno = call(
        host.socket(),
        "GET",
        &format!("/v1/dynos/{id}"),
        &Value::Null,
    )?;
    let pid = dyno["status"]["pid"].as_u64();
    let pid = pid.with_context(|| format!("no pid: {dyno}"))?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(bytes.context("no wchar")?.parse()?)
}
