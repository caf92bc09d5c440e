//! `dyno sandbox ls`.

use clap::Args;
use dyno_sandbox::{Error, Name, Sandbox};

use super::{Told, Which, told};
use crate::failure::Failure;
use crate::output::table::Cell;
use crate::output::{Output, Table};

/// List hosts
#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    which: Which,
    /// Those of all sandboxes
    #[arg(short, long, conflicts_with = "name")]
    all: bool,
}

impl Ls {
    pub(super) fn run(self, output: Output) -> Result<u8, Failure> {
        let Which { name, folder } = &self.which;
        let mut hosts: Vec<Told> = Vec::new();
        let names: Vec<Name> = match self.all {
            true => Sandbox::names(folder)?,
            false => vec![name.clone()],
        };
        for name in names {
            match Sandbox::open(folder, &name) {
                Ok(sandbox) => hosts.extend(told(&sandbox, &name)),
                // It went meanwhile.
                Err(Error::NotFound(_)) if self.all => {}
                Err(error) => return Err(error.into()),
            }
        }
        if output.json {
            output.document(&hosts)?;
            return Ok(0);
        }
        let mut table = Table::new(&[
            "SANDBOX",
            "HOST",
            "ADDRESS",
            "STATE",
            "DOES NOT REACH",
            "SOCKET",
        ]);
        for host in &hosts {
            table.row([
                Cell::from(host.sandbox.as_str()),
                Cell::from(host.name.as_str()),
                Cell::from(host.address.as_str()),
                Cell::from(host.state),
                Cell::from(host.unreached.join(", ")),
                Cell::from(host.socket.display().to_string()),
            ]);
        }
        output.table(&table)?;
        Ok(0)
    }
}
