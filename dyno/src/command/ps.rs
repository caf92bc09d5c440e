//! `dyno ps`: list dynos.

use clap::Args;
use dyno_api::dyno::Dyno;
use jiff::Timestamp;

use super::{Context, status};
use crate::failure::Failure;
use crate::output::Table;
use crate::output::table::Cell;
use crate::value::port::Shown;

/// The widest command that is shown whole.
const COMMAND_WIDTH: usize = 40;

/// List dynos: those that run, or all
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

impl Ps {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut dynos = context.client().await?.dynos().await?;
        dynos.retain(|dyno| self.all || status::is_live(dyno.status.phase));
        let id = |dyno: &Dyno| dyno.id.to_string();
        let table = |dynos: &[Dyno]| table(dynos, Timestamp::now());
        context.output.list(&dynos, self.quiet, id, table)?;
        Ok(0)
    }
}

fn table(dynos: &[Dyno], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ID", "NAME", "IMAGE", "STATUS", "ADDRESS", "PORTS", "COMMAND",
    ]);
    for dyno in dynos {
        let address = dyno.status.ipv4.map(|ip| ip.to_string());
        let address = address.or_else(|| dyno.status.ipv6.map(|ip| ip.to_string()));
        table.row([
            Cell::from(dyno.id.as_str()),
            Cell::from(dyno.name.as_str()),
            Cell::from(dyno.spec.image.as_str()),
            Cell::from(status::text(dyno, now)).style(status::style(dyno.status.phase)),
            Cell::from(address.unwrap_or_default()),
            Cell::from(ports(dyno)),
            Cell::from(command(dyno)),
        ]);
    }
    table
}

fn ports(dyno: &Dyno) -> String {
    let published = &dyno.status.ports;
    let shown = if published.is_empty() {
        &dyno.spec.ports
    } else {
        published
    };
    shown
        .iter()
        .map(|port| Shown(port).to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Entrypoint and command as the spec has them; those of the image stay unsaid.
fn command(dyno: &Dyno) -> String {
    let words = dyno
        .spec
        .entrypoint
        .iter()
        .flatten()
        .chain(&dyno.spec.command);
    let line = words.map(String::as_str).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= COMMAND_WIDTH {
        return line;
    }
    let cut: String = line.chars().take(COMMAND_WIDTH - 1).collect();
    format!("{cut}…")
}
