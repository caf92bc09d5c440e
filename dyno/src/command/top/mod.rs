//! `dyno top`: what dynos use, live.
//!
//! ```text
//! sample   two measurements → rates (pure)
//! history  the samples of each dyno, in an order
//! view     a screen of them (pure)
//! ```

mod history;
mod sample;
mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::history::History;
use self::sample::Sample;
use super::Context;
use super::usage::{Meter, SINGLE};
use crate::failure::Failure;
use crate::signal::{Signal, Signals};
use crate::terminal::{self, Screen};

/// Between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);

/// ctrl-c.
const INTERRUPT: u8 = 3;
/// The key itself, or what the sequence of another key begins with.
const ESCAPE: u8 = 27;

/// Show what dynos use, live at a terminal; elsewhere once, as a table
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// What the first is first in
    #[arg(long, value_enum, default_value_t, value_name = "KEY")]
    sort: Sort,
    /// Ids or names [default: all that run]
    #[arg(value_name = "DYNO")]
    dynos: Vec<String>,
}

/// What dynos are sorted by, the highest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// CPU
    #[default]
    Cpu,
    /// Memory
    Memory,
    /// Time in which something waits for CPU, memory or I/O
    Pressure,
    /// Bytes read and written
    Io,
    /// Bytes received and sent
    Net,
    /// Name, the lowest first
    Name,
}

impl Sort {
    /// The one that a key stands for.
    fn of_key(key: u8) -> Option<Self> {
        let sort = match key.to_ascii_lowercase() {
            b'c' => Self::Cpu,
            b'm' => Self::Memory,
            b'p' => Self::Pressure,
            b'i' => Self::Io,
            b'n' => Self::Net,
            b'a' => Self::Name,
            _ => return None,
        };
        Some(sort)
    }
}

impl Top {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let mut meter = Meter::default();
        let mut history = History::default();
        meter.measure(&client, &self.dynos).await?;
        let live = terminal::is_interactive() && io::stdout().is_terminal();
        if context.output.json || !live {
            sleep(SINGLE).await;
            let mut uses = meter.measure(&client, &self.dynos).await?;
            if context.output.json {
                context.output.document(&uses)?;
                return Ok(0);
            }
            self.sort
                .order(&mut uses, |one| (Sample::of(one), one.name.to_string()));
            context.output.table(&view::table(&uses))?;
            return Ok(0);
        }
        let mut signals =
            Signals::listen().map_err(|error| Failure::io("cannot take signals", &error))?;
        let mut typed = terminal::typed();
        let screen =
            Screen::enter().map_err(|error| Failure::io("cannot use the terminal", &error))?;
        let mut sort = self.sort;
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => history.take(&meter.measure(&client, &self.dynos).await?),
                signal = signals.next() => if let Signal::Forward(_) = signal {
                    return Ok(0);
                },
                keys = typed.recv() => match keyed(&keys.unwrap_or_default()) {
                    Keyed::Sort(chosen) => sort = chosen,
                    Keyed::Nothing => continue,
                    Keyed::End => return Ok(0),
                },
            }
            let (rows, columns) = terminal::size().unwrap_or((24, 80));
            screen.show(&view::screen(&history, sort, rows.into(), columns.into()))?;
        }
    }
}

/// What somebody wants.
#[derive(Debug, PartialEq, Eq)]
enum Keyed {
    Sort(Sort),
    Nothing,
    End,
}

/// What keys mean that came at once; no keys are the end of the input.
fn keyed(keys: &[u8]) -> Keyed {
    match keys {
        [] | [ESCAPE] => return Keyed::End,
        [ESCAPE, ..] => return Keyed::Nothing,
        _ => {}
    }
    if keys
        .iter()
        .any(|key| matches!(key, b'q' | b'Q' | &INTERRUPT))
    {
        return Keyed::End;
    }
    let sort = keys.iter().rev().find_map(|key| Sort::of_key(*key));
    sort.map_or(Keyed::Nothing, Keyed::Sort)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_is_no_escape() {
        for (keys, meant) in [
            (&b"m"[..], Keyed::Sort(Sort::Memory)),
            (b"mp", Keyed::Sort(Sort::Pressure)),
            (b"x", Keyed::Nothing),
            (b"\x1b[A", Keyed::Nothing),
            (b"\x1b", Keyed::End),
            (b"\x03", Keyed::End),
            (b"mq", Keyed::End),
            (b"", Keyed::End),
        ] {
            assert_eq!(keyed(keys), meant, "{keys:?}");
        }
    }
}
