//! The results, for people and for programs.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::contest::{Comparison, Contestant};
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
            let met = if ratio <= most { "met" } else { "missed" };
            format!("  target {most:.2} × {met}")
        }
        _ => String::new(),
    }
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
