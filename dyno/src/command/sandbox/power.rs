//! `dyno sandbox kill` and `start`.

use clap::Args;

use super::Which;
use crate::failure::Failure;

/// Cut the power of hosts: all of their processes are killed at once
#[derive(Debug, Args)]
pub(super) struct Kill {
    #[command(flatten)]
    which: Which,
    /// Kill hostd alone; dynos live on
    #[arg(long)]
    daemon: bool,
    /// The hosts
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
}

impl Kill {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let sandbox = self.which.open()?;
        for host in &self.hosts {
            match self.daemon {
                true => sandbox.kill_daemon(host)?,
                false => sandbox.kill(host)?,
            }
        }
        Ok(0)
    }
}

/// Power hosts on
#[derive(Debug, Args)]
pub(super) struct Start {
    #[command(flatten)]
    which: Which,
    /// The hosts
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
}

impl Start {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let sandbox = self.which.open()?;
        for host in &self.hosts {
            sandbox.start(host)?;
        }
        Ok(0)
    }
}
