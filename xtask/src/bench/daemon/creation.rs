//! A dyno in the background, from the request until its program was executed.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::host::Host;
use super::super::peers::Background;
use super::super::stage::done;
use super::super::statistics::Samples;
use super::{Figure, dynos, milliseconds};

/// So that a percentile means something.
const LEAST: usize = 100;
/// Peers are slow; medians of this many do.
const OF_PEERS: usize = 10;

/// Ours and each peer's in turn. The removal is in nobody's time.
pub(super) fn measure(host: &Host, peers: &[Background], rounds: usize) -> Result<Vec<Figure>> {
    let rounds = rounds.max(LEAST);
    let mut ours = Samples::default();
    let mut theirs = vec![Samples::default(); peers.len()];
    dynos::remove(host, [dynos::one(host, &["/bin/sleep", "60"])?])?;
    for round in 0..rounds {
        let begin = Instant::now();
        let id = dynos::one(host, &["/bin/sleep", "60"])?;
        ours.push(begin.elapsed());
        dynos::remove(host, [id])?;
        if round % (rounds / OF_PEERS) == 0 {
            for (peer, samples) in peers.iter().zip(&mut theirs) {
                let begin = Instant::now();
                run(&peer.start)?;
                samples.push(begin.elapsed());
                peer.remove.iter().try_for_each(|command| run(command))?;
            }
        }
    }
    let what = "the API's request to a running dyno, with a network";
    let (median, p99) = (Duration::from_millis(25), Duration::from_millis(60));
    let mut figures = Vec::from(Figure::times(what, &ours, median, p99));
    for (peer, samples) in peers.iter().zip(&theirs) {
        let times = samples.median().as_secs_f64() / ours.median().as_secs_f64();
        let value = format!(
            "{}: ours is {times:.1} × faster",
            milliseconds(samples.median())
        );
        let figure = Figure::new(format!("{}, median", peer.shown), value);
        figures.push(match peer.faster_by {
            Some(least) => figure.target(format!("{least} ×"), times >= least),
            None => figure,
        });
    }
    Ok(figures)
}

fn run(command: &[String]) -> Result<()> {
    let mut words = command.iter();
    let program = words.next().map_or("", String::as_str);
    done(Command::new(program).args(words)).map(drop)
}
