//! `events`: what a container uses, and when it runs out of memory, as runc prints it:
//! one JSON object a line.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::{Failure, lifecycle};
use crate::cgroup::usage::Usage;
use crate::cgroup::{Cgroup, OomWatch};
use crate::state::StateRoot;

// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Tell of the usage this often, as 5s or 500ms
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "5s")]
    interval: Duration,
    /// Tell of the usage once
    #[arg(long)]
    stats: bool,
    /// The container
    id: String,
}

/// runc's `types.Event`.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Usage>,
}

impl<'a> Event<'a> {
    fn oom(id: &'a str) -> Self {
        Self {
            r#type: "oom",
            id,
            data: None,
        }
    }

    fn stats(id: &'a str, cgroup: &Cgroup) -> Result<Self, Failure> {
        Ok(Self {
            r#type: "stats",
            id,
            data: Some(cgroup.usage()?),
        })
    }
}

/// Prints events until the container has ended.
pub(super) fn events(states: &StateRoot, args: &Events) -> Result<(), Failure> {
    let (state, record) = lifecycle::opened(states, &args.id)?;
    let Some(init) = record.init()? else {
        let id = &args.id;
        return Err(format!("container not running: {id:?} has stopped").into());
    };
    let cgroup = Cgroup::open(record.cgroup)?;
    // The lock is not held while we wait.
    drop(state);
    if args.stats {
        return print(&Event::stats(&args.id, &cgroup)?);
    }
    let oom = cgroup.oom_watch()?;
    watch(args, &cgroup, oom, &init)
}

fn watch(args: &Events, cgroup: &Cgroup, mut oom: OomWatch, init: &OwnedFd) -> Result<(), Failure> {
    let mut told = oom.count()?;
    let mut next = Instant::now() + args.interval;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        // The kernel takes less than a century, and there is always another round.
        let wait = Timespec::try_from(wait.min(Duration::from_secs(86400)))?;
        let mut polled = [
            PollFd::new(init, PollFlags::IN),
            PollFd::from_borrowed_fd(oom.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut polled, Some(&wait)))?;
        let ended = !polled[0].revents().is_empty();
        let count = oom.count()?;
        for _ in told..count {
            print(&Event::oom(&args.id))?;
        }
        told = count;
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            print(&Event::stats(&args.id, cgroup)?)?;
            next = Instant::now() + args.interval;
        }
    }
}

fn print(event: &Event<'_>) -> Result<(), Failure> {
    let text = serde_json::to_string(event)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// A time as runc takes it (Go's `ParseDuration`): `5s`, `1m30s`, `1.5h`, `500ms`.
fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time above 0 such as 5s, 500ms or 1m30s");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !number(c)).ok_or_else(wrong)?;
        let (count, after) = rest.split_at(end);
        let end = after.find(number).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        let count: f64 = count.parse().map_err(|_none| wrong())?;
        let part = Duration::try_from_secs_f64(count * unit).map_err(|_large| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    match total {
        Duration::ZERO => Err(wrong()),
        total => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_runcs() {
        for (text, millis) in [
            ("5s", 5000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2000us", 2),
        ] {
            assert_eq!(interval(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "0", "0s", "5", "-5s", "s", "5 s", "5x", "1..2s", "9e9s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
