//! `dyno sandbox up` and `down`.

use clap::Args;
use dyno_sandbox::{HOSTS_MAX, Sandbox};

use super::{Which, told};
use crate::failure::Failure;
use crate::hostd;
use crate::output::Output;

/// Make a sandbox
#[derive(Debug, Args)]
pub(super) struct Up {
    #[command(flatten)]
    which: Which,
    /// How many hosts
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u8).range(1..=i64::from(HOSTS_MAX))
    )]
    hosts: u8,
}

impl Up {
    pub(super) fn run(self, output: Output) -> Result<u8, Failure> {
        let program = hostd::program().ok_or_else(hostd::no_program)?;
        let Which { name, folder } = &self.which;
        let sandbox = Sandbox::up(folder, name, self.hosts, &program)?;
        let hosts = told(&sandbox, name);
        if output.json {
            output.document(&hosts)?;
            return Ok(0);
        }
        for host in hosts {
            output.line(&host.name)?;
        }
        Ok(0)
    }
}

/// End a sandbox, and all that is in it
#[derive(Debug, Args)]
pub(super) struct Down {
    #[command(flatten)]
    which: Which,
}

impl Down {
    pub(super) fn run(self) -> Result<u8, Failure> {
        self.which.open()?.down()?;
        Ok(0)
    }
}
