//! The results, for people and for programs.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::contest::{Comparison, Contestant};
use super::crowd::{CROWD, Starts};
use super::statistics::Samples;

/// One table: each contestant's times, and ours as a share of each peer's.
pub(super) fn print(comparison: &Comparison, samples: &[Samples]) {
    println!("\n{}", comparison.title);
    println!(
        "  {:<44} {:>9} {:>9} {:>9}  {:>8}",
        "", "median", "p10", "p90", "ours is"
    );
    let ours = comparison
        .contestants
        .iter()
        .zip(samples)
        .find(|(who, _)| who.is_ours());
    let ours = ours.map(|(_, samples)| samples.median().as_secs_f64());
    for (contestant, samples) in comparison.contestants.iter().zip(samples) {
        let peer = samples.median().as_secs_f64();
        let ratio = ours
            .filter(|_| !contestant.is_ours())
            .map(|ours| ours / peer);
        println!(
            "  {:<44} {:>9} {:>9} {:>9}  {:>8}{}",
            contestant.shown,
            milliseconds(samples.median()),
            milliseconds(samples.percentile(10)),
            milliseconds(samples.percentile(90)),
            ratio
                .map(|ratio| format!("{ratio:.2} ×"))
                .unwrap_or_default(),
            verdict(comparison, contestant, ratio),
        );
    }
}

fn verdict(comparison: &Comparison, contestant: &Contestant, ratio: Option<f64>) -> String {
    match (comparison.target, ratio) {
        (Some((peer, most)), Some(ratio)) if peer == contestant.name => {
            format!("  target {most:.2} × {}", met(ratio <= most))
        }
        _ => String::new(),
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

/// What a dyno's monitor takes while it waits.
pub(super) fn print_memory(share: u64) {
    println!("\na monitor's share of the memory, with {CROWD} dynos");
    println!(
        "  {:<44} {:>5} KiB  target 512 KiB {}",
        "proportional set size",
        share / 1024,
        met(share <= 512 * 1024)
    );
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

/// Our own figures that no peer has.
pub(super) fn print_latency(latency: &[(&'static str, Samples)]) {
    println!("\nfrom the API's request to the running dyno");
    for (net, samples) in latency {
        println!(
            "  {:<44} {:>9} {:>9} {:>9}",
            format!("POST /v1/dynos?start=true, net {net}"),
            milliseconds(samples.median()),
            milliseconds(samples.percentile(10)),
            milliseconds(samples.percentile(90)),
        );
    }
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
