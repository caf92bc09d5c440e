//! The results, for people and for programs.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::contest::{Comparison, Contestant, Limit};
use super::crowd::{CROWD, Starts};
use super::daemon::Figure;
use super::statistics::Samples;

/// One table: each contestant's times, and ours as a share of each peer's.
pub(super) fn print(comparison: &Comparison, samples: &[Samples]) {
    println!("\n{}", comparison.title);
    println!(
        "  {:<44} {:>9} {:>9} {:>9} {:>9}  {:>8}",
        "", "median", "p10", "p90", "p99", "ours is"
    );
    let ours = comparison
        .contestants
        .iter()
        .zip(samples)
        .find(|(who, _)| who.is_ours());
    let ours = ours.map(|(_, samples)| samples.median());
    for (contestant, samples) in comparison.contestants.iter().zip(samples) {
        let beside = ours.filter(|_| !contestant.is_ours());
        let ratio = beside.map(|ours| ours.as_secs_f64() / samples.median().as_secs_f64());
        println!(
            "  {:<44} {:>9} {:>9} {:>9} {:>9}  {:>8}{}",
            contestant.shown,
            milliseconds(samples.median()),
            milliseconds(samples.percentile(10)),
            milliseconds(samples.percentile(90)),
            milliseconds(samples.percentile(99)),
            ratio
                .map(|ratio| format!("{ratio:.2} ×"))
                .unwrap_or_default(),
            verdict(comparison, contestant, samples, beside),
        );
    }
}

/// What is said of a contestant's line; `ours` is our median, where it is a peer's.
fn verdict(
    comparison: &Comparison,
    contestant: &Contestant,
    samples: &Samples,
    ours: Option<Duration>,
) -> String {
    match (comparison.target, ours) {
        (Some((peer, limit)), Some(ours)) if peer == contestant.name => {
            let target = match limit {
                Limit::Share(most) => format!("{most:.2} ×"),
                Limit::More(more) => format!("{} more", milliseconds(more)),
            };
            format!(
                "  target {target} {}",
                met(limit.is_met(ours, samples.median()))
            )
        }
        (_, None) if comparison.is_steady => {
            let is_met = samples.percentile(99) <= samples.median() * 2;
            format!("  p99 within 2 × median {}", met(is_met))
        }
        _ => String::new(),
    }
}

/// The most memory that a runtime's process took while its container ran.
pub(super) fn print_peaks(peaks: &[(&'static str, u64)]) {
    println!("\npeak memory of `run` (VmHWM)");
    for (name, bytes) in peaks {
        let target = match name.starts_with("dyno") {
            true => format!("  target 1700 KiB {}", met(*bytes <= 1700 * 1024)),
            false => String::new(),
        };
        println!("  {name:<44} {:>5} KiB{target}", bytes / 1024);
    }
}

/// How starts share the machine.
pub(super) fn print_starts(starts: &Starts) {
    let ratio = starts.at_once.as_secs_f64() / starts.one_by_one.as_secs_f64();
    println!("\n{CROWD} containers, for each of them");
    let one_by_one = milliseconds(starts.one_by_one);
    let at_once = milliseconds(starts.at_once);
    println!("  {:<44} {one_by_one:>9}", "one after the other");
    println!(
        "  {:<44} {at_once:>9}  {ratio:.2} ×  target 1.20 × {}",
        "all at once",
        met(ratio <= 1.2)
    );
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

/// One figure, with its target.
pub(super) fn print_figure(figure: &Figure) {
    let Figure {
        what,
        value,
        target,
    } = figure;
    let target = target.as_ref().map(|(target, is_met)| {
        let met = met(*is_met);
        format!("  target {target} {met}")
    });
    println!("  {what:<60} {value}{}", target.unwrap_or_default());
}

/// Every sample, in seconds.
pub(super) fn write_json(path: &Path, results: &[(Comparison, Vec<Samples>)]) -> Result<()> {
    let seconds = |samples: &Samples| -> Vec<f64> {
        samples.all().iter().map(Duration::as_secs_f64).collect()
    };
    let comparisons: Vec<_> = results
        .iter()
        .map(|(comparison, samples)| {
            let contestants: Vec<_> = comparison
                .contestants
                .iter()
                .zip(samples)
                .map(|(c, samples)| json!({"name": c.name, "seconds": seconds(samples)}))
                .collect();
            json!({"title": comparison.title, "contestants": contestants})
        })
        .collect();
    serde_json::to_writer_pretty(std::fs::File::create(path)?, &comparisons)?;
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
