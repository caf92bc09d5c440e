//! Many requests that only look.
//!
//! They are sent by the clock, whether or not earlier ones were answered, and each
//! is timed from when it was due: a server that stands still for a while then delays
//! all that would have come meanwhile, rather than one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::api::Connection;
use super::super::host::Host;
use super::super::statistics::Samples;
use super::{Figure, milliseconds};

/// Requests a second.
const RATE: u32 = 2000;
/// For so long.
const SPELL: Duration = Duration::from_secs(10);
/// Clients, each with a connection that stays.
const CLIENTS: u32 = 16;
/// Of twenty requests ten ask for one dyno, five for its use, four for the host, and one
/// for all dynos.
pub(super) fn measure(host: &Host, dynos: &[String]) -> Result<Vec<Figure>> {
    let begin = Instant::now();
    let all = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| scope.spawn(move || client(host.socket(), dynos, begin, index)))
            .collect();
        let results = clients.into_iter().map(|client| {
            let result = client.join();
            result.unwrap_or_else(|_| anyhow::bail!("a client panicked"))
        });
        results.collect::<Result<Vec<Samples>>>()
    })?;
    let taken = begin.elapsed();
    let mut samples = Samples::default();
    for sample in all.iter().flat_map(Samples::all) {
        samples.push(*sample);
    }
    let count = samples.all().len();
    let rate = f64::from(u32::try_from(count)?) / taken.as_secs_f64();
    let p99 = samples.percentile(99);
    let figure = Figure::new(
        format!("mixed reads, {RATE} a second, {} dynos, p99", dynos.len()),
        format!(
            "{} (median {}), {rate:.0} a second answered",
            milliseconds(p99),
            milliseconds(samples.median())
        ),
    );
    let most = Duration::from_millis(10);
    let is_met = p99 <= most && rate >= 0.99 * f64::from(RATE);
    Ok(vec![figure.target(milliseconds(most), is_met)])
}

fn client(socket: &Path, dynos: &[String], begin: Instant, index: u32) -> Result<Samples> {
    let mut connection = Connection::open(socket)?;
    let mut samples = Samples::default();
    let each = Duration::from_secs(1) / RATE;
    let mut number = index;
    loop {
        let due = each * number;
        if due >= SPELL {
            return Ok(samples);
        }
        if let Some(early) = due.checked_sub(begin.elapsed()) {
            std::thread::sleep(early);
        }
        let position = usize::try_from(number)?;
        let dyno = dynos.get(position % dynos.len()).context("no dynos")?;
        let path = match position / 16 % 20 {
            0 => "/v1/dynos".to_owned(),
            1..5 => "/v1/info".to_owned(),
            5..10 => format!("/v1/dynos/{dyno}/stats"),
            _ => format!("/v1/dynos/{dyno}"),
        };
        connection.request("GET", &path, &Value::Null)?;
        samples.push(begin.elapsed().saturating_sub(due));
        number += CLIENTS;
    }
}
